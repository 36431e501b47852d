"""Following the ends: none is missed, however late it is committed."""

from uuid import UUID

import asyncpg

from app.container import Container
from app.repositories.ends import Horizon
from tests.conftest import Person

END = (
    "UPDATE families SET ended_at = clock_timestamp(), end_reason = 'admin', ended_xact = pg_current_xact_id()"
    " WHERE id = $1"
)


async def horizon_of(services: Container) -> Horizon:
    async with services.database.begin() as db:
        return (await db.ends.list_after(Horizon.at(0), limit=1)).horizon


async def unseen(services: Container, seen: Horizon, limit: int = 100) -> tuple[list[UUID], Horizon]:
    async with services.database.begin() as db:
        page = await db.ends.list_after(seen, limit=limit)
    return [end.id for end in page.ends], page.horizon


async def test_a_late_commit_is_not_missed(person: Person, services: Container, owner_url: str) -> None:
    """The transaction that began first commits last: the ends between, then its own, each of them once."""
    sessions = [(await person.sign_in()).session_id for _ in range(3)]
    slow, fast = await asyncpg.connect(owner_url), await asyncpg.connect(owner_url)
    start = await horizon_of(services)
    held = slow.transaction()
    await held.start()
    await slow.execute(END, sessions[0])
    await fast.execute(END, sessions[1])
    ids, between = await unseen(services, start)
    assert ids == [sessions[1]]
    await fast.execute(END, sessions[2])
    await held.commit()
    ids, later = await unseen(services, between)
    assert set(ids) == {sessions[0], sessions[2]}
    assert (await unseen(services, later))[0] == []
    assert set((await unseen(services, Horizon.at(between.oldest)))[0]) >= {sessions[0], sessions[2]}
    await slow.close()
    await fast.close()
