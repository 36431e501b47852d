"""The whole product behind PgBouncer in transaction mode, with the direct URL for what cannot go through."""

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import make_url, text

from app.cli.exits import Exit
from app.command_services import build_retention
from app.container import Container
from app.domain.errors import RefreshTokenRejected, Unavailable
from app.domain.users import Role
from app.jobs.maintenance import maintain
from app.jobs.schedule import JOBS
from app.main import create_app
from app.repositories.pooled import OutsideTransaction
from app.services.database_paths import DirectUrlPooled, PoolerUnnamed, find_obstacle
from app.services.revocation_work import Step
from benchmarks import rig
from tests.admin.ending_people import work_off
from tests.conftest import PASSWORD, SECRET, MovableClock, OwnDatabase, Person, client_at, make_settings
from tests.pools.conftest import Pooled, needs_pgbouncer, until

pytestmark = needs_pgbouncer


@dataclass
class Behind:
    """The product behind a pooler that has fewer sessions of the server than the product has connections."""

    url: str
    direct: str
    services: Container
    http: httpx2.AsyncClient
    clock: MovableClock
    sql: asyncpg.Connection

    async def person(self, role: Role = Role.USER, name: str = "") -> Person:
        name = name or f"person-{secrets.token_hex(6)}"
        user = await self.services.users.create(name, PASSWORD, role=role, actor=None, client=client_at())
        return Person(self.services, user, name)

    async def witnessed(self) -> set[tuple[str, str]]:
        """Who acted, by whose login."""
        return {tuple(row) for row in await self.sql.fetch("SELECT DISTINCT acting, login FROM witnessed")}


@pytest_asyncio.fixture
async def behind(
    own: OwnDatabase, witnesses: asyncpg.Connection, clock: MovableClock, pooled: Pooled
) -> AsyncIterator[Behind]:
    async with pooled(own.app) as url:
        app = create_app(
            make_settings(url, direct_database_url=own.app, maintenance_database_url=own.maintenance), clock
        )
        transport = httpx2.ASGITransport(app, client=("198.51.100.1", 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as http:
            yield Behind(url, own.app, app.state.container, http, clock, witnesses)
        await app.state.container.close()


async def test_a_session_from_sign_in_to_its_end(behind: Behind) -> None:
    """Sign-in, refreshes, a race of ten, grace, reuse, logout: as without a pooler; each write acts as `rota_app`."""
    person = await behind.person()
    issued = await person.sign_in()
    for _ in range(10):
        issued, spent = await person.refresh(issued.refresh_token), issued
    racing = await asyncio.gather(*(person.refresh(issued.refresh_token) for _ in range(10)))
    assert len({one.refresh_token for one in racing}) == 1
    behind.clock.advance(seconds=60)
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(spent.refresh_token)
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(racing[0].refresh_token)
    reasons = await behind.sql.fetch("SELECT end_reason FROM families WHERE user_id = $1", person.user.id)
    assert [row["end_reason"] for row in reasons] == ["reuse"]
    other = await person.sign_in()
    await behind.services.sessions.log_out_with_refresh_token(other.refresh_token, client=client_at())
    with pytest.raises(RefreshTokenRejected):
        await person.refresh(other.refresh_token)
    assert await behind.witnessed() == {("rota_app", "rota_test")}
    bounds = await behind.sql.fetch("SELECT DISTINCT isolation, idle, statement FROM witnessed")
    assert [tuple(row) for row in bounds] == [("read committed", "5s", "5s")]


async def test_what_others_leave_in_the_servers_sessions(behind: Behind, own: OwnDatabase) -> None:
    """
    Whoever else uses the pool may leave any role and any setting in the sessions that we get next: ours act as they
    should, wait as long as they should, and are read committed.
    """
    await behind.sql.execute("CREATE ROLE rota_stranger")
    await behind.sql.execute("GRANT rota_stranger TO rota_test")
    try:
        strangers = [await asyncpg.connect(behind.url, statement_cache_size=0) for _ in range(6)]

        async def spoil() -> None:
            settings = (
                "SET ROLE rota_stranger",
                "SET default_transaction_isolation = 'serializable'",
                "SET idle_in_transaction_session_timeout = 0",
                "SET statement_timeout = 200",
            )
            # All at once: whichever session of the server is next has been through their hands.
            await asyncio.gather(*(one.execute(f"BEGIN; {'; '.join(settings)}; COMMIT") for one in strangers))

        await spoil()
        seen = await asyncio.gather(*(one.fetchval("SELECT current_user") for one in strangers))
        assert "rota_stranger" in seen  # so much for a session's state
        person = await behind.person()
        await spoil()
        issued = await person.sign_in()
        for _ in range(6):
            await spoil()
            issued = await person.refresh(issued.refresh_token)
            await behind.services.authentication.authenticate(issued.access_token)
        for one in strangers:
            await one.close()
        assert await behind.witnessed() == {("rota_app", "rota_test")}
        bounds = await behind.sql.fetch("SELECT DISTINCT isolation, idle, statement FROM witnessed")
        assert [tuple(row) for row in bounds] == [("read committed", "5s", "5s")]
    finally:
        await behind.services.close()
        await behind.sql.execute("REVOKE rota_stranger FROM rota_test; DROP ROLE rota_stranger")


async def test_by_a_login_that_may_do_anything(own: OwnDatabase, pooled: Pooled, clock: MovableClock) -> None:
    """A superuser's login acts as `rota_app`, in units of work and in the hot statements alike."""
    async with pooled(own.owner) as url:
        services = Container.build(make_settings(url, direct_database_url=own.app), clock)
        try:
            async with services.database.begin() as db:
                row = (await db._db.execute(text("SELECT current_user, session_user <> current_user"))).one()
            assert tuple(row) == ("rota_app", True)
            for _ in range(5):
                assert (await services.database.fetch_one("SELECT current_user"))[0] == "rota_app"
            with pytest.raises(Exception, match="permission denied"):
                await services.database.fetch_one("DELETE FROM audit_events")
            assert (await services.database.fetch_one("SELECT current_user"))[0] == "rota_app"  # the lane goes on
        finally:
            await services.close()


async def test_a_login_that_may_not_act_as_the_server(own: OwnDatabase, pooled: Pooled) -> None:
    """It does nothing at all, instead of doing it as itself; and no connection is kept that would."""
    admin = await asyncpg.connect(own.owner)
    await admin.execute("DROP ROLE IF EXISTS rota_nobody")
    await admin.execute("CREATE ROLE rota_nobody LOGIN")
    await admin.execute("GRANT SELECT ON users TO rota_nobody")
    nobody = make_url(own.owner).set(username="rota_nobody").render_as_string(hide_password=False)
    try:
        async with pooled(nobody) as url:
            services = Container.build(make_settings(url, direct_database_url=nobody))
            for _ in range(3):
                # What could not begin is closed at once; who comes by it meanwhile is told so.
                with pytest.raises(Exception, match=r"permission denied|is closed"):
                    await services.database.fetch_one("SELECT count(*) FROM users")
                with pytest.raises(Exception, match=r"permission denied|is closed"):
                    async with services.database.begin() as db:
                        await db.now()
            await services.close()
    finally:
        await admin.execute("REVOKE SELECT ON users FROM rota_nobody; DROP ROLE rota_nobody")
        await admin.close()


async def test_nothing_goes_outside_a_transaction(behind: Behind) -> None:
    """Autocommit would run as whoever used the server's session before: it is a defect, and refused as one."""
    async with behind.services.database._engine.connect() as db:
        await db.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(OutsideTransaction):
            await db.execute(text("SELECT 1"))


async def test_bounds_of_statements_and_locks(behind: Behind) -> None:
    """A statement that takes too long is ended; a row that somebody sits on is waited for briefly: 503 both."""
    person = await behind.person()
    issued = await person.sign_in()

    async def sleep() -> None:
        async with behind.services.database.begin() as db:
            await db.jobs.limit_statements()
            await db._db.execute(text("SELECT pg_sleep(20)"))

    with pytest.raises(Unavailable) as slow:
        await sleep()
    assert slow.value.why == "SQLSTATE 57014"
    async with behind.sql.transaction():
        await behind.sql.execute("SELECT FROM families WHERE user_id = $1 FOR UPDATE", person.user.id)
        with pytest.raises(Unavailable) as held:
            await person.refresh(issued.refresh_token)
    assert held.value.why == "SQLSTATE 55P03"
    assert await person.refresh(issued.refresh_token)


async def test_administration(behind: Behind) -> None:
    """Lists, stories, numbers, a bulk end, an export, the trail: over the API, through the pooler."""
    admin = await behind.person(Role.ADMIN, "root")
    http = behind.http
    http.headers["Authorization"] = f"Bearer {(await admin.sign_in()).access_token}"
    people = [await behind.person(name=f"member-{number}") for number in range(3)]
    sessions = [await person.sign_in() for person in people for _ in range(2)]
    paths = ("sessions?username_prefix=member", "sessions/export?format=ndjson", "users", "events?count=true", "stats")
    for path in (*paths, f"sessions/{sessions[0].session_id}", f"sessions/{sessions[0].session_id}/explain"):
        answer = await http.get(f"/admin/{path}")
        assert answer.status_code == 200, answer.text
    asked: dict[str, Any] = {"filter": {"username_prefix": "member"}}
    seen = await http.post("/admin/sessions/revocations", json={**asked, "dry_run": True})
    assert (seen.status_code, seen.json()["count"]) == (200, 6)
    order = {**asked, "fingerprint": seen.json()["fingerprint"], "reason": "a test"}
    started = await http.post("/admin/sessions/revocations", json=order)
    assert started.status_code == 202, started.text
    assert await work_off(behind.services, started.json()["id"]) is not Step.NOTHING
    ended = await behind.sql.fetchval("SELECT count(*) FROM families WHERE end_reason = 'bulk_admin'")
    assert ended == 6
    assert {acting for acting, _ in await behind.witnessed()} == {"rota_app"}


async def test_all_jobs_of_two_processes(behind: Behind) -> None:
    """Each job, run by two at once, through the pooler: none fails, and every event is sealed once."""
    person = await behind.person()
    for _ in range(5):
        await person.sign_in()
    other = Container.build(behind.services.settings, behind.clock)
    try:

        async def run(services: Container) -> list[Any]:
            return [report async for report in maintain(services, JOBS, lambda _job, _rows: None)]

        for reports in await asyncio.gather(run(behind.services), run(other)):
            assert [report for report in reports if report.error is not None] == []
    finally:
        await other.close()
    assert {acting for acting, _ in await behind.witnessed()} == {"rota_app"}
    sealed = await behind.sql.fetchval("SELECT sum(count) FROM audit_batches")
    assert sealed >= 6


async def test_the_view_listens_directly(behind: Behind) -> None:
    """Who serves is told of an end elsewhere by notification, though its other connections go through the pooler."""
    person = await behind.person()
    issued = await person.sign_in()
    following = asyncio.create_task(behind.services.ended_view.follow())
    view = behind.services.ended_view

    async def loaded() -> bool:
        return view.now() is not None

    async def heard() -> bool:
        return view.has_ended(issued.session_id)

    try:
        await until(loaded, "the view is loaded")
        await behind.sql.execute(
            "UPDATE families SET ended_at = $2, end_reason = 'logout', ended_xact = pg_current_xact_id() WHERE id = $1",
            issued.session_id,
            behind.clock.time,
        )
        await until(heard, "the end is heard")
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_retention_and_erasure_go_directly(behind: Behind) -> None:
    """What needs autocommit or another role has its own way to the database."""
    _, owner = build_retention(behind.services)
    for database in (owner, behind.services.maintenance):
        assert database._engine.url.port != make_url(behind.url).port
    await owner.close()


async def test_processes_through_the_pooler(own: OwnDatabase, pooled: Pooled) -> None:
    """`rota serve` starts behind it, serves sign-in, refresh and the poll of ended sessions, and stops."""
    async with pooled(own.app) as url:
        named: dict[str, Any] = {
            "ROTA_SECRETS": SECRET,
            "ROTA_REGISTRATION": "open",
            "ROTA_DIRECT_DATABASE_URL": own.app,
        }
        with rig.rota(url, **named) as first, rig.rota(url, **named) as second:
            async with httpx2.AsyncClient() as http:
                for port, name in ((first, "ada"), (second, "bob")):
                    base = f"http://127.0.0.1:{port}"
                    who = {"username": name, "password": PASSWORD}
                    assert (await http.post(f"{base}/register", json=who)).status_code == 201
                    tokens = (await http.post(f"{base}/token", data=who)).json()
                    for _ in range(5):
                        token = {"refresh_token": tokens["refresh_token"]}
                        answer = await http.post(f"{base}/refresh", json=token)
                        assert answer.status_code == 200, answer.text
                        tokens = answer.json()
                    assert (await http.get(f"{base}/readyz")).status_code == 200


async def test_a_pooler_that_nobody_named(own: OwnDatabase, pooled: Pooled) -> None:
    """
    It is said what to set: where the pooler refuses our startup parameters, and where it swallows them, so that we
    would act as the login; `rota serve` does not start. A direct URL that leads to a pooler is said too.
    """
    swallowed = (
        "ignore_startup_parameters = role,lock_timeout,statement_timeout,jit,timezone,search_path,"
        "idle_in_transaction_session_timeout,client_connection_check_interval,default_transaction_isolation"
    )
    for mode in ("transaction", "session"):
        for more in ("", swallowed):
            async with pooled(own.app, mode=mode, more=more) as url:
                found = await find_obstacle(make_settings(url))
                assert isinstance(found, PoolerUnnamed), (mode, more)
                services = Container.build(make_settings(url))
                with pytest.raises(Unavailable):
                    await services.database.fetch_one("SELECT 1")
                with pytest.raises(Unavailable):
                    async with services.database.begin() as db:
                        await db.now()
                await services.close()
    async with pooled(own.app) as url:
        assert isinstance(await find_obstacle(make_settings(url, direct_database_url=url)), DirectUrlPooled)
        assert await find_obstacle(make_settings(url, direct_database_url=own.app)) is None
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", "from app.cli import main; main()", "serve", "--port", "0"],
            env={**os.environ, "ROTA_DATABASE_URL": url, "ROTA_SECRETS": SECRET},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == Exit.REFUSED
        assert "set ROTA_DIRECT_DATABASE_URL" in done.stderr
    assert await find_obstacle(make_settings(own.app)) is None
    assert await find_obstacle(make_settings("postgresql://nobody@127.0.0.1:1/nowhere")) is None
