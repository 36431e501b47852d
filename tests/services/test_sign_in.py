"""Sign-in, its refusals, the session cap, password change, disabling."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from passlib.context import CryptContext

from app.domain.errors import (
    AccessTokenRejected,
    InvalidCredentials,
    PasswordRefused,
    RefreshTokenRejected,
    RegistrationClosed,
    RotaError,
    SessionNotFound,
    Unavailable,
    UsernameTaken,
)
from app.domain.events import SYSTEM
from app.domain.families import EndReason
from tests.conftest import PASSWORD, Events, MakePerson, MakeServices, MovableClock, Person, client_at


async def test_sessions_stand_side_by_side(person: Person, sql: asyncpg.Connection) -> None:
    """Each sign-in is a session of its own, described by its agent."""
    one, other = await person.sign_in(), await person.sign_in(client=client_at(agent="curl/8.1"))
    assert one.session_id != other.session_id
    await person.refresh(one.refresh_token)
    await person.refresh(other.refresh_token)
    row = await sql.fetchrow("SELECT device, browser, os FROM families WHERE id = $1", one.session_id)
    assert row is not None
    assert tuple(row) == ("iPhone", "Mobile Safari 17", "iOS 17")


@pytest.mark.case(46)
async def test_refusals_look_the_same_and_are_told_apart_in_the_trail(
    person: Person, make_person: MakePerson, events_of: Events, sql: asyncpg.Connection
) -> None:
    """Unknown, wrong, disabled: one error. The trail has the reason, and an unknown name only as a digest."""
    disabled = await make_person()
    await disabled.services.users.disable(disabled.user.id, actor=SYSTEM, client=client_at())
    seen = set()
    for name, password in [
        (person.username, "wrong password"),
        ("nobody-of-that-name", PASSWORD),
        ("not a name\t", PASSWORD),
        (disabled.username, PASSWORD),
        (disabled.username, "wrong password"),
    ]:
        with pytest.raises(InvalidCredentials) as refused:
            await person.services.sign_in.with_password(name, password, client=client_at())
        seen.add((refused.value.code, refused.value.message))
    assert len(seen) == 1
    assert [event["reason"] for event in await events_of(person.user.id)][-1] == "wrong_password"
    assert [event["reason"] for event in await events_of(disabled.user.id)][-2:] == ["disabled", "disabled"]
    unknown = await sql.fetch("SELECT detail FROM audit_events WHERE reason = 'unknown_user' ORDER BY seq DESC LIMIT 2")
    assert len({row["detail"] for row in unknown}) == 2
    assert "nobody" not in unknown[1]["detail"]


async def test_a_name_signs_in_in_any_case(person: Person) -> None:
    """The canonical form decides."""
    issued = await person.services.sign_in.with_password(person.username.upper(), PASSWORD, client=client_at())
    assert issued.access_token


async def test_names_are_unique_in_their_canonical_form(person: Person) -> None:
    """Nobody can register somebody's name in capitals."""
    with pytest.raises(UsernameTaken):
        await person.services.users.register(person.username.upper(), PASSWORD, client=client_at())


async def test_registration_is_closed_by_default(make_services: MakeServices) -> None:
    """Closed means closed, whatever the input."""
    with pytest.raises(RegistrationClosed):
        await make_services(registration="closed").users.register("somebody", PASSWORD, client=client_at())


async def test_a_weak_hash_is_renewed_at_sign_in(person: Person, sql: asyncpg.Connection, events_of: Events) -> None:
    """Same password, today's parameters, an event; and the password still works."""
    weak = CryptContext(schemes=["argon2"], argon2__memory_cost=1024, argon2__time_cost=1).hash(PASSWORD)
    await sql.execute("UPDATE users SET password_hash = $1 WHERE id = $2", weak, person.user.id)
    await person.sign_in()
    stored = await sql.fetchval("SELECT password_hash FROM users WHERE id = $1", person.user.id)
    assert "m=19456,t=2,p=1" in stored
    assert "password.rehashed" in [event["action"] for event in await events_of(person.user.id)]
    await person.sign_in()


async def test_a_weak_hash_is_renewed_once_by_many(person: Person, sql: asyncpg.Connection, events_of: Events) -> None:
    """Eight right sign-ins at once find the weak hash: all get in, and nobody is recorded as a failure."""
    weak = CryptContext(schemes=["argon2"], argon2__memory_cost=1024, argon2__time_cost=1).hash(PASSWORD)
    await sql.execute("UPDATE users SET password_hash = $1 WHERE id = $2", weak, person.user.id)
    issued = await asyncio.gather(*(person.sign_in() for _ in range(8)))
    assert len({one.session_id for one in issued}) == 8
    actions = [event["action"] for event in await events_of(person.user.id)]
    assert actions.count("password.rehashed") == 1
    assert "login.failed" not in actions


async def test_the_oldest_session_is_evicted(
    make_services: MakeServices, make_person: MakePerson, clock: MovableClock, events_of: Events
) -> None:
    """At the limit the oldest goes, with a reason; lapsed ones do not count."""
    person = await make_person(make_services(clock, max_sessions_per_user=2, refresh_idle_seconds=100))
    lapsed = await person.sign_in()
    clock.advance(seconds=100)
    first, second, third = [await person.sign_in() for _ in range(3)]
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(first.refresh_token)
    await person.refresh(second.refresh_token)
    await person.refresh(third.refresh_token)
    evicted = [event["family_id"] for event in await events_of(person.user.id) if event["reason"] == "evicted"]
    assert first.session_id in evicted
    assert lapsed.session_id not in evicted


async def test_no_limit(make_services: MakeServices, make_person: MakePerson, clock: MovableClock) -> None:
    """Zero means none."""
    person = await make_person(make_services(clock, max_sessions_per_user=0))
    issued = [await person.sign_in() for _ in range(4)]
    for one in issued:
        await person.refresh(one.refresh_token)


async def test_logout_reaches_the_access_token(person: Person, events_of: Events) -> None:
    """After the logout both tokens are dead; a second logout changes nothing."""
    issued = await person.sign_in()
    caller = await person.services.authentication.authenticate(issued.access_token)
    assert await person.services.sessions.log_out(caller, refresh_token=None, client=client_at())
    assert not await person.services.sessions.log_out(caller, refresh_token=None, client=client_at())
    with pytest.raises(AccessTokenRejected):
        await person.services.authentication.authenticate(issued.access_token)
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(issued.refresh_token)
    ends = [event for event in await events_of(person.user.id) if event["action"] == "session.ended"]
    assert [(event["reason"], event["actor_kind"]) for event in ends] == [("logout", "user")]


async def test_a_spent_refresh_token_logs_out(person: Person) -> None:
    """Whoever held any of a session's tokens may end it; a second time says it was over."""
    issued = await person.sign_in()
    following = await person.refresh(issued.refresh_token)
    sessions = person.services.sessions
    assert await sessions.log_out_with_refresh_token(issued.refresh_token, client=client_at()) == (
        issued.session_id,
        True,
    )
    assert await sessions.log_out_with_refresh_token(issued.refresh_token, client=client_at()) == (
        issued.session_id,
        False,
    )
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(following.refresh_token)


async def test_a_foreign_session_is_an_unknown_one(person: Person, make_person: MakePerson) -> None:
    """Somebody else's id cannot be told from one that never was."""
    theirs = await (await make_person()).sign_in()
    mine = await person.services.authentication.authenticate((await person.sign_in()).access_token)
    for attempt in (
        person.services.sessions.get(mine.user_id, theirs.session_id),
        person.services.sessions.label(mine, theirs.session_id, "x", client=client_at()),
        person.services.sessions.end(
            mine.user_id, theirs.session_id, actor=SYSTEM, client=client_at(), reason=EndReason.LOGOUT
        ),
    ):
        with pytest.raises(SessionNotFound):
            await attempt


async def test_password_change_ends_all_others(person: Person, events_of: Events) -> None:
    """The session it is made from lives on, the others are over, the old password is dead."""
    mine, other = await person.sign_in(), await person.sign_in()
    caller = await person.services.authentication.authenticate(mine.access_token)
    new = "a new password altogether"
    ended = await person.services.password_change.change(caller, current=PASSWORD, new=new, client=client_at())
    assert ended == 1
    await person.refresh(mine.refresh_token)
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(other.refresh_token)
    with pytest.raises(InvalidCredentials):
        await person.sign_in()
    assert await person.services.sign_in.with_password(person.username, new, client=client_at())
    actions = [(event["action"], event["reason"]) for event in await events_of(person.user.id)]
    assert ("password.changed", None) in actions
    assert ("session.ended", "password_change") in actions


@pytest.mark.parametrize(
    ("current", "new", "error"),
    [("wrong password", "a password of my own", InvalidCredentials), (PASSWORD, "short", PasswordRefused)],
)
async def test_a_refused_password_change_changes_nothing(
    person: Person, current: str, new: str, error: type[RotaError]
) -> None:
    """Wrong current password or a new one that may not be: all sessions live, the password is the old one."""
    mine, other = await person.sign_in(), await person.sign_in()
    caller = await person.services.authentication.authenticate(mine.access_token)
    with pytest.raises(error):
        await person.services.password_change.change(caller, current=current, new=new, client=client_at())
    await person.refresh(other.refresh_token)
    await person.sign_in()


async def test_a_session_that_ended_meanwhile_changes_no_password(person: Person) -> None:
    """The caller was let in, then their session was ended, then the hashing was done: too late."""
    thief, owner = await person.sign_in(), await person.sign_in()
    caller = await person.services.authentication.authenticate(thief.access_token)
    await person.services.sessions.log_out_with_refresh_token(thief.refresh_token, client=client_at())
    with pytest.raises(AccessTokenRejected):
        await person.services.password_change.change(
            caller, current=PASSWORD, new="a new password altogether", client=client_at()
        )
    await person.refresh(owner.refresh_token)
    await person.sign_in()


async def test_whoever_ends_a_lapsed_session_writes_that_it_lapsed(
    make_services: MakeServices, make_person: MakePerson, clock: MovableClock, events_of: Events
) -> None:
    """The limit that passed stays the reason, nobody is its actor, and it does not count as ended by the call."""
    person = await make_person(make_services(clock, refresh_idle_seconds=100, session_max_seconds=1000))
    lapsed, other = await person.sign_in(), await person.sign_in()
    clock.advance(seconds=100)
    mine = await person.services.authentication.authenticate((await person.sign_in()).access_token)
    sessions = person.services.sessions
    assert await sessions.log_out_with_refresh_token(lapsed.refresh_token, client=client_at()) == (
        lapsed.session_id,
        False,
    )
    assert await sessions.end_others(mine, client=client_at()) == 0
    ends = [event for event in await events_of(person.user.id) if event["action"] == "session.ended"]
    assert {event["family_id"] for event in ends} == {lapsed.session_id, other.session_id}
    assert {(event["reason"], event["actor_kind"]) for event in ends} == {("idle_timeout", "system")}


async def test_disable_and_enable(person: Person, clock: MovableClock) -> None:
    """Disabled: all sessions over, no sign-in. Enabled: sign-in, but nothing comes back to life."""
    issued = await person.sign_in()
    users = person.services.users
    assert await users.disable(person.user.id, actor=SYSTEM, client=client_at()) == 1
    assert await users.disable(person.user.id, actor=SYSTEM, client=client_at()) == 0
    with pytest.raises(InvalidCredentials):
        await person.sign_in()
    assert await users.enable(person.user.id, actor=SYSTEM, client=client_at())
    assert not await users.enable(person.user.id, actor=SYSTEM, client=client_at())
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(issued.refresh_token)
    await person.sign_in()


@pytest.mark.usefixtures("empty_database")
async def test_the_expiry_job_writes_what_is_so(
    make_services: MakeServices, make_person: MakePerson, clock: MovableClock, events_of: Events
) -> None:
    """Each lapsed session gets its end with the limit that passed, once; live ones are left alone."""
    person = await make_person(make_services(clock, refresh_idle_seconds=100, session_max_seconds=1000))
    idle, kept = await person.sign_in(), await person.sign_in()
    for _ in range(11):
        clock.advance(seconds=90)
        kept = await person.refresh(kept.refresh_token)
        while await person.services.housekeeping.end_lapsed_sessions():
            pass
    fresh = await person.sign_in()
    clock.advance(seconds=20)
    for _ in range(3):
        while await person.services.housekeeping.end_lapsed_sessions():
            pass
    ends = {e["family_id"]: e["reason"] for e in await events_of(person.user.id) if e["action"] == "session.ended"}
    assert ends == {idle.session_id: "idle_timeout", kept.session_id: "absolute_timeout"}
    assert (await person.refresh(fresh.refresh_token)).session_id == fresh.session_id


@pytest.mark.case(92)
async def test_partitions_are_made_ahead(person: Person, sql: asyncpg.Connection, clock: MovableClock) -> None:
    """Ninety days ahead, again and again, without touching what is there; then events fit in."""
    clock.advance(days=100)
    await person.services.housekeeping.make_partitions()
    await person.services.housekeeping.make_partitions()
    clock.advance(days=85)
    issued = await person.sign_in()
    assert (await person.refresh(issued.refresh_token)).session_id == issued.session_id
    names = [r["name"] for r in await sql.fetch("SELECT inhrelid::regclass::text AS name FROM pg_inherits ORDER BY 1")]
    assert f"audit_events_{clock.time + timedelta(days=4):%Y_%m}" in names


@pytest.mark.case(92)
async def test_without_a_partition_nothing_changes(
    make_services: MakeServices, make_person: MakePerson, clock: MovableClock, sql: asyncpg.Connection
) -> None:
    """If the event cannot be written, the refresh does not happen, and it is no refusal."""
    year = {"refresh_idle_seconds": 31_536_000, "session_max_seconds": 31_536_000}
    person = await make_person(make_services(clock, **year))
    issued = await person.sign_in()
    now = clock.time
    clock.advance(days=300)
    for attempt in (person.refresh(issued.refresh_token), person.sign_in()):
        with pytest.raises(Unavailable):
            await attempt
    assert await sql.fetchval("SELECT generation FROM families WHERE id = $1", issued.session_id) == 0
    assert await sql.fetchval("SELECT count(*) FROM families WHERE user_id = $1", person.user.id) == 1
    clock.time = now
    assert (await person.refresh(issued.refresh_token)).session_id == issued.session_id
