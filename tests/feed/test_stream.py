"""Streams of a real server: nothing is missed, whatever breaks, and nobody holds anybody up."""

import asyncio
import json
import socket
import time
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2

from app.container import Container
from app.domain.api_clients import ClientScope
from app.domain.events import NO_CLIENT, SYSTEM
from tests.conftest import OwnDatabase, make_settings
from tests.feed.conftest import Credentials, Event, Serve, connected, end_sessions, make_client, open_sessions

TIMEOUT = httpx2.Timeout(30, read=60)


def client(url: str) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=None)
    return httpx2.AsyncClient(base_url=url, timeout=TIMEOUT, limits=limits)


def names(sessions: list[Any]) -> set[str]:
    return set(map(str, sessions))


async def test_events_come_at_once_and_a_consumer_that_was_away_misses_nothing(
    own: OwnDatabase, own_sql: asyncpg.Connection, serve: Serve, who: Credentials
) -> None:
    """Connected: each end as it comes. Away while 5,000 end in many transactions: all of them on coming back."""
    user, sessions = await open_sessions(own_sql, 5010)
    served = await serve(own.app)
    async with client(served.url) as http:
        async with connected(http, who) as stream:
            await stream.until(current=True)
            for session in sessions[:10]:
                await end_sessions(own_sql, user, [session])
                await stream.until(sessions={str(session)})
            assert stream.sessions == [str(session) for session in sessions[:10]]
            last = stream.last_id
        for start in range(10, 5010, 200):
            await end_sessions(own_sql, user, sessions[start : start + 200])
        async with connected(http, who, last) as stream:
            await stream.until(sessions=names(sessions[10:]))
            assert len(stream.sessions) == 5000
            await stream.until(current=True)
            last = stream.last_id
        async with connected(http, who, last) as stream:
            await stream.until(current=True)
            assert stream.sessions == []


async def test_the_head_of_a_stream(own: OwnDatabase, serve: Serve, who: Credentials) -> None:
    """Not kept, not buffered by proxies, with a time to come back that differs."""
    served = await serve(own.app)
    async with client(served.url) as http:
        retries = set()
        for _ in range(5):
            async with connected(http, who) as stream:
                assert stream.answer.headers["cache-control"] == "no-store"
                assert stream.answer.headers["x-accel-buffering"] == "no"
                await stream.until(current=True)
                retries.add(stream.retries[0])
        assert len(retries) > 1


async def test_from_the_snapshot_to_the_stream_without_a_gap(
    own: OwnDatabase, own_sql: asyncpg.Connection, serve: Serve, who: Credentials
) -> None:
    """Pages while sessions end in transactions that are held open across them, then the stream from the last cursor."""
    user, sessions = await open_sessions(own_sql, 120)
    served = await serve(own.app)
    slow = await asyncpg.connect(own.owner)
    held = slow.transaction()
    await held.start()
    await end_sessions(slow, user, sessions[:20])
    await end_sessions(own_sql, user, sessions[20:60])
    async with client(served.url) as http:
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 7}
        page = {"more": True}
        ending = iter(sessions[60:100])
        while page["more"]:
            page = (await http.get("/revocations/snapshot", auth=who.basic, params=query)).json()
            seen += [entry["session"] for entry in page["entries"]]
            query["after"] = page["next"]
            await end_sessions(own_sql, user, [next(ending)])
            if len(seen) == 21:
                await held.commit()
        assert names(sessions[20:60]) <= set(seen)
        await end_sessions(own_sql, user, [*ending, *sessions[100:]])
        async with connected(http, who, None, after=page["next"]) as stream:
            await stream.until(sessions=names(sessions) - set(seen))
        told = [*seen, *stream.sessions]
        assert len(told) == len(set(told)) == 120
    await slow.close()


async def test_the_listener_dies_amid_many_ends(
    own: OwnDatabase, own_sql: asyncpg.Connection, serve: Serve, who: Credentials
) -> None:
    """Every connection of the server is cut, twice, while sessions end: every consumer still sees every end."""
    user, sessions = await open_sessions(own_sql, 1500)
    served = await serve(own.app)
    cut = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name LIKE 'rota%' AND pid <> pg_backend_pid()"
    )
    async with client(served.url) as http, AsyncExitStack() as open_streams:
        streams = [await open_streams.enter_async_context(connected(http, who)) for _ in range(5)]
        for stream in streams:
            await stream.until(current=True)

        async def end_all() -> None:
            for number, start in enumerate(range(0, 1500, 10)):
                await end_sessions(own_sql, user, sessions[start : start + 10])
                if number in {40, 41, 90}:
                    cuts.append(await own_sql.fetchval(cut))

        cuts: list[int] = []
        await asyncio.gather(end_all(), *(stream.until(sessions=names(sessions)) for stream in streams))
        assert sum(cuts) >= 2
        for stream in streams:
            assert set(stream.sessions) == names(sessions)


async def test_held_open_transactions_repeat_nothing(
    own: OwnDatabase, own_sql: asyncpg.Connection, serve: Serve, who: Credentials
) -> None:
    """While one ending transaction stays open, others come once; its own ends come when it commits."""
    user, sessions = await open_sessions(own_sql, 40)
    served = await serve(own.app)
    slow = await asyncpg.connect(own.owner)
    async with client(served.url) as http, connected(http, who) as stream:
        await stream.until(current=True)
        held = slow.transaction()
        await held.start()
        await end_sessions(slow, user, sessions[:5])
        for session in sessions[5:]:
            await end_sessions(own_sql, user, [session])
            await stream.until(sessions={str(session)})
        assert stream.sessions == [str(session) for session in sessions[5:]]
        await held.commit()
        await stream.until(sessions=names(sessions))
        assert len(stream.sessions) == 40
    await slow.close()


async def test_streams_and_waits_end_when_the_server_stops(
    own: OwnDatabase, own_sql: asyncpg.Connection, serve: Serve, who: Credentials
) -> None:
    """At once and in good order, with a time to come back; whoever comes to the next server misses nothing."""
    user, sessions = await open_sessions(own_sql, 3)
    served = await serve(own.app, ROTA_STREAMS_PER_CLIENT="2")
    async with client(served.url) as http:
        async with connected(http, who) as stream:
            await stream.until(current=True)
            await end_sessions(own_sql, user, sessions[:1])
            await stream.until(sessions={str(sessions[0])})

            async def wait() -> httpx2.Response:
                while True:
                    answer = await http.get(
                        "/revocations", auth=who.basic, params={"after": stream.last_id, "wait": 30}
                    )
                    if answer.status_code != 429:
                        return answer

            waiting = asyncio.create_task(wait())
            while True:  # until the server has both
                async with connected(http, who) as third:
                    if third.answer.status_code == 429:
                        break
            began = time.monotonic()
            stopping = asyncio.create_task(asyncio.to_thread(served.stop))
            await stream.until_the_end()
            assert len(stream.retries) == 2
            last = stream.last_id
            answer = await waiting
            assert answer.status_code == 200
            assert answer.json()["entries"] == []
            await stopping
            assert time.monotonic() - began < 9  # the server would have waited ten seconds for them
        assert "Traceback" not in served.log.read_text()
        await end_sessions(own_sql, user, sessions[1:])
    again = await serve(own.app, port=urlsplit(served.url).port)
    async with client(again.url) as http, connected(http, who, last) as stream:
        await stream.until(sessions=names(sessions[1:]))
        assert len(stream.sessions) == 2


def silent(url: str, path: str, who: Credentials) -> socket.socket:
    """A client that asks and never reads."""
    where = urlsplit(url)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect((where.hostname, where.port))
    head = f"GET {path} HTTP/1.1\r\nHost: rota\r\nAuthorization: {who.header['Authorization']}\r\n\r\n"
    raw.sendall(head.encode())
    return raw


async def test_clients_that_hang_hold_up_nobody(
    own: OwnDatabase, own_sql: asyncpg.Connection, serve: Serve, who: Credentials
) -> None:
    """Twenty that never read: another gets everything meanwhile, and the server stops without waiting for them."""
    user, sessions = await open_sessions(own_sql, 6000)
    served = await serve(own.app)
    hanging = [silent(served.url, "/revocations/stream", who) for _ in range(20)]
    async with client(served.url) as http, connected(http, who) as stream:
        await stream.until(current=True)
        for start in range(0, 6000, 300):
            await end_sessions(own_sql, user, sessions[start : start + 300])
        await stream.until(sessions=names(sessions))
        assert len(stream.sessions) == 6000
        began = time.monotonic()
        await asyncio.to_thread(served.stop)
        assert time.monotonic() - began < 9
    for raw in hanging:
        raw.close()


async def test_a_client_that_is_shut_out_loses_its_streams(
    own: OwnDatabase, own_sql: asyncpg.Connection, serve: Serve, who: Credentials
) -> None:
    """Disabled elsewhere: its open stream ends by itself, and it gets no other; that of another client goes on."""
    services = Container.build(make_settings(own.app))
    other = await make_client(services, ClientScope.REVOCATIONS)
    user, sessions = await open_sessions(own_sql, 1)
    served = await serve(own.app)
    async with client(served.url) as http, connected(http, other) as staying, connected(http, who) as stream:
        await stream.until(current=True)
        await services.api_clients.disable(who.client.id, actor=SYSTEM, client=NO_CLIENT)
        await stream.until_the_end()
        async with connected(http, who) as refused:
            assert refused.answer.status_code == 401
        await end_sessions(own_sql, user, sessions)
        await staying.until(sessions=names(sessions))
    await services.close()


async def test_a_client_has_so_many_streams(own: OwnDatabase, serve: Serve, who: Credentials) -> None:
    """One more is refused with 429 and a time to come back; when one has left, there is room again."""
    served = await serve(own.app, ROTA_STREAMS_PER_CLIENT="3")
    async with client(served.url) as http:
        async with AsyncExitStack() as open_streams:
            for _ in range(3):
                await open_streams.enter_async_context(connected(http, who))
            async with connected(http, who) as refused:
                assert refused.answer.status_code == 429
                assert refused.answer.headers["retry-after"]
            waiting = await http.get("/revocations", auth=who.basic, params={"wait": 1})
            assert waiting.status_code == 429
        for _ in range(100):
            async with connected(http, who) as stream:
                if stream.answer.status_code == 200:
                    return
        raise AssertionError("the streams that were closed are still counted")


async def test_while_the_database_is_away_streams_stay(
    own: OwnDatabase, own_sql: asyncpg.Connection, server_url: str, serve: Serve, who: Credentials
) -> None:
    """They are told so, polls get 503, and when it is back they get what ended meanwhile."""
    user, sessions = await open_sessions(own_sql, 2)
    served = await serve(own.app)
    name = urlsplit(own.owner).path.lstrip("/") or "rota_own_main"
    admin = await asyncpg.connect(server_url)
    async with client(served.url) as http, connected(http, who) as stream:
        await stream.until(current=True)
        last = stream.last_id
        await admin.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 0')  # a superuser still comes in
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = $1 AND application_name LIKE 'rota%'",
            name,
        )
        for _ in range(200):
            answer = await http.get("/revocations", auth=who.basic, params={"after": last})
            if answer.status_code == 503:
                break
            await admin.execute("SELECT pg_sleep(0.05)")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        await end_sessions(own_sql, user, sessions)
        await admin.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT -1')
        await stream.until(sessions=names(sessions))
    await admin.close()


async def test_two_processes_one_feed(
    own: OwnDatabase, own_sql: asyncpg.Connection, serve: Serve, who: Credentials
) -> None:
    """A cursor of one process is good in another, in the middle of what it hands out."""
    user, sessions = await open_sessions(own_sql, 30)
    first, second = await serve(own.app), await serve(own.app)
    async with client(first.url) as one, client(second.url) as other, connected(other, who) as warm:
        await warm.until(current=True)
        await end_sessions(own_sql, user, sessions)
        await warm.until(sessions=names(sessions))
        async with connected(one, who) as stream:
            await stream.until(sessions=names(sessions))
        page = (await one.get("/revocations", auth=who.basic, params={"limit": 11})).json()
        seen = [entry["session"] for entry in page["entries"]]
        async with connected(other, who, page["next"]) as stream:
            await stream.until(current=True)
            assert sorted([*seen, *stream.sessions]) == sorted(names(sessions))


async def test_each_event_has_an_id_to_come_back_by(
    own: OwnDatabase, own_sql: asyncpg.Connection, serve: Serve, who: Credentials
) -> None:
    """A consumer that is cut off amid a batch goes on with the next event, and gets none twice."""
    user, sessions = await open_sessions(own_sql, 25)
    await end_sessions(own_sql, user, sessions)
    served = await serve(own.app)
    async with client(served.url) as http:
        last, told = None, []
        for _ in sessions:
            async with connected(http, who, last) as stream:
                async for event in stream.events:
                    if event.event == "session-revoked":
                        assert event.id
                        told.append(json.loads(event.data)["session"])
                        last = event.id
                        break
        assert sorted(told) == sorted(names(sessions))


def test_the_parser_of_these_tests() -> None:
    """Reads a block as the standard says."""
    assert Event.parse(": c\nevent: e\ndata: {}\nid: 1\nretry: 5") == Event("e", "{}", "1", 5, "c")
