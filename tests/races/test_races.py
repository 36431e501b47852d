"""Two at once, with real commits, on engines of their own: two server processes as far as the database can tell."""

import asyncio
from collections import Counter
from collections.abc import Awaitable

import asyncpg
import pytest

from app.container import Container
from app.domain.errors import InvalidCredentials, RefreshTokenRejected, RotaError, TooBusy, Unavailable
from app.domain.events import SYSTEM
from app.services.authentication import Caller
from app.services.tokens import IssuedTokens
from tests.conftest import PASSWORD, Events, MakePerson, MakeServices, Person, client_at

ROUNDS = 8


async def settle(*attempts: Awaitable[object]) -> list[object]:
    """Run all at once; results or refusals, anything else is raised."""
    results = await asyncio.gather(*attempts, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, RotaError):
            raise result
    return list(results)


@pytest.mark.case(1)
@pytest.mark.case(2)
@pytest.mark.parametrize("parallel", [2, 8, 64])
async def test_one_token_used_at_once_has_one_successor(
    make_services: MakeServices, make_person: MakePerson, events_of: Events, parallel: int
) -> None:
    """Through two engines: all get the same successor, nobody is logged out, one event of a refresh."""
    engines = [make_services(), make_services()]
    for _ in range(ROUNDS):
        person = await make_person(engines[0])
        issued = await person.sign_in()
        results = await settle(
            *(
                engines[number % 2].refresh.rotate(issued.refresh_token, idempotency_key=None, client=client_at())
                for number in range(parallel)
            )
        )
        assert all(isinstance(result, IssuedTokens) for result in results)
        assert len({result.refresh_token for result in results if isinstance(result, IssuedTokens)}) == 1
        actions = Counter(event["action"] for event in await events_of(person.user.id))
        assert actions["session.refreshed"] == 1
        assert actions["session.replayed"] == 1
        assert actions["session.ended"] == 0


async def test_without_grace_a_race_is_reuse_and_ends_the_family(
    make_services: MakeServices, make_person: MakePerson, sql: asyncpg.Connection
) -> None:
    """Grace 0: of two uses at once at most one gets a pair, and the family is over."""
    engines = [make_services(refresh_grace_seconds=0), make_services(refresh_grace_seconds=0)]
    for _ in range(ROUNDS):
        person = await make_person(engines[0])
        issued = await person.sign_in()
        results = await settle(
            *(e.refresh.rotate(issued.refresh_token, idempotency_key=None, client=client_at()) for e in engines)
        )
        assert sum(isinstance(result, IssuedTokens) for result in results) == 1
        reason = await sql.fetchval("SELECT end_reason FROM families WHERE id = $1", issued.session_id)
        assert reason == "reuse"


@pytest.mark.case(7)
@pytest.mark.case(8)
@pytest.mark.parametrize("ender", ["logout", "password change", "disable", "end others"])
async def test_no_live_token_after_an_acknowledged_end(
    make_services: MakeServices, make_person: MakePerson, events_of: Events, ender: str
) -> None:
    """A refresh races an end: whoever wins, afterwards nothing refreshes, and the counter has no gap."""
    engines = [make_services(), make_services()]
    for _ in range(ROUNDS):
        person = await make_person(engines[0])
        victim, other = await person.sign_in(), await person.sign_in()
        caller = await engines[1].authentication.authenticate(other.access_token)
        results = await settle(
            _end(engines[1], ender, person, victim, caller), _chain(engines[0], victim.refresh_token, 40)
        )
        assert not isinstance(results[0], RotaError)
        chain = results[1]
        assert isinstance(chain, list)
        for token in [victim.refresh_token, *chain][-2:]:
            with pytest.raises(RefreshTokenRejected):
                await engines[0].refresh.rotate(token, idempotency_key=None, client=client_at())
        numbers = [e["family_seq"] for e in await events_of(person.user.id) if e["family_id"] == victim.session_id]
        counted = [number for number in numbers if number is not None]
        assert counted == list(range(1, len(counted) + 1))


async def _end(engine: Container, how: str, person: Person, victim: IssuedTokens, caller: Caller) -> None:
    match how:
        case "logout":
            await engine.sessions.log_out_with_refresh_token(victim.refresh_token, client=client_at())
        case "password change":
            new = "another zeppelin ride"
            await engine.password_change.change(caller, current=PASSWORD, new=new, client=client_at())
        case "disable":
            await engine.users.disable(person.user.id, actor=SYSTEM, client=client_at())
        case _:
            await engine.sessions.end_others(caller, client=client_at())


async def _chain(engine: Container, token: str, length: int) -> list[str]:
    """Refresh again and again until refused; the tokens got."""
    got: list[str] = []
    for _ in range(length):
        try:
            issued = await engine.refresh.rotate(token, idempotency_key=None, client=client_at())
        except RefreshTokenRejected:
            break
        token = issued.refresh_token
        got.append(token)
    return got


@pytest.mark.case(7)
async def test_no_sign_in_slips_past_a_password_change(
    make_services: MakeServices, make_person: MakePerson, sql: asyncpg.Connection
) -> None:
    """A sign-in verified against the old password either ends with the change or is refused."""
    engines = [make_services(), make_services()]
    for _ in range(ROUNDS):
        person = await make_person(engines[0])
        caller = await engines[0].authentication.authenticate((await person.sign_in()).access_token)
        await settle(
            engines[1].password_change.change(
                caller, current=PASSWORD, new="another zeppelin ride", client=client_at()
            ),
            *(engines[0].sign_in.with_password(person.username, PASSWORD, client=client_at()) for _ in range(3)),
        )
        live = await sql.fetch("SELECT id FROM families WHERE user_id = $1 AND ended_at IS NULL", person.user.id)
        assert [row["id"] for row in live] == [caller.session_id]


@pytest.mark.case(7)
async def test_no_sign_in_slips_past_a_disabling(
    make_services: MakeServices, make_person: MakePerson, sql: asyncpg.Connection
) -> None:
    """After the user is disabled no session lives, whatever was under way."""
    engines = [make_services(), make_services()]
    for _ in range(ROUNDS):
        person = await make_person(engines[0])
        results = await settle(
            engines[1].users.disable(person.user.id, actor=SYSTEM, client=client_at()),
            *(engines[0].sign_in.with_password(person.username, PASSWORD, client=client_at()) for _ in range(3)),
        )
        assert all(isinstance(r, int | IssuedTokens | InvalidCredentials) for r in results)
        live = await sql.fetchval(
            "SELECT count(*) FROM families WHERE user_id = $1 AND ended_at IS NULL", person.user.id
        )
        assert live == 0


@pytest.mark.case(9)
async def test_fifty_sign_ins_at_a_limit_of_five(
    make_services: MakeServices, make_person: MakePerson, sql: asyncpg.Connection, events_of: Events
) -> None:
    """At most five live, forty-five ended as evicted, each with its event."""
    engines = [make_services(max_sessions_per_user=5), make_services(max_sessions_per_user=5)]
    person = await make_person(engines[0])

    async def sign_in(services: Container) -> None:
        while True:
            try:
                await services.sign_in.with_password(person.username, PASSWORD, client=client_at())
            except TooBusy:
                raise
            except Unavailable:  # all of them want the user's row; on a slow machine the last may wait too long
                continue
            return

    await asyncio.gather(*(sign_in(engines[number % 2]) for number in range(50)))
    rows = await sql.fetch("SELECT end_reason FROM families WHERE user_id = $1", person.user.id)
    assert Counter(row["end_reason"] for row in rows) == {None: 5, "evicted": 45}
    actions = Counter(event["action"] for event in await events_of(person.user.id))
    assert (actions["session.created"], actions["session.ended"]) == (50, 45)


@pytest.mark.case(8)
async def test_two_logouts_end_it_once(make_services: MakeServices, make_person: MakePerson, events_of: Events) -> None:
    """Both succeed, one of them did it, one event."""
    engines = [make_services(), make_services()]
    for _ in range(ROUNDS):
        person = await make_person(engines[0])
        issued = await person.sign_in()
        results = await settle(
            *(e.sessions.log_out_with_refresh_token(issued.refresh_token, client=client_at()) for e in engines * 2)
        )
        assert sorted(result[1] for result in results if isinstance(result, tuple)) == [False, False, False, True]
        actions = Counter(event["action"] for event in await events_of(person.user.id))
        assert actions["session.ended"] == 1


async def test_one_name_registered_at_once(make_services: MakeServices) -> None:
    """One account, however many want it."""
    engines = [make_services(), make_services()]
    name = f"wanted-{id(engines)}"
    results = await settle(
        *(e.users.register(spelled, PASSWORD, client=client_at()) for e in engines for spelled in (name, name.upper()))
    )
    assert Counter(getattr(result, "code", "made") for result in results) == {"made": 1, "username_taken": 3}


async def test_two_processes_do_not_do_the_same_job(
    make_services: MakeServices, make_person: MakePerson, events_of: Events
) -> None:
    """Two expiry jobs at once write one end each session."""
    engines = [make_services(refresh_idle_seconds=1), make_services(refresh_idle_seconds=1)]
    person = await make_person(engines[0])
    issued = [await person.sign_in() for _ in range(5)]
    await asyncio.sleep(1.1)
    for _ in range(3):
        await settle(*(engine.housekeeping.end_lapsed_sessions() for engine in engines))
    ends = [event["family_id"] for event in await events_of(person.user.id) if event["action"] == "session.ended"]
    assert sorted(ends) == sorted(one.session_id for one in issued)
