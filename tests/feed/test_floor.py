"""The floor from which the feed's statement begins: it saves work, and neither hides an end nor stops the feed."""

from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from app.container import Container
from app.domain.errors import TookTooLong
from app.domain.events import SYSTEM
from app.domain.families import EndReason
from app.repositories.feed import FeedRepository, Floor
from tests.conftest import MakePerson, MakeServices, OwnDatabase, Person, client_at

LONG = timedelta(days=1)


@pytest_asyncio.fixture
async def somebody(own: OwnDatabase, make_services: MakeServices, make_person: MakePerson) -> Person:
    return await make_person(make_services(url=own.app))


async def end_one(person: Person) -> str:
    session = (await person.sign_in()).session_id
    await person.services.sessions.end(
        person.user.id, session, actor=SYSTEM, client=client_at(), reason=EndReason.LOGOUT
    )
    return str(session)


async def told(services: Container) -> str:
    page = await services.feed.page(None, limit=100, with_tokens=False)
    return b"".join(page.entries).decode()


async def floor_of(services: Container, within: timedelta, above: Floor | None = None) -> Floor:
    async with services.database.begin() as db:
        return await db.feed.find_floor(within, above=above.xact if above else None)


async def test_upwards_it_comes_to_where_a_look_at_all_comes(somebody: Person, own_sql: asyncpg.Connection) -> None:
    """Never above the oldest end that still matters, also when that one is of an older transaction than old ones."""
    services = somebody.services
    start = await floor_of(services, LONG)
    sessions = [await end_one(somebody) for _ in range(3)]
    # The first to be ended is the only one that is not old yet.
    await own_sql.execute(
        "UPDATE families SET ended_at = ended_at - interval '2 days' WHERE id = ANY($1)", sessions[1:]
    )
    oldest = await own_sql.fetchval("SELECT ended_xact::text::bigint FROM families WHERE id = $1", sessions[0])
    assert start.xact <= oldest
    for above in (None, start):
        assert await floor_of(services, LONG, above) == Floor(oldest, start.identity)
    await own_sql.execute("UPDATE families SET ended_at = ended_at - interval '2 days'")
    risen = await floor_of(services, LONG, start)
    assert risen.xact > oldest
    assert (await floor_of(services, LONG)).xact >= risen.xact


async def test_where_it_cannot_be_found_in_time_the_feed_goes_on(
    somebody: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million ends within minutes make it hard to find; consumers hear of every end all the same."""
    services, find_floor, asked = somebody.services, FeedRepository.find_floor, 0

    async def too_long(*_: Any, **__: Any) -> Floor:
        nonlocal asked
        asked += 1
        raise TookTooLong(why="statement timeout")

    monkeypatch.setattr(FeedRepository, "find_floor", too_long)
    first = await end_one(somebody)
    assert first in await told(services)
    monkeypatch.setattr(FeedRepository, "find_floor", find_floor)
    services.feed._reader._floor_at -= 60
    assert first in await told(services)
    known = services.feed._reader._floor
    assert known is not None
    monkeypatch.setattr(FeedRepository, "find_floor", too_long)
    services.feed._reader._floor_at -= 60
    second = await end_one(somebody)
    assert second in await told(services)
    assert (asked, services.feed._reader._floor) == (2, known)


async def test_a_floor_of_another_history_hides_nothing(somebody: Person) -> None:
    """After a failover transaction ids may have gone back: it is noticed, and everything is looked at once more."""
    services = somebody.services
    session = await end_one(somebody)
    assert session in await told(services)
    services.feed._reader._floor = Floor(2**40, b"another!")
    assert session in await told(services)
    services.feed._reader._floor = Floor(2**40, b"another!")
    services.feed._reader._floor_at -= 60
    assert session in await told(services)
