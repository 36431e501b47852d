"""`rota users`, as an operator types it: the same services, data on standard output, talk on the other, exit codes."""

import asyncio
import json
import secrets
import subprocess
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from app.cli.exits import Exit
from tests.admin.conftest import Office
from tests.cli.test_cli import ROTA, environment
from tests.conftest import SECRET, OwnDatabase

Rota = Callable[..., Any]


@pytest.fixture
def rota(own: OwnDatabase) -> Rota:
    """Run `rota users …`; its process, or what it prints as JSON."""
    settings = environment(
        ROTA_DATABASE_URL=own.app, ROTA_MAINTENANCE_DATABASE_URL=own.maintenance, ROTA_SECRETS=SECRET
    )

    async def run(*words: str, code: Exit = Exit.OK) -> Any:
        done = await asyncio.to_thread(
            subprocess.run,
            [ROTA, "users", *words],
            env=settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout) if "--json" in words else done

    return run


async def sign_in(http: httpx2.AsyncClient, username: str, password: str) -> httpx2.Response:
    return await http.post("/token", data={"username": username, "password": password})


async def test_from_a_one_time_password_to_a_session(office: Office, rota: Rota) -> None:
    """The first administrator of an installation: created on the command line, and nobody else knows the password."""
    done = await rota("create", "--role", "admin", "ada")
    one_time = done.stdout.strip().rsplit(" ", 1)[1]
    assert done.stdout.startswith("ada (admin), one-time password ")
    assert one_time not in done.stderr
    assert "good until" in done.stderr
    office.clock.advance(seconds=60)  # the command's time is the real one
    refused = await sign_in(office.http, "ada", one_time)
    assert refused.status_code == 403
    new = {"token": refused.json()["password_token"], "new_password": "a password of my own"}
    await office.ok("PUT", "/password", json=new)
    assert (await sign_in(office.http, "ada", "a password of my own")).status_code == 200


async def test_tokens_and_none(office: Office, rota: Rota) -> None:
    """`--token` and `reset-password` print what `PUT /password` takes; `--forget` ends sessions; or no password."""
    made = await rota("create", "ada", "--token", "--json")
    assert made["one_time_password"] is None
    await office.ok("PUT", "/password", json={"token": made["password_token"], "new_password": "a password of my own"})
    assert (await sign_in(office.http, "ada", "a password of my own")).status_code == 200
    reset = await rota("reset-password", "ada", "--forget", "--json")
    assert (reset["id"], reset["sessions_ended"]) == (made["id"], 1)
    assert (await sign_in(office.http, "ada", "a password of my own")).status_code == 401
    printed = (await rota("reset-password", made["id"])).stdout.strip()
    await office.refused(
        "PUT", "/password", 401, "password_token_rejected",
        json={"token": reset["password_token"], "new_password": "another zeppelin ride"},
    )  # fmt: skip
    await office.ok("PUT", "/password", json={"token": printed, "new_password": "another zeppelin ride"})
    none = await rota("create", "ben", "--no-password", "--json")
    assert (none["credential"], none["one_time_password"], none["password_token"]) == ("none", None, None)
    await rota("create", "eve", "--no-password", "--token", code=Exit.USAGE)


async def test_a_life_of_an_account(office: Office, rota: Rota) -> None:
    """Each command once: `changed` says whether it did anything; a deleted user is found by the id."""
    made = await rota("create", "ada", "--json")
    for words, field, value in (
        (("rename", "ada", "Augusta"), "username", "Augusta"),
        (("set-role", "augusta", "auditor"), "role", "auditor"),
        (("disable", "augusta"), "disabled_at", str),
        (("enable", made["id"]), "disabled_at", None),
        (("delete", made["id"], "--yes"), "deleted_at", str),
    ):
        first = await rota(*words, "--json")
        assert (first["id"], first["changed"]) == (made["id"], True)
        assert first[field] == value or isinstance(first[field], str) == (value is str)
        if words[0] == "disable":
            assert (await rota(*words, "--json"))["changed"] is False
    shown = await rota("show", made["id"], "--json")
    assert (shown["username"], shown["has_password"], shown["active_sessions"]) == ("Augusta", False, 0)
    await rota("enable", made["id"], code=Exit.REFUSED)
    await rota("erase", made["id"], "--reason", "ticket 1", "--yes")
    assert (await rota("show", made["id"], "--json"))["username"] == f"erased-{made['id']}"
    actors = {event["actor_kind"] for event in await office.events(made["id"])}
    assert actors == {"system"}


async def test_listing(office: Office, rota: Rota) -> None:
    """The filters of the API; pages by cursor; that somebody looked is an event of the system's."""
    names = [f"page-{number}" for number in range(3)]
    for name in names:
        await office.person(name)
        office.clock.advance(seconds=1)
    page = await rota("list", "--prefix", "PAGE-", "--order", "oldest", "--limit", "2", "--json")
    assert [one["username"] for one in page["items"]] == names[:2]
    rest = await rota("list", "--prefix", "PAGE-", "--order", "oldest", "--after", page["next"], "--json")
    assert [one["username"] for one in rest["items"]] == names[2:]
    assert rest["next"] is None
    done = await rota("list", "--role", "admin", "--enabled", "--active")
    assert "root" in done.stdout
    assert done.stdout.count("\n") == 1
    assert (await rota("list", "--disabled", "--json"))["items"] == []
    await rota("list", "--created-from", "yesterday", code=Exit.USAGE)
    await rota("list", "--after", "AAAA", code=Exit.USAGE)
    kinds = await office.sql.fetch("SELECT DISTINCT actor_kind FROM audit_events WHERE action = 'admin.queried'")
    assert [row[0] for row in kinds] == ["system"]


async def test_what_is_refused(office: Office, rota: Rota) -> None:
    """The last administrator stays; nothing is deleted without a word where nobody can be asked; unknown is 3."""
    for words in (("set-role", "root", "user"), ("delete", "root", "--yes")):
        done = await rota(*words, code=Exit.REFUSED)
        assert "last administrator" in done.stderr
        assert done.stdout == ""
    done = await rota("erase", "root", "--reason", "ticket 2", "--yes", code=Exit.REFUSED)
    assert "last administrator" in done.stderr
    await rota("delete", "root", code=Exit.USAGE)
    await office.person("ada")
    await rota("rename", "ada", "ROOT", code=Exit.REFUSED)
    await rota("disable", f"nobody-{secrets.token_hex(4)}", code=Exit.NOT_FOUND)
    assert await office.events(office.admin.user.id) == []
