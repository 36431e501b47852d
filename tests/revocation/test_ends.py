"""Following the ends: none is missed, however late it is committed."""

import asyncio
import re
from datetime import timedelta
from uuid import UUID

import asyncpg

from app.container import Container
from app.domain.families import EndReason
from app.domain.snapshots import NOTHING, Snapshot
from app.repositories.ends import AFTER, CHANNEL, RECENT
from tests.conftest import MakePerson, MakeServices, OwnDatabase, Person, client_at
from tests.revocation.conftest import copies

END = (
    "UPDATE families SET ended_at = clock_timestamp(), end_reason = 'admin', ended_xact = pg_current_xact_id()"
    " WHERE id = $1"
)


async def snapshot_of(services: Container) -> Snapshot:
    async with services.database.begin() as db:
        return (await db.ends.list_after(NOTHING, limit=1)).snapshot


async def unseen(services: Container, seen: Snapshot, limit: int = 100) -> tuple[list[UUID], Snapshot]:
    async with services.database.begin() as db:
        page = await db.ends.list_after(seen, limit=limit)
    return [end.id for end in page.ends], page.snapshot


async def test_a_late_commit_is_not_missed(person: Person, services: Container, owner_url: str) -> None:
    """The transaction that began first commits last: the ends between, then its own, each of them once."""
    sessions = [(await person.sign_in()).session_id for _ in range(3)]
    slow, fast = await asyncpg.connect(owner_url), await asyncpg.connect(owner_url)
    start = await snapshot_of(services)
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
    assert set((await unseen(services, Snapshot.before(between.xmin)))[0]) >= {sessions[0], sessions[2]}
    await slow.close()
    await fast.close()


async def test_pages_leave_nothing_out(person: Person, services: Container, sql: asyncpg.Connection) -> None:
    """In order of transaction and id, across transactions that ended one and many; the next snapshot sees them all."""
    sessions = await copies(sql, (await person.sign_in()).session_id, 30)
    start = await snapshot_of(services)
    for session in sessions[:5]:
        await sql.execute(END, session)
    await sql.execute(END.replace("id = $1", "id = ANY($1)"), sessions[5:])
    async with services.database.begin() as db:
        page = await db.ends.list_after(start, limit=7)
        first, found = page, list(page.ends)
        while len(page.ends) == 7:
            page = await db.ends.list_after(start, after=page.ends[-1], limit=7)
            found += page.ends
    assert [end.id for end in found] == [*sessions[:5], *sorted(sessions[5:])]
    assert [end.xact for end in found] == sorted(end.xact for end in found)
    assert (found[0].user_id, found[0].reason) == (person.user.id, "admin")
    assert await unseen(services, first.snapshot) == ([], (await unseen(services, first.snapshot))[1])


async def test_ends_of_another_clusters_life_are_not_found_again(
    person: Person, services: Container, sql: asyncpg.Connection
) -> None:
    """Rows with transaction ids this cluster has not reached, as a restored dump has them: loaded, not followed."""
    session = (await person.sign_in()).session_id
    start = await snapshot_of(services)
    await sql.execute(END.replace("pg_current_xact_id()", "'99999999999'::xid8"), session)
    assert session not in (await unseen(services, start))[0]
    async with services.database.begin() as db:
        recent = await db.ends.list_recent(timedelta(minutes=1), limit=10_000)
    assert session in [end.id for end in recent.ends]
    await sql.execute("DELETE FROM families WHERE id = $1", session)


async def test_the_bell_rings_for_ends_only(
    person: Person, services: Container, sql: asyncpg.Connection, owner_url: str
) -> None:
    """Once for a transaction, without a payload; not for refreshes, sign-ins, labels, or an end that is rolled back."""
    listener, rings = await asyncpg.connect(owner_url), asyncio.Queue[str]()
    await listener.add_listener(CHANNEL, lambda *given: rings.put_nowait(str(given[3])))
    issued = await person.sign_in()
    issued = await person.refresh(issued.refresh_token)
    caller = await services.authentication.authenticate(issued.access_token)
    await services.sessions.label(caller, issued.session_id, "mine", client=client_at())
    async with services.database.begin() as db:
        assert await db.families.end_all(person.user.id, reason=EndReason.ADMIN, by=None)
    others = await copies(sql, issued.session_id, 40)
    await listener.execute("SELECT 1")  # what was sent has arrived with the answer
    assert rings.empty()
    async with sql.transaction():
        for session in others:
            await sql.execute(END, session)
    assert await rings.get() == ""
    await listener.execute("SELECT 1")
    assert rings.empty()
    await services.sessions.end_others(caller, client=client_at())  # none is left
    await listener.execute("SELECT 1")
    assert rings.empty()
    await listener.close()


async def test_reading_walks_the_indexes(
    own: OwnDatabase, own_sql: asyncpg.Connection, make_services: MakeServices, make_person: MakePerson
) -> None:
    """Among many ended sessions neither the next ends nor the recent ones are searched for."""
    sql = own_sql  # what others have ended lately would be read too
    some = (await (await make_person(make_services(url=own.app))).sign_in()).session_id
    many = await copies(sql, some, 20_000)
    await sql.execute(END.replace("id = $1", "id = ANY($1)").replace("clock_timestamp()", "'2020-01-01'"), many)
    await sql.execute("ANALYZE families")
    following = await sql.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
    nil = UUID(int=0)
    for statement, arguments, index in (
        (AFTER, (["1", "2", "3"], [nil] * 3, following, nil, 1000, None), "ix_families_ended"),
        (RECENT, (None, timedelta(minutes=16), None, nil, 1000), "ix_families_ended_at"),
    ):
        plan = "\n".join([row[0] for row in await sql.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", *arguments)])
        assert "Seq Scan on families" not in plan, plan
        assert index in plan
        blocks = sum(map(int, re.findall(r"shared hit=(\d+)", plan.split("\n", 2)[1])))
        assert blocks < 50, plan
    held = await sql.fetchval("SELECT ended_xact::text FROM families WHERE id = $1", many[0])
    late = ([held], [many[19_000]], following, nil, 100, None)  # far on in a late transaction of very many
    plan = "\n".join([row[0] for row in await sql.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {AFTER}", *late)])
    assert sum(map(int, re.findall(r"shared hit=(\d+)", plan.split("\n", 2)[1]))) < 150, plan
