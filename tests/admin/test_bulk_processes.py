"""Bulk ends as processes: killed in the middle, interrupted, resumed; and the command line as its users see it."""

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from app.domain.events import NO_CLIENT
from app.domain.revocations import Order
from app.domain.session_filters import SessionFilter
from tests.admin.ending_people import check_lives, insert_sessions
from tests.admin.ending_people import name as name  # noqa: PLC0414 - a fixture
from tests.conftest import SECRET, MakeServices

ROTA = str(Path(sys.executable).with_name("rota"))
MANY = 15_000


def environment(url: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
    return {**clean, "ROTA_DATABASE_URL": url, "ROTA_SECRETS": SECRET}


def start(url: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [ROTA, *words], env=environment(url), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def rota(url: str, *words: str, code: int = 0) -> str:
    """What a command prints: on standard output if it does its work, else on standard error."""
    process = start(url, "sessions", *words)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, (words, process.returncode, out, err)
    assert "Traceback" not in err
    return out if code == 0 else err


async def amid(sql: asyncpg.Connection, what: Callable[[], Awaitable[UUID | None]]) -> UUID:
    """Wait until a bulk end is in its middle."""
    for _ in range(3000):
        found = await what()
        if found is not None:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("no batch was done")


@pytest.fixture
def begun(sql: asyncpg.Connection, name: str) -> Callable[[], Awaitable[UUID | None]]:
    """The bulk end of this test, once it has done some of its work."""

    async def find() -> UUID | None:
        found: UUID | None = await sql.fetchval(
            "SELECT id FROM session_revocations WHERE why = $1 AND ended > 0 AND state = 'running'", name
        )
        return found

    return find


async def test_killed_in_the_middle_another_process_goes_on(
    sql: asyncpg.Connection, database_url: str, name: str, begun: Any, make_services: MakeServices
) -> None:
    """`rota serve` is killed amid a bulk end, then a second one: the third finishes; one end each, no gap."""
    services = make_services()
    await insert_sessions(sql, name, MANY)
    wanted = Order(SessionFilter(username_prefix=name))
    seen = await services.revocations.preview(wanted, caller=None, client=NO_CLIENT)
    assert seen.dry_run.count == MANY
    revocation = (await services.revocations.start_seen(wanted, seen, why=name, client=NO_CLIENT)).id
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        before = (await services.revocations.follow(revocation)).ended

        async def further(before: int = before) -> UUID | None:
            found = await services.revocations.follow(revocation)
            return revocation if found.ended > before else None

        server = start(database_url, "serve", "--port", str(port))
        try:
            await amid(sql, further)
        finally:
            server.kill()
            server.communicate()
    found = await services.revocations.follow(revocation)
    assert found.state == "running"
    assert 0 < found.ended < MANY
    said = json.loads(rota(database_url, "end", "--resume", str(revocation), "--json"))
    assert (said["state"], said["ended"]) == ("done", MANY)
    assert await check_lives(sql, name) == (MANY, 0)
    told = "SELECT action FROM audit_events WHERE request_id = $1 AND action LIKE 'revocation.%' ORDER BY seq"
    actions = [row["action"] for row in await sql.fetch(told, revocation)]
    assert actions == ["revocation.started", "revocation.finished"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
async def test_interrupted_and_resumed(
    sql: asyncpg.Connection, database_url: str, name: str, begun: Any, how: signal.Signals
) -> None:
    """The command stops at once, says how to go on and with what exit code; what it says works."""
    await insert_sessions(sql, name, MANY)
    words = ["sessions", "end", "--username-prefix", name, "--reason", name, "--yes"]
    command = start(database_url, *words)
    revocation = await amid(sql, begun)
    command.send_signal(how)
    out, err = await asyncio.to_thread(command.communicate, timeout=60)
    async with sql.transaction(isolation="repeatable_read"):  # a batch that was just committing may still come
        ended = await sql.fetchval("SELECT ended FROM session_revocations WHERE id = $1", revocation)
        assert 0 < ended < MANY
        assert await check_lives(sql, name) == (ended, MANY - ended)
    if how is signal.SIGINT:
        assert command.returncode == 75, err
        assert f"rota sessions end --resume {revocation}" in err
    assert (out, "Traceback" in err) == ("", False)
    said = await asyncio.to_thread(rota, database_url, "end", "--resume", str(revocation))
    assert f"{revocation}  done" in said
    assert f"{MANY} of {MANY}" in said
    assert await check_lives(sql, name) == (MANY, 0)


async def test_by_hand(sql: asyncpg.Connection, database_url: str, name: str) -> None:
    """Look, end in bulk, end one, end all of a user: without a server, with the reasons that the API gives."""
    await insert_sessions(sql, name, 40)
    url = database_url
    looked = json.loads(rota(url, "end", "--username-prefix", name, "--dry-run", "--json"))
    assert (looked["count"], looked["users"], len(looked["sample"])) == (40, 4, 10)
    assert "40 sessions of 4 users" in rota(url, "end", "--username-prefix", name, "--dry-run")
    row = await sql.fetchrow(
        "SELECT f.id, f.user_id FROM families AS f JOIN users AS u ON u.id = f.user_id WHERE u.username_key = $1",
        f"{name}-0",
    )
    assert row is not None
    assert json.loads(rota(url, "end", str(row["id"]), "--dry-run", "--json"))["would_end"] is True
    assert json.loads(rota(url, "end", str(row["id"]), "--json"))["ended"] is True
    assert "was over before" in rota(url, "end", str(row["id"]))
    assert "10 sessions of 1 users" in rota(url, "end", "--user", f"{name}-1", "--dry-run")
    assert json.loads(rota(url, "end", "--user", f"{name}-1", "--yes", "--json"))["sessions_ended"] == 10
    assert json.loads(rota(url, "end", "--user", str(row["user_id"]), "--yes", "--json"))["sessions_ended"] == 9
    said = json.loads(
        rota(url, "end", "--username-prefix", name, "--role", "user", "--reason", name, "--yes", "--json")
    )
    assert (said["state"], said["ended"], said["end_reason"]) == ("done", 20, "bulk_admin")
    reasons = await sql.fetch(
        "SELECT end_reason, count(*) AS n FROM families AS f JOIN users AS u ON u.id = f.user_id"
        " WHERE u.username_key LIKE $1 || '-%' AND f.ended_by IS NULL GROUP BY 1",
        name,
    )
    assert {row["end_reason"]: row["n"] for row in reasons} == {"admin": 20, "bulk_admin": 20}
    listed = json.loads(rota(url, "revocations", "--limit", "1", "--json"))["items"]
    assert [item["revocation"] for item in listed] == [said["revocation"]]
    assert json.loads(rota(url, "cancel", said["revocation"], "--json"))["state"] == "done"


async def test_after_a_restore(own_sql: asyncpg.Connection, own: Any, name: str) -> None:
    """`--issued-before` ends what is older than the moment, as `restore`."""
    await insert_sessions(own_sql, f"{name}-old", 30)
    moment = await own_sql.fetchval("SELECT clock_timestamp()")
    await insert_sessions(own_sql, f"{name}-new", 10)
    words = ["end", "--issued-before", moment.isoformat(), "--reason", "restored", "--json"]
    assert json.loads(rota(own.app, *words, "--dry-run"))["count"] == 30
    said = json.loads(rota(own.app, *words, "--yes"))
    assert (said["ended"], said["end_reason"]) == (30, "restore")
    assert await check_lives(own_sql, f"{name}-old") == (30, 0)
    assert await check_lives(own_sql, f"{name}-new") == (0, 10)
    assert json.loads(rota(own.app, "end", "--all", "--reason", "everybody", "--yes", "--json"))["ended"] == 10


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        pytest.param([], 2, "say which", id="nothing"),
        pytest.param(["--all", "--user", "ada"], 2, "say which", id="all and one"),
        pytest.param([str(uuid7()), "--user", "ada"], 2, "say which", id="an id and a filter"),
        pytest.param(["x"], 2, "UUID", id="no id"),
        pytest.param([str(uuid7())], 3, "no such session", id="unknown id"),
        pytest.param(["--user", "nobody-of-that-name", "--yes"], 3, "no such user", id="unknown user"),
        pytest.param(["--resume", str(uuid7())], 3, "no such revocation", id="unknown bulk end"),
        pytest.param(["--ip", "x", "--dry-run"], 2, "ip must be", id="no address"),
        pytest.param(["--created-from", "soon", "--dry-run"], 2, "--created-from: A time", id="no time"),
        pytest.param(["--issued-before", "soon", "--dry-run"], 2, "--issued-before: A time", id="no moment"),
        pytest.param(["--resume", str(uuid7()), "--dry-run"], 2, "no --dry-run", id="resume, but not really"),
        pytest.param([str(uuid7()), "--reason", "ticket 4711"], 2, "with a bulk end", id="a reason that nobody keeps"),
        pytest.param(["--issued-before", "2026-01-01", "--os", "Linux", "--dry-run"], 2, "issued_before", id="both"),
        pytest.param(["--os", "Linux", "--yes"], 2, "--reason", id="no reason"),
        pytest.param(["--os", "Linux", "--reason", "x", "--yes"], 2, "--reason", id="reason too short"),
        pytest.param(["--os", "Linux", "--reason", "ticket 4711"], 2, "--yes", id="nobody to ask"),
        pytest.param(["--user", "{user}"], 2, "--yes", id="nobody to ask about a user"),
    ],
)
async def test_what_cannot_be_done_is_one_sentence(
    sql: asyncpg.Connection, database_url: str, words: list[str], code: int, says: str
) -> None:
    """And an exit code of its kind; nothing has ended."""
    name = f"refused-{secrets.token_hex(6)}"
    await insert_sessions(sql, name, 1)
    words = [word.format(user=f"{name}-0") for word in words]
    assert says in " ".join(rota(database_url, "end", *words, code=code).split())
    assert await check_lives(sql, name) == (0, 1)
