"""Asking the trail over HTTP and on the command line."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest
import pytest_asyncio

from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.users import Role
from app.main import create_app
from tests.conftest import PASSWORD, client_at
from tests.trail.conftest import Log


@pytest_asyncio.fixture
async def http(log: Log) -> AsyncIterator[httpx2.AsyncClient]:
    """The API over the log's database, as an auditor."""
    await log.services.users.create("auditor", PASSWORD, role=Role.AUDITOR, actor=None, client=client_at())
    app = create_app(log.services.settings)
    transport = httpx2.ASGITransport(app, client=("198.51.100.1", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as client:
        tokens = (await client.post("/token", data={"username": "auditor", "password": PASSWORD})).json()
        client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        yield client
    await app.state.container.close()


async def ask(http: httpx2.AsyncClient, **parameters: Any) -> dict[str, Any]:
    answer = await http.get("/admin/events", params=parameters)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_each_filter_finds_what_it_names_and_nothing_else(log: Log, http: httpx2.AsyncClient) -> None:
    """Compared, one by one and together, with the same condition in Python over all events."""
    ada, _ = await log.live("ada", 6, end=True), await log.live("ben", 4)
    with pytest.raises(Exception):  # noqa: B017
        await log.services.sign_in.with_password("ada", "wrong", client=client_at("192.0.2.9"))
    await log.services.users.disable(ada.user.id, actor=SYSTEM, client=NO_CLIENT)
    every = (await ask(http, limit=500))["items"]
    every = [event for event in every if event["action"] != "audit.queried"]
    assert [event["occurred_at"] for event in every] == sorted((event["occurred_at"] for event in every), reverse=True)
    one = next(event for event in every if event["action"] == "session.refreshed")
    filters: dict[str, tuple[dict[str, Any], Any]] = {
        "action": ({"action": "session.created"}, lambda e: e["action"] == "session.created"),
        "actions": (
            {"action": ["session.*", "user.created"]},
            lambda e: e["action"].startswith("session.") or e["action"] == "user.created",
        ),
        "refreshes": ({"action": "session.refreshed"}, lambda e: e["action"] == "session.refreshed"),
        "outcome": ({"outcome": "failure"}, lambda e: e["outcome"] == "failure"),
        "subject by name": ({"subject": "ada"}, lambda e: e["subject_name"] == "ada"),
        "subject by id": ({"subject": str(ada.user.id)}, lambda e: e["subject_id"] == str(ada.user.id)),
        "actor": ({"actor": "ben"}, lambda e: e["actor_name"] == "ben"),
        "session": ({"session": one["session_id"]}, lambda e: e["session_id"] == one["session_id"]),
        "address": ({"ip": "192.0.2.9"}, lambda e: e["ip"] == "192.0.2.9"),
        "network": ({"ip": "192.0.2.0/24"}, lambda e: (e["ip"] or "").startswith("192.0.2.")),
        "request": ({"request_id": one["request_id"]}, lambda e: e["request_id"] == one["request_id"]),
        "from": ({"from": one["occurred_at"]}, lambda e: e["occurred_at"] >= one["occurred_at"]),
        "to": ({"to": one["occurred_at"]}, lambda e: e["occurred_at"] <= one["occurred_at"]),
        "the very microsecond": (
            {"from": one["occurred_at"], "to": one["occurred_at"]},
            lambda e: e["occurred_at"] == one["occurred_at"],
        ),
        "several at once": (
            {"subject": "ada", "action": "session.*", "ip": "203.0.113.0/24", "to": one["occurred_at"]},
            lambda e: (
                e["subject_name"] == "ada"
                and e["action"].startswith("session.")
                and (e["ip"] or "").startswith("203.0.113.")
                and e["occurred_at"] <= one["occurred_at"]
            ),
        ),
        "actor and action": (
            {"actor": "ada", "action": ["session.refreshed", "session.ended"]},
            lambda e: e["actor_name"] == "ada" and e["action"] in {"session.refreshed", "session.ended"},
        ),
    }
    for name, (parameters, matches) in filters.items():
        expected = [event["id"] for event in every if matches(event)]
        found = (await ask(http, limit=500, **parameters))["items"]
        found = [event["id"] for event in found if event["action"] != "audit.queried"]
        assert found == expected, name
        assert expected, name
        oldest = (await ask(http, limit=500, order="oldest", **parameters))["items"]
        assert [e["id"] for e in oldest if e["action"] != "audit.queried"] == expected[::-1], name


async def test_pages_join(log: Log, http: httpx2.AsyncClient) -> None:
    """Nothing is skipped or repeated while others write; the count is what there is."""
    await log.live("ada", 30)
    for parameters in ({"action": "session.*"}, {"subject": "ada"}, {"actor": "ada", "order": "oldest"}):
        seen: list[str] = []
        after: dict[str, str] = {}
        while True:
            page = await ask(http, limit=7, count="true", **parameters, **after)
            seen += [event["id"] for event in page["items"]]
            await log.live(f"other-{uuid4()}", 1) if len(seen) == 7 and "subject" in parameters else None
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert len(seen) == len(set(seen)) == page["count"]
        assert page["count_is_exact"] is True


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": "0"},
        {"limit": "-1"},
        {"limit": "501"},
        {"limit": "1e3"},
        {"limit": "٣"},
        {"action": "user.invented"},
        {"action": "*"},
        {"action": "'; DROP TABLE users"},
        {"outcome": "maybe"},
        {"sort": "password_hash"},
        {"order": "id; drop"},
        {"ip": "not an address"},
        {"ip": "10.0.0.0/99"},
        {"ip": "1.2.3.4'::inet OR true --"},
        {"session": "1"},
        {"request_id": "x"},
        {"from": "infinity"},
        {"from": "0000-01-01"},
        {"from": "2026-13-01"},
        {"from": "2026-01-01T00:00:60Z"},
        {"to": "0001-01-01T00:00:00+14:00"},
        {"to": "NaN"},
        {"after": "AAAA"},
        {"after": base64.urlsafe_b64encode(bytes(40)).decode()},
        {"subject": "a\0b"},
        {"subject": "x" * 300},
        {"count": "perhaps"},
    ],
    ids=str,
)
async def test_bad_questions_are_refused(http: httpx2.AsyncClient, parameters: dict[str, str]) -> None:
    """422, and what was sent is not repeated."""
    answer = await http.get("/admin/events", params=parameters)
    assert answer.status_code == 422, answer.text
    assert next(iter(parameters.values())) not in answer.text or len(next(iter(parameters.values()))) < 4


@pytest.mark.case(68)
async def test_a_cursor_is_of_one_filter(log: Log, http: httpx2.AsyncClient) -> None:
    """Edited, or used with another filter or order: refused."""
    await log.live("ada", 10)
    cursor = (await ask(http, subject="ada", limit=3))["next"]
    assert (await ask(http, subject="ada", limit=5, after=cursor))["items"]
    for other in (
        {"subject": "auditor"},
        {"subject": "ada", "order": "oldest"},
        {"subject": "ada", "outcome": "success"},
    ):
        assert (await http.get("/admin/events", params={**other, "after": cursor})).status_code == 422
    raw = bytearray(base64.urlsafe_b64decode(cursor))
    for at in range(len(raw)):
        raw[at] ^= 1
        edited = base64.urlsafe_b64encode(raw).decode()
        assert (await http.get("/admin/events", params={"subject": "ada", "after": edited})).status_code == 422
        raw[at] ^= 1


async def test_reading_is_an_event(log: Log, http: httpx2.AsyncClient, own_sql: asyncpg.Connection) -> None:
    """Who, which filter, how many; addresses only as their keyed hash; not the rows."""
    await log.live("ada", 3)
    await ask(http, subject="ada", ip="203.0.113.7")
    (row,) = await own_sql.fetch("SELECT * FROM audit_events WHERE action = 'audit.queried'")
    detail = json.loads(row["detail"])
    assert (row["actor_kind"], detail["view"], detail["count"]) == ("admin", "events", 5)
    assert set(detail["filter"]) == {"subject", "ip", "order", "limit"}
    assert "203.0.113" not in row["detail"]
    assert str(row["ip"]) == "198.51.100.1"


async def test_only_auditors_and_administrators_may(log: Log, http: httpx2.AsyncClient) -> None:
    """A user of no role gets 403 on every route, and learns nothing."""
    await log.person("ada")
    tokens = (await http.post("/token", data={"username": "ada", "password": PASSWORD})).json()
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    for path in ("/admin/events", "/admin/events/histogram", f"/admin/events/{uuid4()}/proof"):
        assert (await http.get(path, headers=headers)).status_code == 403
        assert (await http.get(path, headers={"Authorization": ""})).status_code == 401


async def test_histogram(log: Log, http: httpx2.AsyncClient) -> None:
    """Counts by time and action add up to what the same filter finds."""
    await log.live("ada", 9)
    answer = (await http.get("/admin/events/histogram", params={"bucket": "minute", "action": "session.*"})).json()
    counts: dict[str, int] = {}
    for bar in answer["items"]:
        counts[bar["action"]] = counts.get(bar["action"], 0) + bar["count"]
    assert counts == {"session.created": 2, "session.refreshed": 9}
    too_many = {"bucket": "minute", "from": "2020-01-01", "to": "2026-01-01"}
    assert (await http.get("/admin/events/histogram", params=too_many)).status_code == 422


async def test_proofs(log: Log, http: httpx2.AsyncClient, own_sql: asyncpg.Connection) -> None:
    """Not sealed yet, sealed, unknown, and altered after the seal."""
    await log.live("ada", 3)
    event: UUID = await own_sql.fetchval("SELECT id FROM audit_events WHERE family_seq = 2 LIMIT 1")
    assert (await http.get(f"/admin/events/{event}/proof")).status_code == 409
    await log.publish()
    answer = await http.get(f"/admin/events/{event}/proof")
    assert answer.status_code == 200
    assert answer.text.startswith("c2sp.org/tlog-proof@v1\nextra ")
    assert len(answer.content) < 2048
    assert (await http.get(f"/admin/events/{uuid4()}/proof")).status_code == 404
    for table in ("audit_events", "audit_events_" + str(await own_sql.fetchval("SELECT to_char(now(), 'YYYY_MM')"))):
        await own_sql.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    await own_sql.execute("UPDATE audit_events SET user_agent = 'x' WHERE id = $1", event)
    assert (await http.get(f"/admin/events/{event}/proof")).status_code == 500


async def test_tail_follows_in_order(log: Log) -> None:
    """The newest, then each that commits; none twice."""
    await log.live("ada", 5)
    steps = 0

    async def steps_on() -> AsyncIterator[None]:
        nonlocal steps
        while steps < 3:
            steps += 1
            await log.live(f"ben-{steps}", 2)
            yield

    seen = []
    async for page in log.services.trail.tail(last=3, follow=steps_on(), actor=SYSTEM, client=NO_CLIENT):
        seen += [event.id for event in page]
    assert len(seen) == len(set(seen)) == 3 + 3 * 4
