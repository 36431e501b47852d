"""The feed over HTTP: polls, pages, cursors, and who may ask."""

import asyncio
import base64
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI

from app.container import Container
from app.domain.api_clients import ClientScope
from app.domain.events import user_actor
from app.domain.families import EndReason
from app.domain.snapshots import FeedCursor, Snapshot
from tests.conftest import MovableClock, Person, client_at
from tests.feed.conftest import Credentials, end_sessions, make_client, open_sessions


async def ask(http: httpx2.AsyncClient, who: Credentials, path: str = "/revocations", **query: Any) -> dict[str, Any]:
    answer = await http.get(path, auth=who.basic, params=query)
    assert answer.status_code == 200, answer.text[:500]
    said: dict[str, Any] = answer.json()
    return said


async def all_pages(http: httpx2.AsyncClient, who: Credentials, path: str, **query: Any) -> tuple[list[str], str]:
    """Sessions of all pages, and the last cursor."""
    sessions = []
    while True:
        page = await ask(http, who, path, **query)
        sessions += [entry["session"] for entry in page["entries"]]
        query["after"] = page["next"]
        if not page["more"]:
            return sessions, page["next"]


async def test_an_end_is_told_with_all_that_a_verifier_needs(
    http: httpx2.AsyncClient, consumer: Credentials, person: Person, services: Container
) -> None:
    """Session, user, time, class of reason, when to forget; the exact reason is not told."""
    _, start = await all_pages(http, consumer, "/revocations/snapshot")
    issued = await person.sign_in()
    await services.sessions.end(
        person.user.id,
        issued.session_id,
        actor=user_actor(person.user.id),
        client=client_at(),
        reason=EndReason.REUSE,
    )
    said = await ask(http, consumer, after=start)
    (entry,) = said["entries"]
    assert entry["session"] == str(issued.session_id)
    assert entry["user"] == str(person.user.id)
    assert entry["reason"] == "security"
    assert entry.keys() == {"session", "user", "ended_at", "reason", "exp", "jti", "set"}
    family, _ = await services.sessions.get(person.user.id, issued.session_id)
    assert family.ended_at is not None
    assert entry["ended_at"] == family.ended_at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert 900 <= entry["exp"] - family.ended_at.timestamp() < 901
    assert (await ask(http, consumer, after=said["next"]))["entries"] == []
    bare = await ask(http, consumer, after=start, sets="false")
    assert bare["entries"] == [{name: value for name, value in entry.items() if name != "set"}]


async def test_pages_and_late_commits(
    http: httpx2.AsyncClient, consumer: Credentials, sql: asyncpg.Connection, owner_url: str
) -> None:
    """Three transactions are open while pages are read, and commit between them, the lowest last: each end once."""
    user, sessions = await open_sessions(sql, 60)
    _, after = await all_pages(http, consumer, "/revocations/snapshot")
    others = [await asyncpg.connect(owner_url) for _ in range(3)]
    held = [other.transaction() for other in others]
    for number, (other, transaction) in enumerate(zip(others, held, strict=True)):
        await transaction.start()
        await end_sessions(other, user, sessions[number * 5 : number * 5 + 5])
    await end_sessions(sql, user, sessions[15:45])
    seen: list[str] = []
    page: dict[str, Any] = {"next": after}
    for step in range(40):
        page = await ask(http, consumer, after=page["next"], limit=4)
        seen += [entry["session"] for entry in page["entries"]]
        if step in {3, 5, 20}:
            await held[{3: 1, 5: 2, 20: 0}[step]].commit()
        if step == 4:
            await end_sessions(sql, user, sessions[45:])
    assert page["entries"] == []
    assert page["more"] is False
    assert sorted(seen) == sorted(map(str, sessions))
    for other in others:
        await other.close()


async def test_while_a_transaction_is_open_nothing_is_repeated(
    http: httpx2.AsyncClient, consumer: Credentials, sql: asyncpg.Connection, owner_url: str
) -> None:
    """An answer that repeats itself would make a long poll return at once, for ever."""
    user, sessions = await open_sessions(sql, 3)
    slow = await asyncpg.connect(owner_url)
    held = slow.transaction()
    await held.start()
    await end_sessions(slow, user, sessions[:1])
    await end_sessions(sql, user, sessions[1:])
    seen, after = await all_pages(http, consumer, "/revocations")
    assert set(map(str, sessions[1:])) <= set(seen)
    assert (await ask(http, consumer, after=after))["entries"] == []
    await held.commit()
    (late,) = (await ask(http, consumer, after=after))["entries"]
    assert late["session"] == str(sessions[0])
    await slow.close()


async def test_a_long_poll_answers_when_something_ends(
    http: httpx2.AsyncClient, consumer: Credentials, sql: asyncpg.Connection, app: FastAPI
) -> None:
    """Not before, and then at once, to many that wait; they are served by one read."""
    user, sessions = await open_sessions(sql, 2)
    _, after = await all_pages(http, consumer, "/revocations/snapshot")
    hub = app.state.container.feed.hub
    waiting = [asyncio.create_task(ask(http, consumer, after=after, wait=25)) for _ in range(50)]
    while len(hub.followers) < 50 or not hub.has_begun:
        await sql.execute("SELECT 1")
    assert not any(task.done() for task in waiting)
    await end_sessions(sql, user, sessions)
    answers = await asyncio.gather(*waiting)
    for answer in answers:
        assert {entry["session"] for entry in answer["entries"]} == set(map(str, sessions))
    assert len({answer["entries"][0]["set"] for answer in answers}) == 1
    assert (await ask(http, consumer, after=answers[0]["next"], wait=0.01))["entries"] == []
    assert not hub.followers


async def test_a_long_poll_keeps_to_its_limit(
    http: httpx2.AsyncClient, consumer: Credentials, sql: asyncpg.Connection
) -> None:
    """What does not fit comes with the next one; nothing is lost between."""
    user, sessions = await open_sessions(sql, 200)
    _, after = await all_pages(http, consumer, "/revocations/snapshot")
    await end_sessions(sql, user, sessions)
    seen: list[str] = []
    more = True
    while more:
        page = await ask(http, consumer, after=after, wait=20, limit=33)
        assert len(page["entries"]) <= 33
        seen += [entry["session"] for entry in page["entries"]]
        after, more = page["next"], page["more"]
    assert sorted(seen) == sorted(map(str, sessions))


async def test_a_poll_that_waits_for_nothing(http: httpx2.AsyncClient, consumer: Credentials) -> None:
    """Answers in time with no entries and a cursor that goes on."""
    _, after = await all_pages(http, consumer, "/revocations/snapshot")
    page = await ask(http, consumer, after=after, wait=0.2)
    assert page["entries"] == []
    assert (await ask(http, consumer, after=page["next"], wait=0.2))["entries"] == []


async def test_what_is_old_is_forgotten(
    http: httpx2.AsyncClient, consumer: Credentials, person: Person, services: Container, clock: MovableClock
) -> None:
    """A cursor from before is still good, and gives what still matters: no end that no token can be of any more."""
    _, after = await all_pages(http, consumer, "/revocations/snapshot")
    first, second = [(await person.sign_in()).session_id for _ in range(2)]
    how: dict[str, Any] = {"actor": user_actor(person.user.id), "client": client_at(), "reason": EndReason.LOGOUT}
    await services.sessions.end(person.user.id, first, **how)
    clock.advance(seconds=899)
    assert str(first) in (await all_pages(http, consumer, "/revocations/snapshot"))[0]
    clock.advance(seconds=62)
    await services.sessions.end(person.user.id, second, **how)
    for path, query in (("/revocations/snapshot", {}), ("/revocations", {}), ("/revocations", {"after": after})):
        seen, _ = await all_pages(http, consumer, path, **query)
        assert str(second) in seen
        assert str(first) not in seen


HOSTILE = ["", "0", "-1", "null", "' OR 1=1 --", "../..", "x" * 1024, "x" * 5000, "%00", "é", "AAAA", "🦊" * 50]


@pytest.mark.case(99)
@pytest.mark.parametrize("cursor", HOSTILE, ids=lambda text: text[:10] or "empty")
async def test_a_hostile_cursor_is_refused(http: httpx2.AsyncClient, consumer: Credentials, cursor: str) -> None:
    """In the address or as `Last-Event-ID`: 422, and not repeated in the answer."""
    for path in ("/revocations", "/revocations/snapshot", "/revocations/stream"):
        answer = await http.get(path, auth=consumer.basic, params={"after": cursor})
        assert answer.status_code == 422, path
        assert len(cursor) < 6 or cursor not in answer.text
    if cursor:
        headers = [(b"Last-Event-ID", cursor.encode())]
        answer = await http.get("/revocations/stream", auth=consumer.basic, headers=headers)
        assert answer.status_code == 422
        assert "snapshot" in answer.text


@pytest.mark.parametrize(
    "query",
    [
        *[f"wait={value}" for value in ("-1", "31", "1e9", "nan", "inf", "-inf", "soon", "", "0x1")],
        *[f"limit={value}" for value in ("0", "-1", "1001", "1.5", "many", "99999999999999999999")],
        "sets=perhaps",
        "sets=",
        "after=x&after=y",
        "since=now",
        "Wait=3",
    ],
)
async def test_a_hostile_parameter_is_refused(http: httpx2.AsyncClient, consumer: Credentials, query: str) -> None:
    """Out of bounds, not a number, unknown: 422."""
    answer = await http.get(f"/revocations?{query}", auth=consumer.basic)
    assert answer.status_code == 422


async def test_only_whom_the_feed_is_for(
    http: httpx2.AsyncClient, services: Container, consumer: Credentials, person: Person
) -> None:
    """Nobody, a wrong secret, a user's token: 401. A client with every scope but this: 403."""
    others = [scope for scope in ClientScope if scope is not ClientScope.REVOCATIONS]
    other = await make_client(services, *others)
    issued = await person.sign_in()
    for path in ("/revocations", "/revocations/stream", "/revocations/snapshot", "/revocations?wait=5"):
        assert (await http.get(path)).status_code == 401
        assert (await http.get(path, auth=(consumer.client.client_id, "wrong"))).status_code == 401
        bearer = {"Authorization": f"Bearer {issued.access_token}"}
        assert (await http.get(path, headers=bearer)).status_code == 401
        assert (await http.get(path, auth=other.basic)).status_code == 403
    for method in ("POST", "PUT", "DELETE"):
        assert (await http.request(method, "/revocations", auth=consumer.basic)).status_code == 405


async def test_a_cursor_of_another_database_is_gone(
    http: httpx2.AsyncClient, consumer: Credentials, own: Any, make_services: Any
) -> None:
    """Same secrets, same server, another database: 410 everywhere, and the answer says what to do."""
    elsewhere = make_services(url=own.app)
    foreign = (await elsewhere.feed.page(None, limit=10, with_tokens=False)).next
    for path in ("/revocations", "/revocations/snapshot", "/revocations/stream", "/revocations?wait=5"):
        answer = await http.get(path, auth=consumer.basic, params={"after": foreign})
        assert answer.status_code == 410, path
        assert answer.json()["code"] == "cursor_gone"
        assert "snapshot" in answer.json()["detail"]
    answer = await http.get("/revocations/stream", auth=consumer.basic, headers={"Last-Event-ID": foreign})
    assert answer.status_code == 410


async def test_a_cursor_from_the_future_is_gone(
    http: httpx2.AsyncClient, consumer: Credentials, app: FastAPI, sql: asyncpg.Connection
) -> None:
    """It has seen transactions that this database has not begun, as after a restore: it is never just waited for."""
    feed = app.state.container.feed
    reading = await feed._reader.read(FeedCursor(Snapshot(1, 1)), None, limit=1)
    ahead = FeedCursor(Snapshot(reading.snapshot.xmax + 1000, reading.snapshot.xmax + 1000))
    text = feed.writer.write_cursor(ahead, reading.identity)
    follower = asyncio.create_task(ask(http, consumer, after=(await ask(http, consumer))["next"], wait=3))
    while not feed.hub.has_begun:  # the ring must not take it either
        await sql.execute("SELECT 1")
    for query in ({"after": text}, {"after": text, "wait": 2}):
        assert (await http.get("/revocations", auth=consumer.basic, params=query)).status_code == 410
    headers = {"Last-Event-ID": text}
    assert (await http.get("/revocations/stream", auth=consumer.basic, headers=headers)).status_code == 410
    await follower


async def test_what_came_with_a_dump_is_told_once(own: Any, own_sql: asyncpg.Connection, make_services: Any) -> None:
    """Ends by transactions that this cluster has not had: in the snapshot, in no poll after it."""
    services = make_services(url=own.app)
    user, sessions = await open_sessions(own_sql, 12)
    await end_sessions(own_sql, user, sessions[:5])
    await own_sql.execute(
        "UPDATE families SET ended_xact = (pg_current_xact_id()::text::numeric + 1000000)::text::xid8 "
        "WHERE ended_at IS NOT NULL"
    )
    seen: list[bytes] = []
    page = await services.feed.page(None, limit=2, with_tokens=False)
    while True:
        seen += page.entries
        if not page.more:
            break
        page = await services.feed.page(page.next, limit=2, with_tokens=False)
    assert len(seen) == len(set(seen)) == 5
    await end_sessions(own_sql, user, sessions[5:6])
    page = await services.feed.page(page.next, limit=10, with_tokens=False)
    assert len(page.entries) == 1


async def test_basic_is_not_the_only_way(http: httpx2.AsyncClient, consumer: Credentials) -> None:
    """The scheme's name in any case, as RFC 9110 has it; with a secret of another client never."""
    coded = base64.b64encode(":".join(consumer.basic).encode()).decode()
    for scheme in ("Basic", "basic", "BASIC"):
        headers = {"Authorization": f"{scheme} {coded}"}
        assert (await http.get("/revocations", headers=headers)).status_code == 200
