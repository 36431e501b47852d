"""After an end is acknowledged, nobody accepts the access token; and verifying one needs no query."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from app.domain.api_clients import ClientScope, NewClient
from app.domain.errors import RefreshTokenRejected, Unavailable
from app.domain.events import SYSTEM
from app.domain.families import EndReason, Grant
from app.domain.revocations import Order
from app.domain.session_filters import SessionFilter
from app.domain.snapshots import NOTHING, Snapshot
from app.domain.user_changes import UserChange
from app.domain.users import Role
from app.jobs.following import following_ends
from app.repositories.ends import EndRepository, EndsPage
from app.services import ended_view
from app.services.acting import Acting
from app.services.revocation_work import Step
from app.services.tokens import IssuedTokens
from tests.conftest import PASSWORD, MakePerson, MakeServices, MovableClock, OwnDatabase, Person, client_at
from tests.revocation.conftest import Reads, SteerableClock, Wire, accepts, copies, following, loaded, until
from tests.revocation.test_ends import END

End = Callable[[Person, IssuedTokens], Awaitable[object]]

BY_SYSTEM = Acting(SYSTEM, client_at())


async def _log_out(person: Person, issued: IssuedTokens) -> object:
    caller = await person.services.authentication.identify(issued.access_token)
    return await person.services.sessions.log_out(caller, refresh_token=None, client=client_at())


async def _log_out_by_refresh_token(person: Person, issued: IssuedTokens) -> object:
    return await person.services.sessions.log_out_with_refresh_token(issued.refresh_token, client=client_at())


async def _end_one(person: Person, issued: IssuedTokens) -> object:
    return await person.services.sessions.end(
        person.user.id, issued.session_id, actor=SYSTEM, client=client_at(), reason=EndReason.ADMIN
    )


async def _end_others(person: Person, _: IssuedTokens) -> object:
    other = await person.services.authentication.authenticate((await person.sign_in()).access_token)
    return await person.services.sessions.end_others(other, client=client_at())


async def _change_password(person: Person, _: IssuedTokens) -> object:
    other = await person.services.authentication.authenticate((await person.sign_in()).access_token)
    change = person.services.password_change.change
    return await change(other, current=PASSWORD, new="another zeppelin ride", client=client_at())


async def _disable(person: Person, _: IssuedTokens) -> object:
    return await person.services.users.disable(person.user.id, actor=SYSTEM, client=client_at())


async def _reuse(person: Person, issued: IssuedTokens) -> object:
    newer = await person.refresh(issued.refresh_token)
    await person.refresh(newer.refresh_token)
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(issued.refresh_token)
    return None


async def _evict(person: Person, _: IssuedTokens) -> object:
    return [await person.sign_in() for _ in range(2)]


async def _change_role(person: Person, _: IssuedTokens) -> object:
    return await person.services.users.change(person.user.id, UserChange(role=Role.AUDITOR), by=BY_SYSTEM)


async def _delete(person: Person, _: IssuedTokens) -> object:
    return await person.services.users.delete(person.user.id, by=BY_SYSTEM)


async def _revoke_by_client(person: Person, issued: IssuedTokens) -> object:
    new = NewClient("gateway", scopes=frozenset({ClientScope.REVOKE}))
    made = await person.services.api_clients.create(new, actor=SYSTEM, client=client_at())
    await person.services.oauth.revoke(issued.access_token, made.client, client=client_at())
    return None


async def _reset_password(person: Person, _: IssuedTokens) -> object:
    return await person.services.credentials.reset(person.user.id, forget=True, by=BY_SYSTEM)


async def _redeem_password_token(person: Person, _: IssuedTokens) -> object:
    issued, _ended = await person.services.credentials.reset(person.user.id, forget=False, by=BY_SYSTEM)
    return await person.services.credentials.redeem(issued.token, "a password of my own", client=client_at())


async def _end_all(person: Person, _: IssuedTokens) -> object:
    return await person.services.sessions.end_all_of(person.user.id, actor=SYSTEM, client=client_at())


async def _bulk(person: Person, _: IssuedTokens) -> object:
    order, bulk, work = Order(SessionFilter(user_id=person.user.id)), person.services.revocations, None
    seen = await bulk.preview(order, caller=None, client=client_at())
    going = await bulk.start_seen(order, seen, why="tried", client=client_at())
    while work is not Step.FINISHED:
        work = await person.services.revocation_work.advance(going.id)
    return None


ENDS: list[End] = [
    _log_out,
    _log_out_by_refresh_token,
    _end_one,
    _end_others,
    _change_password,
    _disable,
    _reuse,
    _evict,
    _change_role,
    _delete,
    _reset_password,
    _redeem_password_token,
    _end_all,
    _revoke_by_client,
    _bulk,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__.strip("_"))
async def test_at_once_in_the_process_that_ended_it(
    make_services: MakeServices, make_person: MakePerson, reads: Reads, end: End
) -> None:
    """However a session ends, its own process refuses the token before it answers, without hearing of it or asking."""
    services = make_services(max_sessions_per_user=2, revocation_staleness_seconds=60)
    person = await make_person(services)
    issued = await person.sign_in()
    async with loaded(services):
        assert await accepts(services, issued.access_token)
        await end(person, issued)
        reads.count = 0
        assert not await accepts(services, issued.access_token)
        assert reads.count == 0


async def test_erasing_somebody_is_seen_at_once(own: OwnDatabase, make_services: MakeServices, reads: Reads) -> None:
    """It is done as the maintenance role, by a database of its own in the same process."""
    settings = {"maintenance_database_url": own.maintenance, "revocation_staleness_seconds": 60}
    services = make_services(url=own.app, **settings)
    user = await services.users.create("somebody", PASSWORD, role=Role.USER, actor=None, client=client_at())
    issued = await Person(services, user, "somebody").sign_in()
    async with loaded(services):
        await services.erasure.erase(user.id, "asked to", actor=SYSTEM, client=client_at())
        reads.count = 0
        assert not await accepts(services, issued.access_token)
        assert reads.count == 0


async def test_the_end_of_a_lapsed_session_is_known_too(
    make_services: MakeServices, make_person: MakePerson, clock: MovableClock, empty_database: None
) -> None:
    """The job that writes it down goes the same way; the token had ended with the session anyway."""
    services = make_services(clock, refresh_idle_seconds=60, revocation_staleness_seconds=60)
    issued = await (await make_person(services)).sign_in()
    assert issued.expires_in == 60
    async with loaded(services):
        clock.advance(seconds=59)
        assert await accepts(services, issued.access_token)
        clock.advance(seconds=1)
        assert not await accepts(services, issued.access_token)
        await services.housekeeping.end_lapsed_sessions()
        assert services.ended_view.has_ended(issued.session_id)


async def test_what_is_not_committed_is_not_told(make_services: MakeServices, make_person: MakePerson) -> None:
    """An end that is rolled back leaves the token as good as it was."""
    services = make_services(revocation_staleness_seconds=60)
    person = await make_person(services)
    issued = await person.sign_in()
    async with loaded(services):
        async with services.database.begin() as db:
            assert await db.families.end_all(person.user.id, reason=EndReason.ADMIN, by=None)
        assert await accepts(services, issued.access_token)


async def test_everywhere_else_within_the_bound(
    make_services: MakeServices, make_person: MakePerson, reads: Reads
) -> None:
    """Three other processes hear of it; none of them asks for any of its verifications."""
    person = await make_person(make_services())
    others = [make_services() for _ in range(3)]
    async with following(others[0]), following(others[1]), following(others[2]):
        for _ in range(20):
            issued = await person.sign_in()
            reads.count = 0
            assert all([await accepts(services, issued.access_token) for services in others])
            await _end_one(person, issued)
            await until(lambda: all(services.ended_view.has_ended(issued.session_id) for services in others))  # noqa: B023
            assert not any([await accepts(services, issued.access_token) for services in others])
            assert reads.count == 0


async def test_what_ended_before_the_start(make_services: MakeServices, make_person: MakePerson, reads: Reads) -> None:
    """Is loaded; until it is, each token costs a read."""
    person = await make_person(make_services())
    live, ended = await person.sign_in(), await person.sign_in()
    await _end_one(person, ended)
    fresh = make_services()
    assert await accepts(fresh, live.access_token)
    assert not await accepts(fresh, ended.access_token)
    assert reads.count == 2
    async with following(fresh):
        assert await accepts(fresh, live.access_token)
        assert not await accepts(fresh, ended.access_token)
        assert reads.count == 2


async def test_strict_reads_always(make_services: MakeServices, make_person: MakePerson, reads: Reads) -> None:
    """`ROTA_REVOCATION_MODE=strict`: a read for each token, however fresh the view is."""
    services = make_services(revocation_mode="strict")
    person = await make_person(services)
    issued = await person.sign_in()
    ended = await person.sign_in()
    await _end_one(person, ended)
    async with following_ends(services):
        await until(lambda: services.ended_view.has_ended(ended.session_id))
        for _ in range(5):
            assert await accepts(services, issued.access_token)
        assert reads.count == 5


async def test_a_stale_view_is_not_asked(make_services: MakeServices, make_person: MakePerson, reads: Reads) -> None:
    """Up to the bound no read, beyond it one for each token, and what ended unheard is refused."""
    clock = SteerableClock()
    services, other = make_services(clock, revocation_staleness_seconds=60), make_services()
    person = await make_person(other)
    live, ended = await person.sign_in(), await person.sign_in()
    async with loaded(services):
        await _end_one(person, ended)
        reads.count = 0
        clock.skipped = 50
        assert await accepts(services, live.access_token)
        assert reads.count == 0
        clock.skipped = 61
        assert await accepts(services, live.access_token)
        assert not await accepts(services, ended.access_token)
        assert reads.count == 2


async def test_while_the_database_is_away(make_services: MakeServices, make_person: MakePerson, wire: Wire) -> None:
    """Within the bound the view decides; beyond it 503, never acceptance; when it is back, all is as before."""
    clock = SteerableClock()
    services = make_services(clock, url=await wire.start(), revocation_staleness_seconds=60)
    person = await make_person(make_services())
    live, ended = await person.sign_in(), await person.sign_in()
    async with following(services):
        wire.cut()
        await _end_one(person, ended)
        assert await accepts(services, live.access_token)
        clock.skipped += 100
        for issued in (live, ended):
            with pytest.raises(Unavailable):
                await services.authentication.authenticate(issued.access_token)
        wire.down = False
        await until(lambda: services.ended_view.now() is not None)
        assert await accepts(services, live.access_token)
        assert not await accepts(services, ended.access_token)


async def test_a_listener_that_is_dead_without_a_word(
    make_services: MakeServices, make_person: MakePerson, wire: Wire, monkeypatch: pytest.MonkeyPatch, reads: Reads
) -> None:
    """Nothing arrives and nothing is closed: past the bound tokens are read, and then there is another connection."""
    monkeypatch.setattr(ended_view, "READ_SECONDS", 0.2)
    clock = SteerableClock()
    services = make_services(clock, url=await wire.start(), revocation_staleness_seconds=1)
    person = await make_person(make_services())
    issued = await person.sign_in()
    async with following(services):
        connections = wire.connections
        wire.silence(b"rota-ends")
        await _end_one(person, issued)
        await until(lambda: services.ended_view.now() is None)
        reads.count = 0
        assert not await accepts(services, issued.access_token)
        assert reads.count == 1
        assert not services.ended_view.has_ended(issued.session_id)
        wire.speak()
        await until(lambda: services.ended_view.now() is not None)
        assert services.ended_view.has_ended(issued.session_id)
        assert wire.connections > connections


async def test_the_listener_is_killed_amid_many_ends(
    make_services: MakeServices, make_person: MakePerson, owner_url: str, sql: asyncpg.Connection
) -> None:
    """Its connection is cut again and again while sessions end in parallel: none is missed, and no live one refused."""
    ending, services = make_services(), make_services()
    person = await make_person(ending)
    spared = await person.sign_in()
    sessions = await copies(sql, spared.session_id, 600)
    killer, done, kills = await asyncpg.connect(owner_url), asyncio.Event(), 0

    async def kill() -> None:
        nonlocal kills
        while not done.is_set():
            killed = await killer.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'rota-ends' AND datname = current_database()"
            )
            kills += len(killed)
            await asyncio.sleep(0.02)

    async def end(own: list[UUID]) -> None:
        for session in own:
            await ending.sessions.end(person.user.id, session, actor=SYSTEM, client=client_at(), reason=EndReason.ADMIN)

    async with following(services):
        killing = asyncio.create_task(kill())
        await asyncio.gather(*(end(sessions[number::4]) for number in range(4)))
        await until(lambda: kills >= 3)
        done.set()
        await killing
        await until(lambda: all(map(services.ended_view.has_ended, sessions)))
        assert await accepts(services, spared.access_token)
    await killer.close()


async def test_one_statement_ends_very_many(
    make_services: MakeServices, make_person: MakePerson, sql: asyncpg.Connection
) -> None:
    """They come in pages, between which the process serves others, and all of them come."""
    services = make_services()
    person = await make_person(services)
    live = await person.sign_in()
    sessions = await copies(sql, live.session_id, 10 * ended_view.PAGE + 1)
    async with following(services):
        await sql.execute(
            "UPDATE families SET ended_at = clock_timestamp(), end_reason = 'admin', ended_xact = pg_current_xact_id()"
            " WHERE user_id = $1 AND id <> $2",
            person.user.id,
            live.session_id,
        )
        await until(lambda: all(map(services.ended_view.has_ended, sessions)))
        assert await accepts(services, live.access_token)


async def test_late_commits_in_pages(
    make_services: MakeServices,
    make_person: MakePerson,
    owner_url: str,
    sql: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ends held open while others commit, many pages of them: all are in the view once all are committed."""
    monkeypatch.setattr(ended_view, "PAGE", 7)
    services = make_services()
    person = await make_person(services)
    sessions = await copies(sql, (await person.sign_in()).session_id, 60)
    holders = [await asyncpg.connect(owner_url) for _ in range(4)]
    view = make_services()
    async with following(view):
        held = [holder.transaction() for holder in holders]
        for number, holder in enumerate(holders):
            await held[number].start()
            await holder.execute(END, sessions[number])
        await services.sessions.end(
            person.user.id, sessions[4], actor=SYSTEM, client=client_at(), reason=EndReason.ADMIN
        )
        async with services.database.begin() as db:  # one transaction of many
            for session in sessions[5:40]:
                await db.families.end(person.user.id, session, reason=EndReason.BULK_ADMIN, by=None)
            await db.commit()
        await until(lambda: all(map(view.ended_view.has_ended, sessions[4:40])))
        assert not any(map(view.ended_view.has_ended, sessions[:4]))
        for number in (2, 0, 3, 1):
            await held[number].commit()
        for session in sessions[40:]:
            await services.sessions.end(
                person.user.id, session, actor=SYSTEM, client=client_at(), reason=EndReason.ADMIN
            )
        await until(lambda: all(map(view.ended_view.has_ended, sessions)))
    again = make_services()
    async with following(again):
        assert all(map(again.ended_view.has_ended, sessions))
    for holder in holders:
        await holder.close()


async def test_a_lost_notification_does_not_matter(
    make_services: MakeServices, make_person: MakePerson, sql: asyncpg.Connection
) -> None:
    """Without the trigger the poll finds it."""
    services = make_services(revocation_staleness_seconds=1)
    person = await make_person(make_services())
    issued = await person.sign_in()
    async with following(services):
        await sql.execute("ALTER TABLE families DISABLE TRIGGER families_ended")
        try:
            await _end_one(person, issued)
            await until(lambda: services.ended_view.has_ended(issued.session_id))
        finally:
            await sql.execute("ALTER TABLE families ENABLE TRIGGER families_ended")


async def test_transaction_ids_that_went_back(make_services: MakeServices, make_person: MakePerson) -> None:
    """A cursor that is ahead of the database, as after a restore, is noticed and everything is loaded anew."""
    services = make_services(revocation_staleness_seconds=60)
    person = await make_person(make_services())
    issued = await person.sign_in()
    async with loaded(services):
        await _end_one(person, issued)
        services.ended_view._seen = Snapshot.before(2**40)
        assert not services.ended_view.has_ended(issued.session_id)
        async with following_ends(services):
            await until(lambda: services.ended_view.has_ended(issued.session_id))


async def test_another_run_of_the_server(make_services: MakeServices, make_person: MakePerson) -> None:
    """After a restart or failover ids may have gone back and passed the cursor again: everything is loaded anew."""
    services = make_services(revocation_staleness_seconds=60)
    person = await make_person(make_services())
    issued = await person.sign_in()
    async with loaded(services):
        await _end_one(person, issued)
        async with services.database.begin() as db:
            services.ended_view._seen = (await db.ends.list_after(NOTHING, limit=1)).snapshot
        services.ended_view._incarnation = "another"
        async with following_ends(services):
            await until(lambda: services.ended_view.has_ended(issued.session_id))


async def test_what_was_read_is_not_read_again(
    make_services: MakeServices, make_person: MakePerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever follows again goes on from the first read, though that was cut off as soon as it was there."""
    services = make_services()
    await (await make_person(services)).sign_in()
    async with following_ends(services):
        while services.ended_view.now() is None:
            await asyncio.sleep(0)

    async def never(*_: Any, **__: Any) -> EndsPage:
        raise AssertionError("read from the beginning")

    monkeypatch.setattr(EndRepository, "list_recent", never)
    before = services.ended_view._read_at
    async with following_ends(services):
        await until(lambda: services.ended_view._read_at != before)


async def test_a_commit_between_two_pages(
    make_services: MakeServices,
    make_person: MakePerson,
    owner_url: str,
    sql: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What began before the first page's ends and commits before the second is read is found by the next read."""
    monkeypatch.setattr(ended_view, "PAGE", 7)
    services = make_services(revocation_staleness_seconds=60)
    person = await make_person(services)
    sessions = await copies(sql, (await person.sign_in()).session_id, 20)
    holder = await asyncpg.connect(owner_url)
    list_after = EndRepository.list_after
    async with loaded(services):
        held = holder.transaction()
        await held.start()
        await holder.execute(END, sessions[0])
        for session in sessions[1:]:
            await sql.execute(END, session)

        async def commits_after_the_first(self: EndRepository, *given: Any, **more: Any) -> EndsPage:
            page = await list_after(self, *given, **more)
            if more["after"] is None and page.ends:
                monkeypatch.setattr(EndRepository, "list_after", list_after)
                await held.commit()
            return page

        monkeypatch.setattr(EndRepository, "list_after", commits_after_the_first)
        async with following_ends(services):
            await until(lambda: all(map(services.ended_view.has_ended, sessions)))
    await holder.close()


@pytest.mark.parametrize("round_", range(5))
async def test_a_refresh_that_races_with_the_end(
    make_services: MakeServices, make_person: MakePerson, round_: int
) -> None:
    """Whatever the refresh got, no process accepts it once the end is acknowledged there or heard of elsewhere."""
    first, second = make_services(), make_services()
    person = await make_person(first)
    async with following(first), following(second):
        issued = await person.sign_in()
        results = await asyncio.gather(
            *(
                second.refresh.rotate(issued.refresh_token, idempotency_key=None, client=client_at())
                for _ in range(round_ + 1)
            ),
            _end_one(person, issued),
            return_exceptions=True,
        )
        await until(lambda: second.ended_view.has_ended(issued.session_id))
        pairs = [issued, *(result for result in results if isinstance(result, IssuedTokens))]
        for pair in pairs:
            assert not await accepts(first, pair.access_token)
            assert not await accepts(second, pair.access_token)


async def test_logging_out_twice(make_services: MakeServices, make_person: MakePerson) -> None:
    """The second time it says that the session was over, view or no view."""
    services = make_services()
    person = await make_person(services)
    issued = await person.sign_in()
    async with following(services):
        assert await _log_out(person, issued) is True
        assert await _log_out(person, issued) is False


class WrongHost(SteerableClock):
    """A host whose clock somebody has set."""

    def __init__(self, wrong: timedelta) -> None:
        super().__init__()
        self._wrong = wrong

    def on_host(self) -> Any:
        return super().on_host() + self._wrong


@pytest.mark.parametrize("wrong", [timedelta(minutes=-20), timedelta(minutes=20)], ids=["behind", "ahead"])
async def test_a_host_whose_clock_is_wrong(
    make_services: MakeServices, person: Person, sql: asyncpg.Connection, reads: Reads, wrong: timedelta
) -> None:
    """Expiry is told by the database's clock, as it was at the last read and what has elapsed since."""
    clock = WrongHost(wrong)
    services = make_services(clock, revocation_staleness_seconds=60)
    issuing = services.refresh._pairs._access_tokens
    now = await sql.fetchval("SELECT clock_timestamp()")

    def issued(ago: timedelta) -> str:
        grant = Grant(
            now=now - ago,
            user_id=person.user.id,
            family_id=uuid7(),
            generation=0,
            seed=b"",
            client_id="first-party",
            scope="",
            role=Role.USER,
            authenticated_at=now,
            amr="pwd",
            acr=None,
            idle_expires_at=now + timedelta(days=1),
            expires_at=now + timedelta(days=1),
        )
        return issuing.issue(grant)[0]

    async with loaded(services):
        assert await accepts(services, issued(timedelta(seconds=840)))
        assert not await accepts(services, issued(timedelta(seconds=901)))
        clock.skipped = 50
        assert await accepts(services, issued(timedelta(seconds=800)))
        assert not await accepts(services, issued(timedelta(seconds=855)))
        assert reads.count == 0
