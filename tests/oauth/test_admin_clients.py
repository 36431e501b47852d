"""`/admin/clients`: administrators act, auditors read, and the trail has it all."""

import json
from typing import Any

import asyncpg
import httpx2
import pytest
import pytest_asyncio

from app.domain.users import Role
from tests.oauth.conftest import ElapsingClock, LogIn, MakeSomebody, basic, bearer

SECRETS = {"client_secret", "changed"}


@pytest_asyncio.fixture
async def admin(make_somebody: MakeSomebody, log_in: LogIn) -> dict[str, str]:
    return bearer((await log_in(await make_somebody(Role.ADMIN)))["access_token"])


@pytest_asyncio.fixture
async def auditor(make_somebody: MakeSomebody, log_in: LogIn) -> dict[str, str]:
    return bearer((await log_in(await make_somebody(Role.AUDITOR)))["access_token"])


async def create(http: httpx2.AsyncClient, admin: dict[str, str], **body: Any) -> dict[str, Any]:
    answer = await http.post("/admin/clients", json={"name": "billing", **body}, headers=admin)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def works(http: httpx2.AsyncClient, client: dict[str, Any], secret: str | None) -> bool:
    answer = await http.post(
        "/oauth2/token", data={"grant_type": "client_credentials"}, headers=basic(client["client_id"], secret or "")
    )
    assert answer.status_code in {200, 401}
    return answer.status_code == 200


async def client_events(sql: asyncpg.Connection, client: dict[str, Any]) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await sql.fetch(
        "SELECT * FROM audit_events WHERE action LIKE 'client.%' AND strpos(detail, $1) > 0 ORDER BY xact_id, seq",
        client["id"],
    )
    return rows


async def test_a_clients_life(http: httpx2.AsyncClient, admin: dict[str, str], sql: asyncpg.Connection) -> None:
    """Made, read, rotated with an overlap, shut out and let in: each change an event by that administrator."""
    made = await create(http, admin, scopes=["introspect", "authz"], session_scopes=["read"])
    assert made["client_secret"].startswith("rota_cs_")
    assert (made["scopes"], made["grants"]) == (["authz", "introspect"], ["client_credentials", "refresh_token"])
    seen = (await http.get(f"/admin/clients/{made['id']}", headers=admin)).json()
    assert seen == {name: value for name, value in made.items() if name not in SECRETS}
    assert (await http.get(f"/admin/clients/{made['client_id']}", headers=admin)).json() == seen
    rotated = (await http.post(f"/admin/clients/{made['id']}/secrets", headers=admin)).json()
    assert await works(http, made, made["client_secret"])
    assert await works(http, made, rotated["client_secret"])
    for path, changed in (("disable", True), ("disable", False)):
        answer = await http.post(f"/admin/clients/{made['client_id']}/{path}", headers=admin)
        assert answer.json()["changed"] is changed
        assert answer.json()["disabled_at"]
    assert not await works(http, made, rotated["client_secret"])
    for changed in (True, False):
        answer = await http.post(f"/admin/clients/{made['id']}/enable", headers=admin)
        assert (answer.json()["changed"], answer.json()["disabled_at"]) == (changed, None)
    assert await works(http, made, rotated["client_secret"])
    events = await client_events(sql, made)
    assert [event["action"] for event in events] == [
        "client.created",
        "client.viewed",
        "client.viewed",
        "client.secret_rotated",
        "client.disabled",
        "client.enabled",
    ]
    assert {event["actor_kind"] for event in events} == {"admin"}
    assert len({event["actor_id"] for event in events}) == 1
    assert json.loads(events[0]["detail"]) == {
        "client": made["id"],
        "client_id": made["client_id"],
        "first_party": False,
        "grants": ["client_credentials", "refresh_token"],
        "public": False,
        "scopes": ["authz", "introspect"],
        "session_scopes": ["read"],
    }
    assert made["client_secret"] not in str([dict(event) for event in events])


async def test_a_rotation_overlaps_for_a_day(
    http: httpx2.AsyncClient, admin: dict[str, str], make_somebody: MakeSomebody, log_in: LogIn, clock: ElapsingClock
) -> None:
    """Both work until then, and to the second; afterwards the new one only."""
    made = await create(http, admin)
    rotated = (await http.post(f"/admin/clients/{made['id']}/secrets", json={}, headers=admin)).json()
    old, new = made["client_secret"], rotated["client_secret"]
    assert rotated["former_secret_created_at"] == made["secret_created_at"]
    clock.advance(hours=24, seconds=-1)
    assert [await works(http, made, secret) for secret in (old, new)] == [True, True]
    clock.advance(seconds=1)
    assert [await works(http, made, secret) for secret in (old, new)] == [False, True]


async def test_overlaps_of_all_lengths(
    http: httpx2.AsyncClient, admin: dict[str, str], clock: ElapsingClock, make_somebody: MakeSomebody, log_in: LogIn
) -> None:
    """None at all, some seconds, or until it is revoked."""
    made = await create(http, admin)
    path = f"/admin/clients/{made['id']}/secrets"
    second = (await http.post(path, json={"overlap_seconds": 0}, headers=admin)).json()
    assert second["former_secret_created_at"] is None
    assert [await works(http, made, each["client_secret"]) for each in (made, second)] == [False, True]
    third = (await http.post(path, json={"overlap_seconds": None}, headers=admin)).json()
    assert (third["former_secret_expires_at"], bool(third["former_secret_created_at"])) == (None, True)
    clock.advance(days=60)
    assert [await works(http, made, each["client_secret"]) for each in (second, third)] == [True, True]
    admin = bearer((await log_in(await make_somebody(Role.ADMIN)))["access_token"])
    for changed in (True, False):
        answer = await http.delete(f"{path}/former", headers=admin)
        assert answer.json()["changed"] is changed
    assert [await works(http, made, each["client_secret"]) for each in (second, third)] == [False, True]
    for wrong in (-1, 7_776_001, "soon", 1.5):
        answer = await http.post(path, json={"overlap_seconds": wrong}, headers=admin)
        assert answer.status_code == 422


async def test_a_third_secret_takes_the_place_of_the_first(http: httpx2.AsyncClient, admin: dict[str, str]) -> None:
    """A client has two at most."""
    made = await create(http, admin)
    path = f"/admin/clients/{made['id']}/secrets"
    second = (await http.post(path, headers=admin)).json()
    third = (await http.post(path, headers=admin)).json()
    assert [await works(http, made, each["client_secret"]) for each in (made, second, third)] == [False, True, True]


async def test_a_rotation_whose_answer_was_lost_is_taken_back(
    http: httpx2.AsyncClient, admin: dict[str, str], clock: ElapsingClock
) -> None:
    """The current secret goes, the former is current again and does not expire; without a former one there is none."""
    made = await create(http, admin)
    path = f"/admin/clients/{made['id']}/secrets"
    lost = (await http.post(path, headers=admin)).json()
    back = (await http.delete(f"{path}/current", headers=admin)).json()
    assert (back["secret_created_at"], back["former_secret_created_at"]) == (made["secret_created_at"], None)
    assert [await works(http, made, each["client_secret"]) for each in (made, lost)] == [True, False]
    gone = (await http.delete(f"{path}/current", headers=admin)).json()
    assert (gone["changed"], gone["secret_created_at"]) == (True, None)
    assert not await works(http, made, made["client_secret"])
    assert not await works(http, made, "")
    again = (await http.post(path, headers=admin)).json()
    assert again["former_secret_created_at"] is None
    assert await works(http, made, again["client_secret"])


async def test_an_expired_former_secret_is_not_brought_back(
    http: httpx2.AsyncClient, admin: dict[str, str], clock: ElapsingClock
) -> None:
    """Revoking the current one leaves none."""
    made = await create(http, admin)
    path = f"/admin/clients/{made['id']}/secrets"
    await http.post(path, json={"overlap_seconds": 10}, headers=admin)
    clock.advance(seconds=10)
    assert (await http.delete(f"{path}/current", headers=admin)).json()["secret_created_at"] is None
    assert not await works(http, made, made["client_secret"])


async def test_auditors_read_and_do_not_act(
    http: httpx2.AsyncClient, admin: dict[str, str], auditor: dict[str, str], make_somebody: MakeSomebody, log_in: LogIn
) -> None:
    """403 on each act; people who are neither see nothing."""
    made = await create(http, admin)
    path = f"/admin/clients/{made['id']}"
    person = bearer((await log_in(await make_somebody()))["access_token"])
    for where in ("/admin/clients", path):
        assert (await http.get(where, headers=auditor)).status_code == 200
        assert (await http.get(where, headers=person)).status_code == 403
    for headers in (auditor, person):
        acts = [
            await http.post("/admin/clients", json={"name": "x"}, headers=headers),
            await http.post(f"{path}/secrets", headers=headers),
            await http.delete(f"{path}/secrets/former", headers=headers),
            await http.post(f"{path}/disable", headers=headers),
            await http.post(f"{path}/enable", headers=headers),
        ]
        assert {act.status_code for act in acts} == {403}


async def test_pages_of_clients(
    http: httpx2.AsyncClient, admin: dict[str, str], auditor: dict[str, str], clock: ElapsingClock
) -> None:
    """Newest first, each once, no secrets; a cursor that was edited, or of another kind, is refused."""
    made = []
    for number in range(7):
        clock.advance(seconds=1)
        made.append((await create(http, admin, name=f"number {number}"))["id"])
    seen: list[str] = []
    after: dict[str, str] = {}
    while len(seen) < 6:
        page = (await http.get("/admin/clients", params={"limit": 2, **after}, headers=auditor)).json()
        assert len(page["items"]) == 2
        seen += [item["id"] for item in page["items"]]
        assert not any("secret_hash" in item or "client_secret" in item for item in page["items"])
        after = {"after": page["next"]}
    assert seen == made[:0:-1]  # six of the seven, so that a page comes after them whoever else made clients
    cursor = after["after"]
    edited = ("B" if cursor[0] == "A" else "A") + cursor[1:]
    for wrong in (edited, cursor[:-4], "x", "", cursor[:32]):
        answer = await http.get("/admin/clients", params={"after": wrong}, headers=auditor)
        assert answer.status_code == 422, wrong
    for query in ("limit=0", "limit=101", "limits=5", "limit=x"):
        assert (await http.get(f"/admin/clients?{query}", headers=auditor)).status_code == 422


async def test_looking_is_an_event(
    http: httpx2.AsyncClient, admin: dict[str, str], auditor: dict[str, str], sql: asyncpg.Connection
) -> None:
    """Who, which one or the list, and how many they saw."""
    await create(http, admin)
    answer = await http.get("/admin/clients", params={"limit": 1}, headers=auditor)
    event = await sql.fetchrow(
        "SELECT * FROM audit_events WHERE action = 'client.viewed' AND request_id = $1", answer.headers["x-request-id"]
    )
    assert event is not None
    assert json.loads(event["detail"]) == {"client": None, "count": 1}


BAD = [
    {},
    {"name": ""},
    {"name": "x" * 101},
    {"name": 1},
    {"name": "x", "scopes": ["everything"]},
    {"name": "x", "scopes": "introspect"},
    {"name": "x", "grants": ["implicit"]},
    {"name": "x", "grants": ["password"]},
    {"name": "x", "public": True},
    {"name": "x", "client_id": "first-party"},
    {"name": "x", "client_id": "01a20000-0000-7000-8000-000000000000"},
    {"name": "x", "client_id": "a b c"},
    {"name": "x", "session_scopes": ["a b"]},
    {"name": "x", "session_scopes": [""]},
    {"name": "x", "session_scopes": ["ä"]},
    {"name": "x", "secret": "mine"},
    {"name": "x", "first_party": "perhaps"},
]


@pytest.mark.parametrize("body", BAD, ids=str)
async def test_what_cannot_be_made(http: httpx2.AsyncClient, admin: dict[str, str], body: dict[str, Any]) -> None:
    """422 that does not repeat what was sent."""
    answer = await http.post("/admin/clients", json=body, headers=admin)
    assert answer.status_code == 422, answer.text


async def test_names_are_unique_and_unknown_ones_are_missing(http: httpx2.AsyncClient, admin: dict[str, str]) -> None:
    """409 for a taken one, 404 for one that nobody has, 422 for what cannot be one."""
    made = await create(http, admin, client_id=f"portal.{(await create(http, admin))['client_id']}")
    answer = await http.post("/admin/clients", json={"name": "x", "client_id": made["client_id"]}, headers=admin)
    assert (answer.status_code, answer.json()["code"]) == (409, "client_id_taken")
    for reference in ("01a20000-0000-7000-8000-000000000000", "nobody"):
        for method, path in (
            ("GET", ""),
            ("POST", "/secrets"),
            ("DELETE", "/secrets/former"),
            ("POST", "/disable"),
            ("POST", "/enable"),
        ):
            answer = await http.request(method, f"/admin/clients/{reference}{path}", headers=admin)
            assert (answer.status_code, answer.json()["code"]) == (404, "client_not_found")
    for reference in ("a%20b", "%00", "ä", "x" * 65):
        assert (await http.get(f"/admin/clients/{reference}", headers=admin)).status_code == 422
    assert (await http.delete(f"/admin/clients/{made['id']}/secrets/both", headers=admin)).status_code == 422


async def test_a_public_client_has_no_secrets(http: httpx2.AsyncClient, admin: dict[str, str]) -> None:
    """Neither at first nor later."""
    made = await create(http, admin, public=True, first_party=True, grants=["password", "refresh_token"])
    assert made["client_secret"] is None
    answer = await http.post(f"/admin/clients/{made['id']}/secrets", headers=admin)
    assert (answer.status_code, answer.json()["code"]) == (409, "client_is_public")
