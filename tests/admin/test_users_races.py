"""Two at once, on engines of their own: there is always an administrator, and no session has a role that was lost."""

import asyncio
from collections import Counter

import pytest

from app.container import Container
from app.domain.errors import (
    AccessTokenRejected,
    InvalidCredentials,
    LastAdministrator,
    RotaError,
    UsernameTaken,
    UserNotFound,
)
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.user_changes import UserChange
from app.domain.users import Role
from app.services.acting import Acting
from app.services.tokens import IssuedTokens
from tests.admin.conftest import Office
from tests.conftest import PASSWORD, MakeServices, OwnDatabase, Person, client_at
from tests.races.test_races import settle

ROUNDS = 8
ACTING = "SELECT count(*) FROM users WHERE role = 'admin' AND disabled_at IS NULL AND deleted_at IS NULL"

BY_SYSTEM = Acting(SYSTEM, NO_CLIENT)


async def weaken(services: Container, person: Person, how: str, by: Acting) -> object:
    match how:
        case "demote":
            return await services.users.change(person.user.id, UserChange(role=Role.USER), by=by)
        case "disable":
            return await services.users.change(person.user.id, UserChange(disabled=True), by=by)
        case "delete":
            return await services.users.delete(person.user.id, by=by)
    return await services.erasure.erase(person.user.id, "ticket", actor=by.actor, client=by.client)


@pytest.mark.parametrize(
    ("one", "other"), [("demote", "demote"), ("disable", "delete"), ("delete", "delete"), ("erase", "demote")]
)
async def test_the_last_two_administrators_at_once(
    office: Office, own: OwnDatabase, make_services: MakeServices, one: str, other: str
) -> None:
    """Each takes the other's power at the same moment, by the system's hand: one is left, whoever it is."""
    engines = [make_services(url=own.app, maintenance_database_url=own.maintenance) for _ in range(2)]
    first = office.admin
    for _ in range(ROUNDS):
        second = await office.person(role=Role.ADMIN)
        results = await settle(
            weaken(engines[0], first, one, BY_SYSTEM),
            weaken(engines[1], second, other, BY_SYSTEM),
        )
        assert await office.sql.fetchval(ACTING) == 1
        assert Counter(isinstance(result, LastAdministrator) for result in results) == {True: 1, False: 1}
        first = second if isinstance(results[1], LastAdministrator) else first


async def test_two_administrators_demote_each_other_at_once(
    office: Office, own: OwnDatabase, make_services: MakeServices
) -> None:
    """Of three, two turn on each other, each from a session of their own: one wins, the other's session is over."""
    engines = [make_services(url=own.app), make_services(url=own.app)]
    for _ in range(ROUNDS):
        pair = [await office.person(role=Role.ADMIN) for _ in range(2)]
        callers = [
            await engines[number].authentication.authenticate((await person.sign_in()).access_token)
            for number, person in enumerate(pair)
        ]
        results = await settle(
            *(
                weaken(engines[n], pair[1 - n], "demote", Acting(callers[n].as_admin, client_at(), callers[n]))
                for n in range(2)
            )
        )
        assert Counter(isinstance(result, AccessTokenRejected) for result in results) == {True: 1, False: 1}
        assert await office.sql.fetchval(ACTING) == 2
        loser = pair[0] if isinstance(results[0], AccessTokenRejected) else pair[1]
        winner = pair[1] if loser is pair[0] else pair[0]
        assert (await office.services.users.get(loser.user.id)).role is Role.USER
        await engines[0].users.delete(winner.user.id, by=BY_SYSTEM)


@pytest.mark.parametrize("how", ["demote", "disable", "delete"])
async def test_no_sign_in_slips_past(office: Office, own: OwnDatabase, make_services: MakeServices, how: str) -> None:
    """Sign-ins under way while the user is weakened: what lives afterwards has the role that the user has."""
    engines = [make_services(url=own.app), make_services(url=own.app)]
    seen = Counter[str]()
    for turn in range(ROUNDS):
        person = await office.person(role=Role.AUDITOR)

        async def later(person: Person = person, turn: int = turn) -> object:
            await asyncio.sleep(0.01 * turn)  # amid the hashing of the sign-ins, each time at another point
            return await weaken(engines[1], person, how, BY_SYSTEM)

        results = await settle(later(), *(_sign_in(engines[0], person) for _ in range(4)))
        assert all(isinstance(result, IssuedTokens | InvalidCredentials) for result in results[1:])
        live = await office.sql.fetch(
            "SELECT role FROM families WHERE user_id = $1 AND ended_at IS NULL", person.user.id
        )
        assert {row["role"] for row in live} <= ({"user"} if how == "demote" else set())
        seen.update("in" if isinstance(result, IssuedTokens) else "out" for result in results[1:])
    assert seen["in"] + seen["out"] == 4 * ROUNDS


async def _sign_in(services: Container, person: Person) -> IssuedTokens:
    return await services.sign_in.with_password(person.username, PASSWORD, client=client_at())


async def test_a_sign_in_takes_the_role_that_is_locked(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Demoted between the reading of the name and the lock: the session has the new role, not the one first read."""
    person = await office.person(role=Role.AUDITOR)
    honest = office.services.hasher.verify

    async def verify(password: str, stored: str | None) -> bool:
        right = await honest(password, stored)
        await office.services.users.change(person.user.id, UserChange(role=Role.USER), by=BY_SYSTEM)
        return right

    monkeypatch.setattr(office.services.hasher, "verify", verify)
    issued = await person.sign_in()
    assert await office.sql.fetchval("SELECT role FROM families WHERE id = $1", issued.session_id) == "user"


async def test_one_name_wanted_at_once(office: Office, own: OwnDatabase, make_services: MakeServices) -> None:
    """Renamed to, invited and registered at the same moment: one gets the name, the others are told."""
    engines = [make_services(url=own.app), make_services(url=own.app)]
    for turn in range(ROUNDS):
        people = [await office.person() for _ in range(3)]
        name = f"wanted-{turn}"
        results = await settle(
            *(
                engines[n % 2].users.change(person.user.id, UserChange(username=spelled), by=BY_SYSTEM)
                for n, (person, spelled) in enumerate(zip(people, (name, name.upper(), name.title()), strict=True))
            ),
            engines[0].users.register(name, "a password of mine", client=client_at()),
        )
        assert Counter(isinstance(result, UsernameTaken) for result in results) == {True: 3, False: 1}


async def test_the_same_change_at_once_happens_once(
    office: Office, own: OwnDatabase, make_services: MakeServices
) -> None:
    """Eight disable, eight delete: one of each has done it, the rest find it done; an event of each."""
    engines = [make_services(url=own.app), make_services(url=own.app)]
    person = await office.person()
    await person.sign_in()
    disabled = await settle(*(weaken(engines[n % 2], person, "disable", BY_SYSTEM) for n in range(8)))
    deleted = await settle(*(weaken(engines[n % 2], person, "delete", BY_SYSTEM) for n in range(8)))
    for results in (disabled, deleted):
        assert Counter(getattr(result, "changed", None) for result in results) == {True: 1, False: 7}
    actions = Counter(event["action"] for event in await office.events(person.user.id))
    assert actions == {"user.disabled": 1, "user.deleted": 1, "session.ended": 1}


async def test_a_change_whose_actor_was_shut_out_meanwhile(office: Office) -> None:
    """The request passed the guard before the actor's session ended: refused under the lock, nothing is changed."""
    actor, target = await office.person(role=Role.ADMIN), await office.person()
    caller = await office.services.authentication.authenticate((await actor.sign_in()).access_token)
    await office.services.users.disable(actor.user.id, actor=SYSTEM, client=NO_CLIENT)
    by = Acting(caller.as_admin, client_at(), caller)
    attempts = await asyncio.gather(
        office.services.users.change(target.user.id, UserChange(disabled=True), by=by),
        office.services.users.delete(target.user.id, by=by),
        office.services.credentials.reset(target.user.id, forget=True, by=by),
        return_exceptions=True,
    )
    assert [type(attempt) for attempt in attempts] == [AccessTokenRejected] * 3
    assert await office.events(target.user.id) == []
    with pytest.raises(RotaError) as unknown:
        await office.services.users.delete(caller.session_id, by=BY_SYSTEM)
    assert isinstance(unknown.value, UserNotFound)
