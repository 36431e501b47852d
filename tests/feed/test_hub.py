"""Many followers of one hub, on real transactions: fast ones and slow ones, from anywhere, each gets each end once."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.container import Container
from app.domain.errors import AccessTokenRejected, TooManyStreams, Unavailable
from app.services import feed_hub
from app.services.feed_hub import Follower, FollowerDismissed
from app.services.feed_reader import FeedReader, Reading
from tests.conftest import MakeServices, OwnDatabase
from tests.feed.conftest import end_sessions, open_sessions

NAP = 0.5


async def allowed() -> None:
    """A client that may go on."""


def follow(
    services: Container, after: str | None, check: Callable[[], Awaitable[object]] = allowed, *, tokens: bool = False
) -> Follower:
    return services.feed.follow(after, client=uuid4(), check=check, with_tokens=tokens)


async def collect(follower: Follower, wanted: set[UUID], told: list[UUID], dice: random.Random | None = None) -> None:
    """Take until all are there, with rests in which the ring moves on."""
    while not wanted <= set(told):
        batch = await follower.next(NAP)
        told += [end.id for end in batch.ends] if batch else []
        for _ in range(dice.randrange(40) if dice else 0):
            await asyncio.sleep(0)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring so small that slow followers fall off it, and batches that need pages."""
    for name, value in {"RING_ENDS": 12, "PRELOADED_ENDS": 5, "BATCH_ENDS": 3, "READ_ENDS": 7}.items():
        monkeypatch.setattr(feed_hub, name, value)


@pytest.mark.parametrize("seed", range(3))
async def test_each_follower_gets_each_end_once(
    own: OwnDatabase, own_sql: asyncpg.Connection, make_services: MakeServices, small: None, seed: int
) -> None:
    """Ends in transactions that overlap at random; followers join at any time, at cursors of any age, and dawdle."""
    dice = random.Random(seed)
    services = make_services(url=own.app)
    user, sessions = await open_sessions(own_sql, 240)
    connections = [await asyncpg.connect(own.owner) for _ in range(4)]
    left = sessions[:]
    committed: set[UUID] = set()
    gates = {delay: asyncio.Event() for delay in range(0, 240, 15)}

    async def end_some(connection: asyncpg.Connection) -> None:
        while left:
            mine = [left.pop() for _ in range(min(len(left), dice.randrange(1, 9)))]
            async with connection.transaction():
                for each in mine:
                    await end_sessions(connection, user, [each])
                    await connection.execute("SELECT pg_sleep($1)", dice.random() / 300)
            committed.update(mine)
            for delay, gate in gates.items():
                if len(left) <= delay:
                    gate.set()

    async def one(delay: int) -> None:
        await gates[delay].wait()
        before = await services.feed.page(None, limit=dice.randrange(1, 90), with_tokens=False)
        known = [UUID(line.split(b'"')[3].decode()) for line in before.entries]
        follower = follow(services, before.next if dice.random() < 0.8 else None)
        told = known if follower.identity else []
        try:
            await collect(follower, set(sessions), told, dice if delay % 2 else None)
            assert len(told) == len(set(told)), "some came twice"
        finally:
            services.feed.hub.remove(follower)

    await asyncio.gather(*map(end_some, connections), *map(one, gates))
    assert committed == set(sessions)
    for connection in connections:
        await connection.close()


async def test_one_read_serves_all(
    own: OwnDatabase, own_sql: asyncpg.Connection, make_services: MakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred followers at the front: the database is read for the hub alone, and each batch is made once."""
    services = make_services(url=own.app)
    user, sessions = await open_sessions(own_sql, 30)
    reads: list[Reading] = []
    read = FeedReader.read

    async def counted(*arguments: object, **more: object) -> Reading:
        reads.append(await read(*arguments, **more))  # type: ignore[arg-type]
        return reads[-1]

    monkeypatch.setattr(FeedReader, "read", counted)
    followers = [follow(services, None, tokens=True) for _ in range(200)]
    taking = [asyncio.create_task(follower.next(20)) for follower in followers]
    for _ in range(1_000_000):
        if services.feed.hub.has_begun:
            break
        await asyncio.sleep(0)
    await end_sessions(own_sql, user, sessions)
    batches = await asyncio.gather(*taking)
    assert all(batch is batches[0] for batch in batches)
    assert batches[0] is not None
    assert len(batches[0].ends) == 30
    assert sum(bool(reading.batch.ends) for reading in reads) == 1


async def test_a_client_that_may_no_longer_follow_is_dismissed(
    own: OwnDatabase, make_services: MakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that has expired, say. While it cannot be asked, nobody is; and others go on."""
    monkeypatch.setattr(feed_hub, "RECHECK_SECONDS", 0.0)
    monkeypatch.setattr(feed_hub, "POLL_SECONDS", 0.01)
    services = make_services(url=own.app)
    asked = 0

    async def check() -> None:
        nonlocal asked
        asked += 1
        raise Unavailable if asked < 3 else AccessTokenRejected

    staying, leaving = follow(services, None), follow(services, None, check)
    with pytest.raises(FollowerDismissed):
        await leaving.next(30)
    assert asked == 3
    assert await staying.next(0.05) is None


async def test_a_hub_that_nobody_follows_asks_nothing(
    own: OwnDatabase, own_sql: asyncpg.Connection, make_services: MakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends by itself, and begins anew with the next follower, who misses nothing of the time between."""
    monkeypatch.setattr(feed_hub, "LINGER_SECONDS", 0.0)
    monkeypatch.setattr(feed_hub, "POLL_SECONDS", 0.01)
    services = make_services(url=own.app)
    user, sessions = await open_sessions(own_sql, 2)
    hub = services.feed.hub
    first = follow(services, None)
    await first.next(0.05)
    cursor = services.feed.cursor_of(first)
    hub.remove(first)
    task = hub._task
    assert task is not None
    await task
    assert not hub.has_begun
    await end_sessions(own_sql, user, sessions)
    told: list[UUID] = []
    await collect(follow(services, cursor), set(sessions), told)
    assert len(told) == 2


async def test_nobody_new_while_stopping(own: OwnDatabase, make_services: MakeServices) -> None:
    """Those who follow are dismissed, those who come are asked to try again elsewhere."""
    services = make_services(url=own.app)
    follower = follow(services, None)
    services.feed.hub.stop()
    with pytest.raises(FollowerDismissed):
        await follower.next(30)
    with pytest.raises(Unavailable):
        follow(services, None)


async def test_the_bound_is_a_clients(own: OwnDatabase, make_services: MakeServices) -> None:
    """One has reached it; another has not."""
    services = make_services(url=own.app, streams_per_client=1)
    client = uuid4()
    kept = services.feed.follow(None, client=client, check=allowed, with_tokens=False)
    with pytest.raises(TooManyStreams):
        services.feed.follow(None, client=client, check=allowed, with_tokens=False)
    other = follow(services, None)
    assert {kept, other} == set(services.feed.hub.followers)
