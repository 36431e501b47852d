"""A client that leaves: whatever await it happens at, no open transaction, no lock, nothing half done."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import asyncpg
import pytest

from app.container import Container
from app.domain.errors import RotaError
from app.domain.events import SYSTEM
from tests.conftest import PASSWORD, MakePerson, MakeServices, Person, client_at

Operation = Callable[[Person, Any], Awaitable[object]]


class CancelledAt:
    """Awaits something, and cancels the awaiting task at its n-th suspension."""

    def __init__(self, inner: Awaitable[object], n: int) -> None:
        self._inner = inner
        self._left = n

    def __await__(self) -> Generator[Any, Any, object]:
        steps = self._inner.__await__()
        try:
            waiting = next(steps)
            while True:
                self._left -= 1
                if self._left == 0:
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                try:
                    sent = yield waiting
                except BaseException as error:  # noqa: BLE001 - handed on
                    waiting = steps.throw(error)
                else:
                    waiting = steps.send(sent)
        except StopIteration as done:
            return done.value


async def _sign_in(person: Person, _: Any) -> object:
    return await person.sign_in()


async def _refresh(person: Person, issued: Any) -> object:
    return await person.refresh(issued.refresh_token)


async def _replay(person: Person, issued: Any) -> object:
    return await person.refresh(issued.spent)


async def _log_out(person: Person, issued: Any) -> object:
    return await person.services.sessions.log_out_with_refresh_token(issued.refresh_token, client=client_at())


async def _change_password(person: Person, issued: Any) -> object:
    caller = await person.services.authentication.authenticate(issued.access_token)
    return await person.services.password_change.change(
        caller, current=PASSWORD, new="another zeppelin ride", client=client_at()
    )


async def _disable(person: Person, _: Any) -> object:
    return await person.services.users.disable(person.user.id, actor=SYSTEM, client=client_at())


async def _end_others(person: Person, issued: Any) -> object:
    caller = await person.services.authentication.authenticate(issued.access_token)
    return await person.services.sessions.end_others(caller, client=client_at())


async def _register(person: Person, issued: Any) -> object:
    return await person.services.users.register(f"c-{issued.session_id.hex}", PASSWORD, client=client_at())


OPERATIONS = [_sign_in, _refresh, _replay, _log_out, _change_password, _disable, _end_others, _register]


class Issued:
    """A session with a spent token."""

    def __init__(self, spent: str, live: Any) -> None:
        self.spent = spent
        self.refresh_token: str = live.refresh_token
        self.access_token: str = live.access_token
        self.session_id = live.session_id


@pytest.mark.case(12)
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "connecting"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__.strip("_"))
async def test_cancelled_at_every_await(
    operation: Operation,
    make_services: MakeServices,
    make_person: MakePerson,
    sql: asyncpg.Connection,
    *,
    connected: bool,
) -> None:
    """Cancel at the first, second, ... suspension until the operation gets through; look behind each time."""
    services = make_services(database_pool_size=2, max_sessions_per_user=3)
    completed = False
    for n in range(1, 200):
        person = await make_person(services)
        first = await person.sign_in()
        await person.sign_in()
        issued = Issued(first.refresh_token, await person.refresh(first.refresh_token))
        if not connected:
            await services.database.close()  # so that this operation opens its connections anew
        task = asyncio.ensure_future(_finish(CancelledAt(operation(person, issued), n)))
        try:
            await task
            completed = True
        except asyncio.CancelledError:
            pass
        await _assert_clean(person, services, sql)
        if completed:
            break
    assert completed
    assert n >= 2


async def _finish(awaitable: Awaitable[object]) -> object:
    return await awaitable


async def _assert_clean(person: Person, services: Container, sql: asyncpg.Connection) -> None:
    """No transaction of ours is open, the trail fits the rows, and the pool still lends its connections."""
    for _ in range(50):
        open_ones = await sql.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'rota'"
            " AND (state LIKE 'idle in transaction%' OR state = 'active') AND pid <> pg_backend_pid()"
        )
        if not open_ones:
            break
        await asyncio.sleep(0.02)  # the server learns of a closed connection a moment later
    assert open_ones == 0
    gaps = await sql.fetch(
        "SELECT f.id FROM families f JOIN audit_events e ON e.subject_id = f.user_id AND e.family_id = f.id"
        " WHERE f.user_id = $1 GROUP BY f.id, f.event_seq HAVING count(e.family_seq) <> f.event_seq"
        " OR max(e.family_seq) <> f.event_seq",
        person.user.id,
    )
    assert gaps == []
    async with asyncio.timeout(10):
        try:
            await person.sign_in()  # two connections in all: a lost one would show
        except RotaError as error:
            assert error.code == "invalid_credentials"  # noqa: PT017 - the password may have been changed
        await services.housekeeping.check_writable()
