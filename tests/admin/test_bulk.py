"""Bulk ends as an administrator orders them over the API: look, order, follow, stop."""

import base64
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from uuid_utils.compat import uuid7

from app.container import Container
from app.domain.users import Role
from app.services.revocation_work import Step
from tests.admin.ending_people import Admin, MakeAdmin, work_off
from tests.admin.ending_people import admin as admin  # noqa: PLC0414 - a fixture
from tests.admin.ending_people import make_admin as make_admin  # noqa: PLC0414 - a fixture
from tests.admin.ending_people import name as name  # noqa: PLC0414 - a fixture
from tests.conftest import PASSWORD, MovableClock, Person, client_at

FIREFOX = "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0"


async def make_people(services: Container, name: str, number: int, sessions: int = 1) -> list[Person]:
    """So many whose names begin like that, each with so many sessions."""
    people = []
    for each in range(number):
        username = f"{name}-{each}"
        user = await services.users.create(username, PASSWORD, role=Role.USER, actor=None, client=client_at())
        people.append(Person(services, user, username))
        for _ in range(sessions):
            await people[-1].sign_in()
    return people


async def states(sql: asyncpg.Connection, people: list[Person]) -> Counter[str | None]:
    rows = await sql.fetch(
        "SELECT end_reason FROM families WHERE user_id = ANY($1)", [person.user.id for person in people]
    )
    return Counter(row["end_reason"] for row in rows)


async def test_look_then_end_exactly_that(
    http: httpx2.AsyncClient, services: Container, admin: Admin, name: str, sql: asyncpg.Connection
) -> None:
    """
    The dry run counts sessions and users and ends none; the order ends them all and nobody else's, each with one event,
    numbered from its row, by that administrator; the batch has its two events; progress says what was done.
    """
    people = await make_people(services, name, 3, sessions=4)
    (bystander,) = await make_people(services, f"other-{name}", 1)
    asked: dict[str, Any] = {"filter": {"username_prefix": name}}
    seen = (await admin.order(http, **asked, dry_run=True)).json()
    assert (seen["count"], seen["users"], seen["at_least"], seen["own_session"]) == (12, 3, False, False)
    assert {sample["username"] for sample in seen["sample"]} <= {person.username for person in people}
    assert len(seen["sample"]) == 10
    assert await states(sql, people) == {None: 12}
    answer = await admin.order(http, **asked, fingerprint=seen["fingerprint"], reason="ticket 4711")
    started = answer.json()
    assert (answer.status_code, started["state"], started["expected"]) == (202, "queued", 12)
    path = answer.headers["Location"]
    assert await work_off(services, started["id"]) is Step.FINISHED
    done = (await http.get(path, headers=admin.headers)).json()
    assert (done["state"], done["ended"], done["reason"]) == ("done", 12, "ticket 4711")
    assert await states(sql, people) == {"bulk_admin": 12}
    assert await states(sql, [bystander]) == {None: 1}
    ends = await sql.fetch(
        "SELECT e.*, f.event_seq, f.ended_at, f.ended_by, f.ended_xact IS NOT NULL AS dated FROM audit_events AS e"
        " JOIN families AS f ON f.id = e.family_id WHERE e.action = 'session.ended' AND e.subject_id = ANY($1)",
        [person.user.id for person in people],
    )
    assert len(ends) == len({event["family_id"] for event in ends}) == len({event["id"] for event in ends}) == 12
    assert {event["id"].version for event in ends} == {7}
    for event in ends:
        assert (event["family_seq"], event["occurred_at"]) == (event["event_seq"], event["ended_at"])
        assert (event["actor_kind"], event["actor_id"], event["ended_by"]) == ("admin", admin.id, admin.id)
        assert (event["reason"], str(event["request_id"]), event["dated"]) == ("bulk_admin", started["id"], True)
    batch = await sql.fetch(
        "SELECT action, reason, detail FROM audit_events WHERE detail::jsonb ->> 'revocation' = $1"
        " AND action LIKE 'revocation.%' ORDER BY seq",
        started["id"],
    )
    assert [event["action"] for event in batch] == ["revocation.started", "revocation.finished"]
    told = [json.loads(event["detail"]) for event in batch]
    assert (told[0]["why"], told[0]["expected"], told[1]["ended"]) == ("ticket 4711", 12, 12)
    assert name not in "".join(event["detail"] for event in batch)
    assert await sql.fetchval("SELECT filter FROM session_revocations WHERE id = $1::uuid", started["id"]) is None


FILTERS: dict[str, Callable[[Person], dict[str, Any]]] = {
    "user by name": lambda person: {"user": person.username.upper()},
    "user by id": lambda person: {"user": str(person.user.id)},
    "address": lambda person: {"username_prefix": person.username, "ip": "198.51.100.9"},
    "network": lambda person: {"username_prefix": person.username, "ip": "198.51.100.0/24"},
    "any address": lambda person: {"username_prefix": person.username, "ip": "192.0.2.77", "ip_scope": "any"},
    "browser": lambda person: {"username_prefix": person.username, "browser": "Firefox"},
    "system": lambda person: {"username_prefix": person.username, "os": "Ubuntu"},
    "active": lambda person: {"user": person.username, "state": "active"},
    "client": lambda person: {"user": person.username, "client": "first-party"},
    "role": lambda person: {"user": person.username, "role": "user"},
}


@pytest.mark.parametrize("filter_", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("listed", [True, False], ids=["by index", "walking"])
async def test_each_filter(
    http: httpx2.AsyncClient,
    services: Container,
    admin: Admin,
    name: str,
    sql: asyncpg.Connection,
    filter_: Callable[[Person], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    listed: bool,
) -> None:
    """Both ways of finding them end what the filter means, and the other sessions of the same people live."""
    if not listed:
        monkeypatch.setattr("app.services.revocation_work.LISTED_MAXIMUM", -1)
    victim, bystander = await make_people(services, name, 2)
    await sql.execute("DELETE FROM families WHERE user_id = $1", victim.user.id)
    issued = await victim.sign_in(client=client_at("198.51.100.9", FIREFOX))
    issued = await victim.refresh(issued.refresh_token, address="192.0.2.77")
    issued = await victim.refresh(issued.refresh_token, address="192.0.2.78")
    started = await admin.start(http, filter=filter_(victim))
    assert started["expected"] == 1
    await work_off(services, started["id"])
    row = await sql.fetchrow("SELECT listed, ended FROM session_revocations WHERE id = $1::uuid", started["id"])
    assert row is not None
    assert (row["listed"], row["ended"]) == (listed, 1)
    assert await states(sql, [victim]) == {"bulk_admin": 1}
    assert await states(sql, [bystander]) == {None: 1}


async def test_what_comes_after_the_dry_run_lives(
    http: httpx2.AsyncClient, services: Container, admin: Admin, name: str, sql: asyncpg.Connection, clock: MovableClock
) -> None:
    """A sign-in between look and order, or during the work, is not touched; one at the very moment of the cut ends."""
    (person,) = await make_people(services, name, 1, sessions=2)
    started = await admin.start(http, filter={"user": person.username})
    clock.advance(milliseconds=1)
    await person.sign_in()
    await work_off(services, started["id"])
    assert await states(sql, [person]) == {"bulk_admin": 2, None: 1}


async def test_a_refresh_meanwhile_is_no_escape(
    http: httpx2.AsyncClient, services: Container, admin: Admin, name: str, sql: asyncpg.Connection
) -> None:
    """A session that was refreshed after the dry run still matches, whatever its generation."""
    (person,) = await make_people(services, name, 1, sessions=0)
    issued = await person.sign_in()
    started = await admin.start(http, filter={"user": person.username})
    await person.refresh(issued.refresh_token)
    await work_off(services, started["id"])
    row = await sql.fetchrow("SELECT * FROM families WHERE id = $1", issued.session_id)
    assert row is not None
    assert (row["end_reason"], row["generation"], row["event_seq"]) == ("bulk_admin", 1, 3)


async def test_what_no_longer_matches_lives(
    http: httpx2.AsyncClient, services: Container, admin: Admin, name: str, sql: asyncpg.Connection, clock: MovableClock
) -> None:
    """Last use is judged when the batch looks: who was idle at the dry run and came back is left alone."""
    (person,) = await make_people(services, name, 1, sessions=1)
    issued = await person.sign_in()
    clock.advance(minutes=5)
    limit = clock.time.isoformat()
    clock.advance(seconds=1)
    started = await admin.start(http, filter={"user": person.username, "last_used_to": limit})
    assert started["expected"] == 2
    await person.refresh(issued.refresh_token)
    await work_off(services, started["id"])
    assert await states(sql, [person]) == {"bulk_admin": 1, None: 1}


@pytest.mark.parametrize("asked", [False, True], ids=["left out", "asked for"])
async def test_ones_own_session(
    http: httpx2.AsyncClient, services: Container, admin: Admin, sql: asyncpg.Connection, *, asked: bool
) -> None:
    """The dry run says that it is among them; it stays unless asked for, while one's other sessions end."""
    await admin.person.sign_in()
    body: dict[str, Any] = {"filter": {"user": admin.person.username}, "include_own_session": asked}
    seen = (await admin.order(http, **body, dry_run=True)).json()
    assert (seen["count"], seen["own_session"]) == (2, True)
    started = await admin.start(http, **body)
    assert started["own_session_kept"] is not asked
    await work_off(services, started["id"])
    assert await states(sql, [admin.person]) == ({"bulk_admin": 2} if asked else {"bulk_admin": 1, None: 1})
    assert (await http.get("/me", headers=admin.headers)).status_code == (401 if asked else 200)


async def test_everything_older_than_a_moment(
    http: httpx2.AsyncClient, services: Container, make_admin: MakeAdmin, name: str, sql: asyncpg.Connection,
    clock: MovableClock, empty_database: None,
) -> None:  # fmt: skip
    """After a restore: what was created before the moment ends as `restore`, what came at it or later lives."""
    old = await make_people(services, f"{name}-old", 2, sessions=2)
    clock.advance(seconds=1)
    moment = clock.time
    new = await make_people(services, f"{name}-new", 1)
    clock.advance(seconds=1)
    admin = await make_admin()
    started = await admin.start(http, issued_before=moment.isoformat())
    assert (started["expected"], started["end_reason"]) == (4, "restore")
    await work_off(services, started["id"])
    assert await states(sql, old) == {"restore": 4}
    assert await states(sql, [*new, admin.person]) == {None: 2}


async def test_lapsed_and_ended_ones_are_left(
    http: httpx2.AsyncClient, services: Container, admin: Admin, name: str, sql: asyncpg.Connection, clock: MovableClock
) -> None:
    """What was over before is not counted and not ended again: its reason is its limit's, or what it was."""
    (person,) = await make_people(services, name, 1, sessions=1)
    clock.advance(days=6)
    again = await admin.person.sign_in()
    admin = Admin(admin.person, again.session_id, again.access_token)
    clock.advance(days=1)
    again = await admin.person.refresh(again.refresh_token)
    admin = Admin(admin.person, again.session_id, again.access_token)
    await person.sign_in()
    ended = await person.sign_in()
    await http.delete(f"/admin/sessions/{ended.session_id}", headers=admin.headers)
    started = await admin.start(http, filter={"user": person.username})
    assert started["expected"] == 1
    await work_off(services, started["id"])
    assert await states(sql, [person]) == {None: 1, "admin": 1, "bulk_admin": 1}
    for state in ("lapsed", "ended"):
        assert (await admin.order(http, filter={"state": state}, dry_run=True)).json()["count"] == 0


async def test_a_fingerprint_is_for_one_filter_one_caller_ten_minutes(
    http: httpx2.AsyncClient, admin: Admin, make_admin: MakeAdmin, name: str, clock: MovableClock
) -> None:
    """Another filter, another administrator, an edited one, one too old: each refused, and nothing is started."""
    asked: dict[str, Any] = {"filter": {"username_prefix": name}}
    fingerprint = (await admin.order(http, **asked, dry_run=True)).json()["fingerprint"]
    real = {"fingerprint": fingerprint, "reason": "ticket 4711"}
    raw = base64.urlsafe_b64decode(fingerprint)
    forged = [
        bytes([raw[at] ^ 1 if at == flipped else raw[at] for at in range(len(raw))]) for flipped in range(len(raw))
    ]
    other = await make_admin()
    refused = [
        await admin.order(http, filter={"username_prefix": f"{name}-"}, **real),
        await admin.order(http, filter={**asked["filter"], "state": "active"}, **real),
        await admin.order(http, filter={}, **real),
        await admin.order(http, issued_before=clock.time.isoformat(), **real),
        await other.order(http, **asked, **real),
        *[
            await admin.order(http, **asked, **{**real, "fingerprint": base64.urlsafe_b64encode(each).decode()})
            for each in (*forged, raw[:-1], raw[:16], raw[:3], raw + b"x")
        ],
        await admin.order(http, **asked, **{**real, "fingerprint": "x"}),
        await admin.order(http, **asked, **{**real, "fingerprint": "é" * 64}),
    ]
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(409, "fingerprint_refused")}
    clock.advance(minutes=10, microseconds=1)
    late = await admin.order(http, **asked, **real)
    assert (late.status_code, late.json()["code"]) == (409, "fingerprint_expired")
    clock.advance(microseconds=-1)
    assert (await admin.order(http, **asked, **real)).status_code == 202


async def test_the_same_order_twice_is_one(
    http: httpx2.AsyncClient, admin: Admin, name: str, sql: asyncpg.Connection
) -> None:
    """An order whose answer was lost can be repeated: the same job, one event."""
    asked: dict[str, Any] = {"filter": {"username_prefix": name}}
    fingerprint = (await admin.order(http, **asked, dry_run=True)).json()["fingerprint"]
    answers = [await admin.order(http, **asked, fingerprint=fingerprint, reason="ticket 4711") for _ in range(2)]
    assert {answer.status_code for answer in answers} == {202}
    (found,) = {answer.json()["id"] for answer in answers}
    told = (
        "SELECT count(*) FROM audit_events WHERE action = 'revocation.started' AND detail::jsonb ->> 'revocation' = $1"
    )
    assert await sql.fetchval(told, found) == 1


@pytest.mark.parametrize(
    ("body", "names"),
    [
        pytest.param({"dry_run": True}, "filter", id="no filter"),
        pytest.param({"filter": {"ip": "x"}, "dry_run": True}, "ip", id="no address"),
        pytest.param({"filter": {"created_from": "yesterday"}, "dry_run": True}, "created_from", id="no time"),
        pytest.param({"filter": {"user": "a b"}, "dry_run": True}, "user", id="no name"),
        pytest.param({"filter": {"usr": "ada"}, "dry_run": True}, "filter", id="misspelt filter"),
        pytest.param({"filter": [], "dry_run": True}, "filter", id="no object"),
        pytest.param({"filter": {"end_reason": "boredom"}, "dry_run": True}, "end_reason", id="no reason of ours"),
        pytest.param({"filter": {}, "dry_run": "maybe"}, "dry_run", id="not a truth value"),
        pytest.param({"issued_before": "soon", "dry_run": True}, "issued_before", id="no moment"),
        pytest.param({"filter": {}}, "fingerprint", id="no fingerprint"),
        pytest.param({"filter": {}, "fingerprint": "x"}, "reason", id="no reason"),
        pytest.param({"filter": {}, "fingerprint": "x", "reason": "ab"}, "reason", id="reason too short"),
        pytest.param({"filter": {}, "fingerprint": "x", "reason": "x" * 201}, "reason", id="reason too long"),
        pytest.param(
            {"filter": {"state": "active"}, "issued_before": "2026-01-01", "dry_run": True},
            "issued_before",
            id="both",
        ),
        pytest.param(
            {"filter": {"created_from": "2026-02-01", "created_to": "2026-01-01"}, "dry_run": True},
            "created_to",
            id="backwards",
        ),
    ],
)
async def test_what_cannot_be_understood(
    http: httpx2.AsyncClient, admin: Admin, body: dict[str, Any], names: str
) -> None:
    """422 that names the member; nothing is guessed when sessions are to end."""
    answer = await admin.order(http, **body)
    assert (answer.status_code, names in answer.text) == (422, True), answer.text


async def test_stopping(
    http: httpx2.AsyncClient, services: Container, admin: Admin, name: str, sql: asyncpg.Connection
) -> None:
    """After a stop no batch follows; what has ended stays so; stopping twice, or what is over, changes nothing."""
    people = await make_people(services, name, 3, sessions=2)
    started = await admin.start(http, filter={"username_prefix": name})
    services.revocation_work._pace.ends = 2
    await work_off(services, started["id"], batches=1)
    path = f"/admin/sessions/revocations/{started['id']}"
    stopped = [(await http.post(f"{path}/cancel", headers=admin.headers)).json() for _ in range(2)]
    assert {(answer["state"], answer["ended"]) for answer in stopped} == {("cancelled", 2)}
    assert await work_off(services, started["id"]) is Step.NOTHING
    assert await states(sql, people) == {"bulk_admin": 2, None: 4}
    told = "SELECT action FROM audit_events WHERE detail::jsonb ->> 'revocation' = $1 AND action LIKE 'revocation.%'"
    actions = sorted(row["action"] for row in await sql.fetch(told, started["id"]))
    assert actions == ["revocation.cancelled", "revocation.started"]
    assert (await http.post(f"/admin/sessions/revocations/{uuid7()}/cancel", headers=admin.headers)).status_code == 404


async def test_the_list(http: httpx2.AsyncClient, admin: Admin, name: str, events_of: Any, sql: Any) -> None:
    """Newest first, by pages; a cursor of somebody's own making is refused; each look is an event."""
    started = [await admin.start(http, filter={"username_prefix": f"{name}-{number}"}) for number in range(3)]
    found: list[str] = []
    query = {"limit": "2"}
    while len(found) < 3:
        page = (await http.get("/admin/sessions/revocations", params=query, headers=admin.headers)).json()
        found += [item["id"] for item in page["items"]]
        query["after"] = page["next"]
    assert found[:3] == [each["id"] for each in reversed(started)]
    for wrong in ({"after": "A" * 54}, {"limit": "0"}, {"offset": "3"}):
        answer = await http.get("/admin/sessions/revocations", params=wrong, headers=admin.headers)
        assert answer.status_code == 422, wrong
    looks = "SELECT detail FROM audit_events WHERE actor_id = $1 AND action = 'admin.queried'"
    assert len(await sql.fetch(looks, admin.id)) == 2


async def test_all_its_events_are_found_by_its_id(
    http: httpx2.AsyncClient, services: Container, admin: Admin, name: str, clock: MovableClock
) -> None:
    """Also those of sessions that ended long after the request that ordered it."""
    await make_people(services, name, 1, sessions=3)
    started = await admin.start(http, filter={"username_prefix": name})
    clock.advance(minutes=8)
    await work_off(services, started["id"])
    query = {"request_id": started["id"], "action": "session.ended"}
    found = (await http.get("/admin/events", params=query, headers=admin.headers)).json()
    assert len(found["items"]) == 3


async def test_one_route_does_not_hide_another(app: FastAPI) -> None:
    """`revocations` is no session's id: its routes come before those of single sessions."""
    paths = [getattr(route, "path", "") for route in app.routes]
    single = [number for number, path in enumerate(paths) if path == "/admin/sessions/{session_id}"]
    bulk = [number for number, path in enumerate(paths) if path.startswith("/admin/sessions/revocations")]
    assert max(bulk) < min(single)
