"""Bulk ends beside everything else, with real commits on engines of their own."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from app.container import Container
from app.domain.errors import RefreshTokenRejected, Unavailable
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.revocations import Order
from app.domain.session_filters import SessionFilter
from app.services.revocation_work import Step
from tests.admin.ending_people import check_lives, insert_sessions
from tests.admin.ending_people import name as name  # noqa: PLC0414 - a fixture
from tests.admin.test_bulk import make_people
from tests.conftest import PASSWORD, MakeServices, client_at


async def order(services: Container, wanted: SessionFilter) -> UUID:
    """Look and order, as the command line does."""
    seen = await services.revocations.preview(Order(wanted), caller=None, client=NO_CLIENT)
    started = await services.revocations.start_seen(Order(wanted), seen, why="ticket 4711", client=NO_CLIENT)
    return started.id


async def work_until_over(services: Container, revocation: UUID, *, ends: int = 7, look: int = 20) -> None:
    """In small batches, as a process among several."""
    while (await services.revocations.follow(revocation)).is_open:
        services.revocation_work._pace.ends, services.revocation_work._pace.look = ends, look
        try:
            step = await services.revocation_work.advance(revocation)
        except Unavailable:
            continue
        if step is Step.NOTHING:
            await asyncio.sleep(0.01)


async def test_two_processes_beside_refreshes_and_sign_ins(
    make_services: MakeServices, name: str, sql: asyncpg.Connection
) -> None:
    """
    Sessions refresh while two processes end them, and others sign in: each session from before the cut ends exactly
    once with a gap-free life, none from after it ends, and no refreshed token of an ended one works.
    """
    engines = [make_services(max_sessions_per_user=0) for _ in range(4)]
    await insert_sessions(sql, name, 200)
    people = await make_people(engines[0], f"{name}-x", 4)
    live = [await person.sign_in() for person in people for _ in range(6)]
    stop = asyncio.Event()
    tokens = {issued.session_id: issued.refresh_token for issued in live}

    async def refresh(session: UUID) -> None:
        while not stop.is_set():
            try:
                issued = await engines[2].refresh.rotate(tokens[session], idempotency_key=None, client=client_at())
                tokens[session] = issued.refresh_token
            except Unavailable:  # a batch held the row for longer than a refresh waits
                continue
            except RefreshTokenRejected:
                return

    async def sign_in(number: int) -> list[UUID]:
        made = []
        while not stop.is_set():
            username = people[number].username
            issued = await engines[3].sign_in.with_password(username, PASSWORD, client=client_at())
            made.append(issued.session_id)
        return made

    others = [asyncio.create_task(refresh(session)) for session in tokens]
    signing = [asyncio.create_task(sign_in(number)) for number in range(2)]
    await asyncio.sleep(0.2)
    revocation = await order(engines[0], SessionFilter(username_prefix=name))
    await asyncio.gather(*(work_until_over(engine, revocation) for engine in engines[:2]))
    await asyncio.sleep(0.1)
    stop.set()
    made = [session for found in await asyncio.gather(*signing) for session in found]
    await asyncio.gather(*others)
    done = await engines[0].revocations.follow(revocation)
    ended, living = await check_lives(sql, name)
    assert ended == done.ended >= 224
    wrong = await sql.fetch(
        "SELECT f.id FROM families AS f JOIN users AS u ON u.id = f.user_id"
        " WHERE u.username_key LIKE $1 || '-%' AND (f.ended_at IS NULL) <> (f.created_at > $2)",
        name,
        done.cut,
    )
    assert wrong == []
    assert living > 0, "nobody signed in after the cut"
    assert set(made) >= {row["id"] for row in await sql.fetch("SELECT id FROM families WHERE id = ANY($1)", made)}
    for token in tokens.values():
        with pytest.raises(RefreshTokenRejected):
            await engines[2].refresh.rotate(token, idempotency_key=None, client=client_at())


async def test_beside_other_ends(make_services: MakeServices, name: str, sql: asyncpg.Connection) -> None:
    """Users are disabled, sign out everywhere and are ended one by one meanwhile: one end each, nobody deadlocks."""
    engines = [make_services() for _ in range(3)]
    people = await make_people(engines[0], name, 12, sessions=8)
    revocation = await order(engines[0], SessionFilter(username_prefix=name))

    async def disable() -> None:
        for person in people[::2]:
            await engines[1].users.disable(person.user.id, actor=SYSTEM, client=client_at())

    async def one_by_one() -> None:
        rows = await sql.fetch("SELECT id FROM families WHERE user_id = ANY($1)", [p.user.id for p in people[1::2]])
        for row in rows:
            await engines[2].sessions.end_anybodys(row["id"], actor=SYSTEM, client=client_at())

    await asyncio.gather(work_until_over(engines[0], revocation, ends=5), disable(), one_by_one())
    ended, living = await check_lives(sql, name)
    assert (ended, living) == ((await engines[0].revocations.follow(revocation)).ended, 0)


async def test_a_row_that_somebody_holds_is_not_lost(
    make_services: MakeServices, name: str, sql: asyncpg.Connection, owner_url: str
) -> None:
    """The others end without waiting for it; the work is over only when it has ended too."""
    services = make_services()
    await insert_sessions(sql, name, 60)
    revocation = await order(services, SessionFilter(username_prefix=name))
    services.revocation_work._pace.ends = services.revocation_work._pace.look = 7
    await services.revocation_work.advance(revocation)
    # Or the last look at sign-ins from before the cut would find it too.
    assert await sql.fetchval("SELECT settled FROM session_revocations WHERE id = $1", revocation)
    whose = "SELECT id FROM users WHERE username_key LIKE $1 || '-%'"
    held = await sql.fetchval(f"SELECT id FROM families WHERE user_id IN ({whose}) ORDER BY id OFFSET 20 LIMIT 1", name)
    holder = await asyncpg.connect(owner_url)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("UPDATE families SET last_ip = '192.0.2.1' WHERE id = $1", held)
    for _ in range(40):
        services.revocation_work._pace.ends = services.revocation_work._pace.look = 7
        await services.revocation_work.advance(revocation)
    waiting = await services.revocations.follow(revocation)
    assert (waiting.state, waiting.ended) == ("running", 59)
    await transaction.commit()
    await holder.close()
    await work_until_over(services, revocation)
    assert await check_lives(sql, name) == (60, 0)


async def test_a_sign_in_from_before_the_cut_that_commits_late(
    make_services: MakeServices, name: str, sql: asyncpg.Connection, owner_url: str
) -> None:
    """It was under way when the dry run looked, and nobody could see it: it ends before the work is over."""
    services = make_services()
    await insert_sessions(sql, name, 20)
    late = await asyncpg.connect(owner_url)
    transaction = late.transaction()
    await transaction.start()
    await late.execute("SELECT pg_current_xact_id()")
    row = await sql.fetchrow("SELECT f.* FROM families AS f JOIN users AS u ON u.id = f.user_id"
                             " WHERE u.username_key = $1 || '-0' ORDER BY f.id LIMIT 1", name)  # fmt: skip
    assert row is not None
    await late.execute(
        "INSERT INTO families SELECT (jsonb_populate_record(f, jsonb_build_object('id', $2::uuid))).*"
        " FROM families AS f WHERE f.id = $1",
        row["id"],
        UUID(int=row["id"].int - 1),
    )
    revocation = await order(services, SessionFilter(username_prefix=name))
    for _ in range(5):
        await services.revocation_work.advance(revocation)
    waiting = await services.revocations.follow(revocation)
    assert (waiting.state, waiting.ended) == ("running", 20)
    await transaction.commit()
    await late.close()
    await work_until_over(services, revocation)
    assert (await services.revocations.follow(revocation)).ended == 21
    left = "SELECT count(*) FROM families WHERE user_id = $1 AND ended_at IS NULL"
    assert await sql.fetchval(left, row["user_id"]) == 0


async def test_two_orders_for_the_same_sessions(
    make_services: MakeServices, name: str, sql: asyncpg.Connection
) -> None:
    """Each session ends once, by the one or the other."""
    engines = [make_services(), make_services()]
    await insert_sessions(sql, name, 150)
    orders = [await order(engine, SessionFilter(username_prefix=name)) for engine in engines]
    await asyncio.gather(*(work_until_over(engine, each) for engine, each in zip(engines, orders, strict=True)))
    assert await check_lives(sql, name) == (150, 0)
    assert sum([(await engines[0].revocations.follow(each)).ended for each in orders]) == 150


async def test_a_small_one_does_not_wait_for_a_large_one(
    make_services: MakeServices, name: str, sql: asyncpg.Connection, empty_database: None
) -> None:
    """Open ones take turns."""
    services = make_services()
    await sql.execute(
        "UPDATE session_revocations SET state = 'cancelled', finished_at = now() WHERE finished_at IS NULL"
    )
    await insert_sessions(sql, f"{name}-large", 200)
    await insert_sessions(sql, f"{name}-small", 5)
    large = await order(services, SessionFilter(username_prefix=f"{name}-large"))
    small = await order(services, SessionFilter(username_prefix=f"{name}-small"))
    for _ in range(4):
        services.revocation_work._pace.ends = 10
        assert await services.revocation_work.work()
    assert (await services.revocations.follow(small)).state == "done"
    assert (await services.revocations.follow(large)).is_open


async def test_a_statement_that_takes_too_long_is_made_smaller(
    make_services: MakeServices, name: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No statement over its limit: what does not end in time is taken back whole and done in smaller parts."""
    services = make_services()
    await insert_sessions(sql, name, 400)
    revocation = await order(services, SessionFilter(username_prefix=name))
    pace = services.revocation_work._pace
    pace.ends = 400
    await sql.execute(
        "CREATE OR REPLACE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.004); RETURN NEW; END $$"
    )
    await sql.execute(
        "CREATE TRIGGER slowly BEFORE UPDATE ON families FOR EACH ROW WHEN (NEW.end_reason = 'bulk_admin')"
        " EXECUTE FUNCTION slowly()"
    )
    try:
        assert await services.revocation_work.advance(revocation) is Step.WORKED
        assert (await services.revocations.follow(revocation)).ended == 0
        assert pace.ends == 100
        assert await services.revocation_work.advance(revocation) is Step.WORKED
        assert (await services.revocations.follow(revocation)).ended == 100
        assert pace.ends == 50, "it learned from how long that took"
    finally:
        await sql.execute("DROP TRIGGER slowly ON families")
        await sql.execute("DROP FUNCTION slowly")
    await work_until_over(services, revocation, ends=400)
    assert await check_lives(sql, name) == (400, 0)


def test_the_smallest_id_of_a_moment() -> None:
    """Ids made at a moment or later are not before it, ids made earlier are."""
    from uuid_utils.compat import uuid7  # noqa: PLC0415 - beside its only use

    from app.domain.revocations import id_before  # noqa: PLC0415 - likewise

    now = datetime.now(UTC)
    assert id_before(now - timedelta(milliseconds=2)) < uuid7() < id_before(now + timedelta(minutes=1))
