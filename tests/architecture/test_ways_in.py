"""Ways in: which routes take a credential, that each refuses alike, and that a new installation has none."""

import ast
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI

from app.domain.api_clients import ClientGrant, NewClient
from app.domain.events import NO_CLIENT, SYSTEM
from tests.conftest import PASSWORD, Events, MakePerson, OwnDatabase, client_at
from tests.oauth.conftest import basic

ROOT = Path(__file__).parents[2]
CREDENTIAL = re.compile(r"password|token$|secret$")

# Every route that takes a credential in its body -> the members. A further one comes with a row, and with the checks
# and events of its kind: those of a sign-in are tried below.
TAKES: dict[tuple[str, str], set[str]] = {
    ("POST", "/token"): {"password", "refresh_token"},
    ("POST", "/oauth2/token"): {"password", "refresh_token"},
    ("POST", "/refresh"): {"refresh_token"},
    ("POST", "/logout"): {"refresh_token"},
    ("POST", "/register"): {"password"},
    ("POST", "/oauth2/revoke"): {"token"},
    ("POST", "/oauth2/introspect"): {"token"},
    ("PUT", "/password"): {"token", "new_password"},
    ("PUT", "/me/password"): {"current_password", "new_password"},
    ("POST", "/admin/users/{user_id}/password-token"): {"forget_password"},  # a yes or no
}
LATER = {"device_token"}  # beside a credential, never in place of one


def taken(app: FastAPI) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            for described in operation.get("requestBody", {}).get("content", {}).values():
                members = {name for name in described["schema"].get("properties", {}) if CREDENTIAL.search(name)}
                if members - LATER:
                    found.setdefault((method.upper(), path), set()).update(members - LATER)
    return found


def test_every_way_in_is_on_the_list(app: FastAPI) -> None:
    """
    By the API document, the routes that take a credential; by the sources, that a password is verified in two places:
    at sign-in, whichever route it comes by, and before it is changed.
    """
    assert taken(app) == TAKES
    callers = set()
    for path in sorted((ROOT / "app").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and re.search(r"hasher\.verify$", ast.unparse(node.func)):
                callers.add(str(path.relative_to(ROOT)))
    assert callers == {"app/services/sign_in.py", "app/services/password_change.py"}


def test_no_administrator_chooses_a_password(app: FastAPI) -> None:
    """Nothing under /admin takes a password, and nothing there is answered that shows one somebody has chosen."""
    for (_, path), members in taken(app).items():
        if path.startswith("/admin"):
            assert members == {"forget_password"}, path
    for name, described in app.openapi()["components"]["schemas"].items():
        shown = {each for each in described.get("properties", {}) if "password" in each}
        allowed = {"one_time_password", "password_token", "password_token_expires_in", "has_password"}
        assert not {each for each in shown if each in {"password", "password_hash"}}, name
        assert shown <= allowed | {each for each in shown if re.search(r"_at$|_in$|must_change|credential", each)}, (
            name,
            shown,
        )


Ask = Callable[[str, str], dict[str, Any]]


@pytest.mark.parametrize("path", ["/token", "/oauth2/token"])
async def test_every_way_in_refuses_alike_and_tells_the_trail(
    http: httpx2.AsyncClient,
    app: FastAPI,
    make_person: MakePerson,
    events_of: Events,
    sql: asyncpg.Connection,
    path: str,
) -> None:
    """Wrong, disabled, unknown: one answer by each route; the same events in the trail, and one of a success."""
    services = app.state.container
    headers = {}
    if path == "/oauth2/token":
        wanted = NewClient(
            f"way in {secrets.token_hex(4)}",
            grants=frozenset({ClientGrant.PASSWORD, ClientGrant.REFRESH_TOKEN}),
            first_party=True,
        )
        made = await services.api_clients.create(wanted, actor=SYSTEM, client=NO_CLIENT)
        headers = basic(made.client.client_id, made.secret)
    person, disabled = await make_person(services), await make_person(services)
    await services.users.disable(disabled.user.id, actor=SYSTEM, client=client_at())
    unknown = f"nobody-{secrets.token_hex(6)}"
    before = await sql.fetchval("SELECT count(*) FROM audit_events WHERE reason = 'unknown_user'")
    answers = []
    for name, password in (
        (person.username, "a wrong password"), (disabled.username, PASSWORD), (unknown, PASSWORD),
        (f"{person.username}\u00a0", PASSWORD),
    ):  # fmt: skip
        form = {"grant_type": "password", "username": name, "password": password}
        answers.append(await http.post(path, data=form, headers=headers))
    assert {answer.status_code for answer in answers} == {401 if path == "/token" else 400}
    assert len({re.sub(r'"request_id":"[^"]+"', "", answer.text) for answer in answers}) == 1
    form = {"grant_type": "password", "username": person.username, "password": PASSWORD}
    assert (await http.post(path, data=form, headers=headers)).status_code == 200
    mine = [(event["action"], event["reason"]) for event in await events_of(person.user.id)]
    assert mine[1:] == [("login.failed", "wrong_password"), ("session.created", None)]
    assert ("login.failed", "disabled") in [(e["action"], e["reason"]) for e in await events_of(disabled.user.id)]
    assert await sql.fetchval("SELECT count(*) FROM audit_events WHERE reason = 'unknown_user'") > before


async def test_a_new_installation_lets_nobody_in(own: OwnDatabase, own_sql: asyncpg.Connection) -> None:
    """After the migrations: no account, no API client, no token, no login of PostgreSQL that we brought along."""
    for table in ("users", "api_clients", "password_tokens", "families"):
        assert await own_sql.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    scripts = sorted((ROOT / "migrations" / "sql").glob("*.sql"))
    assert len(scripts) > 10
    for path in scripts:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"INSERT INTO (users|api_clients)\b", text), path
        assert not re.search(r"\bLOGIN\b|\bPASSWORD '", text), path
