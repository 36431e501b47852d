"""A streaming standby that answers administrators and auditors, while it is near enough."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.cli.schema import upgrade_schema
from app.container import Container
from app.domain.clock import Clock
from app.domain.users import Role
from app.jobs.following import following_replica
from app.main import create_app
from app.repositories.database import UnitOfWork
from app.repositories.engine import APP
from app.repositories.logins import make_login
from app.services import replica as replica_module
from tests.conftest import PASSWORD, Person, client_at, make_settings
from tests.pools.conftest import until
from tests.pools.standby import Pair, pair

LAG = "X-Rota-Replica-Lag-Ms"
READS = (
    "/admin/sessions",
    "/admin/sessions?state=active&sort=last_used&user={user}",
    "/admin/sessions/export?format=csv",
    "/admin/sessions/{session}",
    "/admin/sessions/{session}/explain",
    "/admin/users",
    "/admin/events",
    "/admin/events?count=true&subject={user}",
    "/admin/events/histogram?bucket=hour",
    "/admin/stats",
)


@pytest.fixture(scope="module")
def two() -> Iterator[Pair]:
    with pair() as made:
        upgrade_schema(made.primary)
        yield made


class SteppedClock(Clock):
    """Seconds go by when a test says so; the database's time is its own."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def elapsed(self) -> float:
        return self.seconds


@dataclass
class Desk:
    """An administrator before a server with a replica."""

    app: FastAPI
    http: httpx2.AsyncClient
    clock: SteppedClock
    admin: Person
    two: Pair
    sql: asyncpg.Connection

    @property
    def services(self) -> Container:
        found: Container = self.app.state.container
        return found

    async def lag(self, path: str = "/admin/users") -> int | None:
        """How far behind the replica was that answered; `None`: the primary did."""
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return int(answer.headers[LAG]) if LAG in answer.headers else None

    async def is_there(self, name: str) -> bool:
        found = (await self.http.get("/admin/users", params={"prefix": name})).json()
        return bool(found["items"])


async def _opened(two: Pair, **settings: Any) -> AsyncIterator[Desk]:
    url = await make_login(two.primary, "rota_desk", role=APP)
    await two.caught_up()
    replica_url = await make_login_url(two.standby)
    clock = SteppedClock()
    app = create_app(make_settings(url, replica_url=replica_url, **settings), clock)
    services: Container = app.state.container
    sql = await asyncpg.connect(two.primary)
    await sql.execute("TRUNCATE users, families CASCADE")
    user = await services.users.create("root", PASSWORD, role=Role.ADMIN, actor=None, client=client_at())
    admin = Person(services, user, "root")
    transport = httpx2.ASGITransport(app, client=("198.51.100.1", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as http:
        http.headers["Authorization"] = f"Bearer {(await admin.sign_in()).access_token}"
        yield Desk(app, http, clock, admin, two, sql)
    await sql.close()
    await services.close()


async def make_login_url(standby: str) -> str:
    """The same login on the standby, which has it from its primary."""
    from sqlalchemy import make_url  # noqa: PLC0415 - only here

    return make_url(standby).set(username="rota_desk").render_as_string(hide_password=False)


@pytest_asyncio.fixture
async def desk(two: Pair) -> AsyncIterator[Desk]:
    async for made in _opened(two):
        yield made
    await two.resume()


async def test_each_read_of_administrators_may_be_the_replicas(desk: Desk) -> None:
    """Each list, timeline, number and export carries the lag, and says the same as the primary does."""
    issued = await desk.admin.sign_in()
    ids = {"user": desk.admin.user.id, "session": issued.session_id}
    for path in READS:
        path = path.format(**ids)  # noqa: PLW2901 - the path itself
        desk.clock.seconds += 2
        await desk.services.replica._sample()
        await desk.two.caught_up()
        answer = await desk.http.get(path)
        assert answer.status_code == 200, answer.text
        assert LAG in answer.headers, path
        assert 0 <= int(answer.headers[LAG]) <= 5000


async def test_a_session_as_the_replica_and_the_primary_tell_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word the same."""
    issued = await desk.admin.sign_in()
    again = await desk.admin.refresh(issued.refresh_token)
    await desk.two.caught_up()
    there = await desk.http.get(f"/admin/sessions/{again.session_id}")
    assert LAG in there.headers
    monkeypatch.setattr(desk.services.replica, "_replica", None)
    here = await desk.http.get(f"/admin/sessions/{again.session_id}")
    assert LAG not in here.headers
    assert here.json() == there.json()


async def test_who_asked_is_written_to_the_primary(desk: Desk) -> None:
    """A standby cannot write; the event of the read is there all the same, before the answer."""
    before = await desk.sql.fetchval("SELECT count(*) FROM audit_events WHERE action = 'admin.queried'")
    assert await desk.lag("/admin/users") is not None
    assert await desk.sql.fetchval("SELECT count(*) FROM audit_events WHERE action = 'admin.queried'") == before + 1


async def test_nothing_else_is_the_replicas(desk: Desk) -> None:
    """While the standby stands still: what a person, a token or an administrator's act needs is the primary's."""
    assert await desk.lag() is not None
    await desk.two.pause()
    fresh = await desk.admin.sign_in()
    headers = {"Authorization": f"Bearer {fresh.access_token}"}
    for path in ("/me", "/sessions", "/me/events", f"/admin/users/{desk.admin.user.id}"):
        answer = await desk.http.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        assert LAG not in answer.headers, path
    token = await desk.http.post("/refresh", json={"refresh_token": fresh.refresh_token})
    assert token.status_code == 200
    assert LAG not in token.headers
    ended = await desk.http.delete(f"/sessions/{fresh.session_id}", headers=headers)
    assert ended.status_code < 300
    assert (await desk.http.get("/me", headers=headers)).status_code == 401


async def test_a_session_that_is_too_new_for_the_replica(desk: Desk) -> None:
    """The primary is asked before it is said that there is none."""
    assert await desk.lag() is not None
    await desk.two.pause()
    fresh = await desk.admin.sign_in()
    found = await desk.http.get(f"/admin/sessions/{fresh.session_id}")
    assert found.status_code == 200
    assert LAG not in found.headers


async def test_paused_it_answers_for_five_seconds(desk: Desk) -> None:
    """Within the bound it answers what it has and says how old that may be; beyond, the primary; and then it again."""
    assert await desk.lag() is not None
    await desk.two.pause()
    await desk.services.users.create("newcomer", PASSWORD, role=Role.USER, actor=None, client=client_at())
    desk.clock.seconds += 4.5
    lag = await desk.lag()
    assert lag is not None
    assert 4500 <= lag <= 5000
    assert not await desk.is_there("newcomer")
    desk.clock.seconds += 1
    assert await desk.lag() is None
    assert await desk.is_there("newcomer")
    assert desk.services.replica.state == replica_module.ReplicaState(5500, "too far behind")
    await desk.two.resume()
    await desk.two.caught_up()
    assert await desk.lag() is not None
    assert await desk.is_there("newcomer")


async def test_cut_off_from_its_primary_it_is_not_taken_for_near(desk: Desk) -> None:
    """It has replayed all that it ever received; that the primary has gone on since is noticed."""
    conninfo = str(await desk.two.on_standby("SHOW primary_conninfo")).replace("'", "''")
    standby = await asyncpg.connect(desk.two.standby)
    await standby.execute("ALTER SYSTEM SET primary_conninfo = 'host=/nowhere'")
    await standby.execute("SELECT pg_reload_conf()")
    try:
        while await standby.fetchval("SELECT count(*) FROM pg_stat_wal_receiver"):
            pass
        await desk.services.users.create("unseen", PASSWORD, role=Role.USER, actor=None, client=client_at())
        received = "SELECT pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()"
        assert await standby.fetchval(received)
        desk.clock.seconds += 2
        await desk.lag()
        desk.clock.seconds += 6
        assert await desk.lag() is None
        assert await desk.is_there("unseen")
    finally:
        await standby.execute(f"ALTER SYSTEM SET primary_conninfo = '{conninfo}'")
        await standby.execute("SELECT pg_reload_conf()")
        await standby.close()
    await desk.two.caught_up()


async def test_stopped_and_started(desk: Desk) -> None:
    """While it is away the primary answers, at once after the first who noticed; later it is asked again."""
    assert await desk.lag() is not None
    desk.two.stop()
    try:
        assert await desk.lag() is None
        assert await desk.lag() is None
        state = desk.services.replica.state
        assert state is not None
        assert state.why is not None
    finally:
        desk.two.start()
    await desk.two.caught_up()
    assert await desk.lag() is None  # not asked yet
    desk.clock.seconds += replica_module.AWAY_SECONDS
    await desk.services.replica._sample()
    await desk.two.caught_up()
    assert await desk.lag() is not None


async def test_a_conflict_with_the_replay(desk: Desk) -> None:
    """A question that the standby breaks off, since what it reads is pruned, is answered by the primary."""
    replica = desk.services.replica
    await desk.sql.execute("CREATE TABLE IF NOT EXISTS pruned AS SELECT g FROM generate_series(1, 1000) g")
    await desk.sql.execute("GRANT SELECT ON pruned TO rota_app")
    await desk.two.caught_up()
    places: list[bool] = []

    async def work(db: UnitOfWork) -> int:
        await db.seals.freeze()
        place = (await db._db.exec_driver_sql("SELECT pg_is_in_recovery()")).scalar_one()
        places.append(place)
        if place:
            await db._db.exec_driver_sql("SELECT count(*) FROM pruned")
            await desk.sql.execute("DELETE FROM pruned")
            await desk.sql.execute("VACUUM pruned")
            standby = await asyncpg.connect(desk.two.standby)
            while not await standby.fetchval(
                "SELECT confl_snapshot + confl_lock FROM pg_stat_database_conflicts WHERE datname = current_database()"
            ):
                pass
            await standby.close()
        found: int = (await db._db.exec_driver_sql("SELECT count(*) FROM pruned")).scalar_one()
        return found

    assert await replica.read(work) == 0
    assert places == [True, False]
    assert await desk.lag() is not None  # it is not taken for away


async def test_a_primary_is_no_replica(two: Pair) -> None:
    """A URL that leads to the primary, or to a standby that was promoted, is seen; the primary answers as such."""
    url = await make_login(two.primary, "rota_desk", role=APP)
    services = Container.build(make_settings(url, replica_url=url))
    try:
        await services.replica.read(lambda db: db.now())
        assert services.replica.state == replica_module.ReplicaState(None, "not a standby")
    finally:
        await services.close()


async def test_a_wrong_password_or_url(two: Pair) -> None:
    """Is no reason to answer nothing."""
    url = await make_login(two.primary, "rota_desk", role=APP)
    for wrong in ("postgresql://nobody@127.0.0.1:1/nowhere", two.standby.replace("/rota?", "/missing?")):
        services = Container.build(make_settings(url, replica_url=wrong))
        try:
            assert await services.replica.read(lambda db: db.now())
            state = services.replica.state
            assert state is not None
            assert state.why
        finally:
            await services.close()


async def test_measured_while_nobody_asks(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server knows how far behind the replica is before the first question."""
    monkeypatch.setattr(replica_module, "SAMPLE_SECONDS", 0.01)

    async def measured() -> bool:
        state = desk.services.replica.state
        return state is not None and state.lag_ms is not None

    async with following_replica(desk.services):
        await until(measured, "it is measured")
    assert desk.services.replica.state is not None
    assert desk.services.replica.state.why is None
