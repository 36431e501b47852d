"""Each row of the refresh table, through the database: the answer, the family, the trail."""

import asyncio
from ipaddress import ip_address
from uuid import UUID

import asyncpg
import pytest

from app.domain.errors import InvalidCredentials, RefreshTokenRejected, RotaError, Unavailable
from app.domain.refresh_token import build, parse
from app.security.keys import Keyring
from tests.conftest import SECRET, Events, MakePerson, MakeServices, MovableClock, Person, client_at

RING = Keyring([SECRET.encode()])
KEY = "a-key-of-twenty-two-characters-or-more"


async def family(sql: asyncpg.Connection, session_id: UUID) -> asyncpg.Record:
    row = await sql.fetchrow("SELECT * FROM families WHERE id = $1", session_id)
    assert row is not None
    return row


async def forge(sql: asyncpg.Connection, session_id: UUID, generation: int, seed: bytes | None = None) -> str:
    """The token of any generation, as a thief with the whole server could make it."""
    row = await family(sql, session_id)
    return build(
        RING.minting, user_id=row["user_id"], family_id=session_id, generation=generation, seed=seed or row["seed"]
    )


def actions(events: list[asyncpg.Record]) -> list[str]:
    return [event["action"] for event in events]


def assert_numbered(events: list[asyncpg.Record], row: asyncpg.Record) -> None:
    """The family's events are numbered 1..n, and n is on its row."""
    numbers = [event["family_seq"] for event in events if event["family_seq"] is not None]
    assert numbers == list(range(1, row["event_seq"] + 1))


async def test_rotation(person: Person, sql: asyncpg.Connection, events_of: Events, clock: MovableClock) -> None:
    """The next generation, the idle limit moved, the absolute one not, one event."""
    first = await person.sign_in()
    before = await family(sql, first.session_id)
    clock.advance(hours=1)
    second = await person.refresh(first.refresh_token, address="198.51.100.9")
    row = await family(sql, first.session_id)
    assert second.session_id == first.session_id
    assert (row["generation"], row["rotated_at"]) == (1, clock.time)
    assert row["idle_expires_at"] == before["idle_expires_at"] + (clock.time - before["created_at"])
    assert row["expires_at"] == before["expires_at"]
    assert (row["created_ip"], row["last_ip"]) == (ip_address("203.0.113.7"), ip_address("198.51.100.9"))
    events = await events_of(person.user.id)
    assert actions(events) == ["user.created", "session.created", "session.refreshed"]
    assert events[-1]["generation"] == 1
    assert events[-1]["ip"] == ip_address("198.51.100.9")
    assert events[-1]["user_agent"] == row["user_agent"]
    assert events[-1]["request_id"] is not None
    assert_numbered(events, row)


async def test_a_hundred_generations_in_a_row(person: Person, sql: asyncpg.Connection) -> None:
    """Each token leads to the next, and none is like another."""
    issued = await person.sign_in()
    seen = {issued.refresh_token}
    for _ in range(100):
        issued = await person.refresh(issued.refresh_token)
        seen.add(issued.refresh_token)
    assert len(seen) == 101
    assert (await family(sql, issued.session_id))["generation"] == 100


@pytest.mark.case(4)
async def test_replay_within_grace(
    person: Person, sql: asyncpg.Connection, events_of: Events, clock: MovableClock
) -> None:
    """The same successor, as often as one likes, and one event for all of it."""
    first = await person.sign_in()
    second = await person.refresh(first.refresh_token)
    clock.advance(seconds=9.999999)
    again = [await person.refresh(first.refresh_token) for _ in range(3)]
    assert {issued.refresh_token for issued in again} == {second.refresh_token}
    assert len({issued.access_token for issued in again}) == 3
    events = await events_of(person.user.id)
    assert actions(events)[1:] == ["session.created", "session.refreshed", "session.replayed"]
    assert_numbered(events, await family(sql, first.session_id))


async def test_replay_late_with_the_key_of_that_rotation(
    person: Person, events_of: Events, clock: MovableClock
) -> None:
    """A phone that lost our answer for an hour is not a thief."""
    first = await person.sign_in()
    second = await person.refresh(first.refresh_token, KEY)
    clock.advance(minutes=59)
    assert (await person.refresh(first.refresh_token, KEY)).refresh_token == second.refresh_token
    assert (await events_of(person.user.id))[-1]["reason"] == "idempotency_key"


@pytest.mark.parametrize(
    ("minutes", "key"), [(59, KEY + "x"), (59, None), (60, KEY)], ids=["another key", "no key", "too late"]
)
async def test_late_without_that_key_is_reuse(
    person: Person, clock: MovableClock, sql: asyncpg.Connection, minutes: int, key: str | None
) -> None:
    """Only the very request that rotated may be repeated, and not for ever."""
    first = await person.sign_in()
    await person.refresh(first.refresh_token, KEY)
    clock.advance(minutes=minutes)
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(first.refresh_token, key)
    assert (await family(sql, first.session_id))["end_reason"] == "reuse"


@pytest.mark.case(4)
async def test_reuse_ends_the_family_and_leads_to_both_presenters(
    person: Person, sql: asyncpg.Connection, events_of: Events, clock: MovableClock
) -> None:
    """Both tokens are dead, and the event holds one presenter and names the other's event."""
    first = await person.sign_in()
    second = await person.refresh(first.refresh_token)
    clock.advance(seconds=10)
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(first.refresh_token, address="198.51.100.9")
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(second.refresh_token)
    row = await family(sql, first.session_id)
    assert (row["end_reason"], row["ended_at"], row["ended_xact"] is not None) == ("reuse", clock.time, True)
    events = await events_of(person.user.id)
    by_action = {event["action"]: event for event in events}
    reused = by_action["refresh.reused"]
    assert reused["ip"] == ip_address("198.51.100.9")
    assert reused["outcome"] == "failure"
    assert f'"rotation_event":"{by_action["session.refreshed"]["id"]}"' in reused["detail"]
    assert by_action["session.ended"]["reason"] == "reuse"
    assert_numbered(events, row)


@pytest.mark.case(6)
async def test_a_grandparent_is_reuse_even_within_grace(person: Person, sql: asyncpg.Connection) -> None:
    """Grace is for the token just spent."""
    first = await person.sign_in()
    second = await person.refresh(first.refresh_token)
    await person.refresh(second.refresh_token)
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(first.refresh_token)
    assert (await family(sql, first.session_id))["end_reason"] == "reuse"


@pytest.mark.case(16)
@pytest.mark.parametrize(
    ("settings", "seconds", "reason"),
    [
        ({"refresh_idle_seconds": 100}, 100, "idle_timeout"),
        ({"session_max_seconds": 100}, 100, "absolute_timeout"),
    ],
    ids=["idle", "absolute"],
)
async def test_expiry_is_exact_and_written(
    make_services: MakeServices,
    make_person: MakePerson,
    clock: MovableClock,
    sql: asyncpg.Connection,
    events_of: Events,
    settings: dict[str, int],
    seconds: int,
    reason: str,
) -> None:
    """A microsecond before: a pair. At the limit: 401, the end and its event."""
    person = await make_person(make_services(clock, **settings))
    early, late = await person.sign_in(), await person.sign_in()
    clock.advance(seconds=seconds - 0.000001)
    assert (await person.refresh(early.refresh_token)).expires_in <= 900
    clock.advance(seconds=0.000001)
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(late.refresh_token)
    assert (await family(sql, late.session_id))["end_reason"] == reason
    last = (await events_of(person.user.id))[-1]
    assert (last["action"], last["reason"], last["actor_kind"]) == ("session.ended", reason, "system")


@pytest.mark.case(16)
async def test_rotation_never_moves_the_absolute_end(
    make_services: MakeServices, make_person: MakePerson, clock: MovableClock
) -> None:
    """Refreshed again and again, a session still ends on time, and its access tokens with it."""
    person = await make_person(make_services(clock, session_max_seconds=1000, refresh_idle_seconds=400))
    issued = await person.sign_in()
    for _ in range(3):
        clock.advance(seconds=300)
        issued = await person.refresh(issued.refresh_token)
    assert issued.expires_in <= 100
    assert issued.refresh_expires_in == 100
    clock.advance(seconds=100)
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(issued.refresh_token)


async def test_refusals_of_an_ended_family_are_rolled_up(
    person: Person, sql: asyncpg.Connection, events_of: Events, clock: MovableClock
) -> None:
    """Fifty refusals in a minute: one event at once, one for the other forty-nine, and the family row untouched."""
    clock.time = clock.time.replace(second=5)
    issued = await person.sign_in()
    caller = await person.services.authentication.authenticate(issued.access_token)
    await person.services.sessions.log_out(caller, refresh_token=None, client=client_at())
    before = await family(sql, issued.session_id)
    for _ in range(50):
        with pytest.raises(RefreshTokenRejected):
            await person.refresh(issued.refresh_token)
    assert await family(sql, issued.session_id) == before
    assert actions(await events_of(person.user.id)).count("refresh.refused") == 1
    clock.advance(minutes=1)
    while await person.services.housekeeping.sum_up_refusals():
        pass
    refused = [event for event in await events_of(person.user.id) if event["action"] == "refresh.refused"]
    assert len(refused) == 2
    assert refused[0]["reason"] == "logout"
    assert '"count":49' in refused[1]["detail"]
    assert await sql.fetchval("SELECT count(*) FROM refusals WHERE user_id = $1", person.user.id) == 0


async def test_a_wrong_proof_ends_nothing(person: Person, sql: asyncpg.Connection, events_of: Events) -> None:
    """Forged for the live, a past or a future generation: 401, an event, and the session lives on."""
    issued = await person.sign_in()
    issued = await person.refresh(issued.refresh_token)
    for generation in (0, 1, 2, 2**31 - 1):
        with pytest.raises(RefreshTokenRejected):
            await person.refresh(await forge(sql, issued.session_id, generation, seed=b"x" * 32))
    assert (await family(sql, issued.session_id))["ended_at"] is None
    forged = [event for event in await events_of(person.user.id) if event["action"] == "refresh.forged"]
    assert len(forged) == 1
    assert forged[0]["family_seq"] is None
    assert (await person.refresh(issued.refresh_token)).session_id == issued.session_id


@pytest.mark.case(19)
async def test_a_token_whose_session_is_gone_is_refused(
    person: Person, sql: asyncpg.Connection, events_of: Events
) -> None:
    """A row deleted by hand: the token is dead and the trail says so."""
    issued = await person.sign_in()
    await sql.execute("DELETE FROM families WHERE id = $1", issued.session_id)
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(issued.refresh_token)
    last = (await events_of(person.user.id))[-1]
    assert (last["action"], last["reason"]) == ("refresh.refused", "unknown_session")


@pytest.mark.case(22)
@pytest.mark.parametrize("lost", [1, 2])
async def test_a_lost_tail_is_fast_forwarded(
    person: Person, sql: asyncpg.Connection, events_of: Events, lost: int
) -> None:
    """After a failover that lost one or two rotations, the client goes on, and the trail says what was lost."""
    issued = await person.sign_in()
    ahead = await forge(sql, issued.session_id, lost)
    following = await person.refresh(ahead)
    row = await family(sql, issued.session_id)
    assert row["generation"] == lost + 1
    assert following.refresh_token == await forge(sql, issued.session_id, lost + 1)
    events = await events_of(person.user.id)
    assert events[-1]["action"] == "session.fast_forwarded"
    assert events[-1]["detail"] == f'{{"lost_generations":{lost}}}'
    assert_numbered(events, row)
    assert (await person.refresh(ahead)).refresh_token == following.refresh_token


@pytest.mark.case(22)
async def test_a_restored_copy_ends_the_family(person: Person, sql: asyncpg.Connection) -> None:
    """Three generations ahead is no failover."""
    issued = await person.sign_in()
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(await forge(sql, issued.session_id, 3))
    assert (await family(sql, issued.session_id))["end_reason"] == "restore"


async def test_three_strangers_in_a_row_are_suspected(
    person: Person, events_of: Events, clock: MovableClock, sql: asyncpg.Connection
) -> None:
    """Replays from another network in three generations running raise the event."""
    issued = await person.sign_in()
    for _ in range(3):
        spent = issued.refresh_token
        issued = await person.refresh(spent)
        await person.refresh(spent, address="198.51.100.9")
        clock.advance(minutes=5)
    events = await events_of(person.user.id)
    assert actions(events).count("session.ride_along_suspected") == 1
    assert actions(events).count("session.replayed") == 3
    assert_numbered(events, await family(sql, issued.session_id))


async def test_noise_costs_no_query(make_services: MakeServices) -> None:
    """Without a tag of ours, the database is not even connected to."""
    services = make_services(url="postgresql://nobody@127.0.0.1:1/nowhere")
    with pytest.raises(RefreshTokenRejected):
        await services.refresh.rotate("rota_rt_" + "A" * 104, idempotency_key=None, client=client_at())


async def test_a_database_that_is_away_is_no_refusal(person: Person, make_services: MakeServices) -> None:
    """Clients throw their tokens away on a refusal; they must not on an outage."""
    issued = await person.sign_in()
    services = make_services(url="postgresql://nobody@127.0.0.1:1/nowhere")
    with pytest.raises(Unavailable):
        await services.refresh.rotate(issued.refresh_token, idempotency_key=None, client=client_at())


async def test_a_lock_that_is_not_released_is_no_refusal(
    person: Person, database_url: str, sql: asyncpg.Connection
) -> None:
    """Somebody sits on the row: 503, and afterwards the token still works."""
    issued = await person.sign_in()
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await other.execute("SELECT 1 FROM families WHERE id = $1 FOR UPDATE", issued.session_id)
            with pytest.raises(Unavailable):
                await person.refresh(issued.refresh_token)
    finally:
        await other.close()
    assert (await person.refresh(issued.refresh_token)).session_id == issued.session_id


async def test_a_rotation_that_waited_is_dated_after_what_it_waited_for(
    make_services: MakeServices, make_person: MakePerson, database_url: str, sql: asyncpg.Connection
) -> None:
    """The family's times never go back, whoever came first."""
    person = await make_person(make_services())
    issued = await person.sign_in()
    other = await asyncpg.connect(database_url)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("UPDATE families SET label = 'x' WHERE id = $1", issued.session_id)
    waiting = asyncio.create_task(person.refresh(issued.refresh_token))
    await asyncio.sleep(0.1)
    released = await other.fetchval("SELECT clock_timestamp()")
    await transaction.commit()
    await other.close()
    await waiting
    assert (await family(sql, issued.session_id))["rotated_at"] > released


async def test_a_long_trail_does_not_keep_reuse_alive(
    person: Person, sql: asyncpg.Connection, clock: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other presenter's event cannot be found in time: the family ends all the same."""
    from app.repositories import audit  # noqa: PLC0415 - for its limit

    issued = await person.sign_in()
    await person.refresh((await person.refresh(issued.refresh_token)).refresh_token)
    await sql.execute(
        "INSERT INTO audit_events (occurred_at, version, id, subject_id, action, outcome, actor_kind)"
        " SELECT $2::timestamptz + n * interval '1 microsecond', 1, gen_random_uuid(), $1, 'login.failed', 'failure',"
        " 'anonymous' FROM generate_series(1, 50000) AS n",
        person.user.id,
        clock.time,
    )
    monkeypatch.setattr(audit, "LOOKUP_MILLISECONDS", 1)
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(issued.refresh_token)
    assert (await family(sql, issued.session_id))["end_reason"] == "reuse"


async def test_all_refusals_look_the_same(person: Person, sql: asyncpg.Connection, clock: MovableClock) -> None:
    """Code and message do not tell noise from forged, ended, reused or unknown."""
    issued = await person.sign_in()
    forged = await forge(sql, issued.session_id, 0, seed=b"x" * 32)
    await person.refresh(issued.refresh_token)
    clock.advance(minutes=1)
    seen: set[tuple[str, str]] = set()
    for token in ("noise", forged, issued.refresh_token, issued.refresh_token):
        try:
            await person.refresh(token)
        except RotaError as error:
            seen.add((error.code, error.message))
    assert seen == {("refresh_token_rejected", "The refresh token is not valid.")}


async def test_secrets_can_be_changed_under_live_sessions(
    make_services: MakeServices, make_person: MakePerson, clock: MovableClock
) -> None:
    """Append the new one, move it to the front, drop the old one: whoever refreshes meanwhile stays signed in."""
    old, new = SECRET, "another-secret-another-secret-another-secret"
    stages = [make_services(clock, secrets=value) for value in (old, f"{old},{new}", f"{new},{old}", new)]
    person = await make_person(stages[0])
    issued = await person.sign_in()
    for services in stages:
        await services.authentication.authenticate(issued.access_token)
        issued = await services.refresh.rotate(issued.refresh_token, idempotency_key=None, client=client_at())
    late = await person.sign_in()
    with pytest.raises(RefreshTokenRejected):
        await stages[3].refresh.rotate(late.refresh_token, idempotency_key=None, client=client_at())


async def test_the_database_holds_no_token(person: Person, sql: asyncpg.Connection) -> None:
    """Neither a token, nor its proof, nor the proof's digest stands anywhere in the tables."""
    issued = await person.sign_in()
    issued = await person.refresh(issued.refresh_token, KEY)
    token = parse(issued.refresh_token, RING.token_keys)
    assert token is not None
    dump = ""
    for table in ("users", "families", "audit_events", "refusals"):
        rows = await sql.fetch(f"SELECT t::text AS row FROM {table} AS t")
        dump += "\n".join(row["row"] for row in rows)
    assert issued.session_id.hex in dump.replace("-", "")
    for secret in (issued.refresh_token, issued.access_token, KEY, token.proof.hex(), token.proof_digest.hex()):
        assert secret not in dump


async def test_a_wrong_password_is_no_refresh_error(person: Person) -> None:
    """Sign-in errors have their own code."""
    with pytest.raises(InvalidCredentials):
        await person.services.sign_in.with_password(person.username, "wrong password", client=client_at())
