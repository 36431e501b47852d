"""Jobs: what they do, that each batch is done once, that nothing depends on their being on time."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.api.dependencies import Access
from app.container import Container
from app.domain.errors import RefreshTokenRejected, Unavailable
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.jobs import Done
from app.domain.users import Role
from app.jobs import maintenance
from app.jobs.maintenance import JobReport, State, maintain
from app.jobs.schedule import JOBS, Job, running_jobs
from app.main import create_app
from app.services import housekeeping
from app.services.reconciliation import Reconciled
from tests.admin.conftest import MakeSessions
from tests.architecture.test_architecture import routes_of
from tests.conftest import PASSWORD, SECRET, MakeServices, MovableClock, OwnDatabase, Person, client_at, make_settings

ROTA = str(Path(sys.executable).with_name("rota"))
ENDS = "SELECT count(*), count(DISTINCT family_id) FROM audit_events WHERE action = 'session.ended'"


@pytest.fixture
def own_services(make_services: MakeServices, own: OwnDatabase, clock: MovableClock) -> Container:
    """Services over a database of the test's own; sessions are kept for ten days after their end."""
    return make_services(clock, own.app, session_retention_days=10)


async def person(services: Container, name: str = "ada") -> Person:
    user = await services.users.create(name, PASSWORD, role=Role.USER, actor=None, client=client_at())
    return Person(services, user, name)


async def run_jobs(services: Container, *names: str) -> dict[str, JobReport]:
    """`rota maintain`, without its words."""
    jobs = [job for job in JOBS if job.name in names] if names else JOBS
    return {report.job: report async for report in maintain(services, jobs, lambda _job, _rows: None)}


async def reconcile(services: Container) -> Reconciled:
    return await services.reconciliation.run(progress=lambda _done, _total: None, actor=SYSTEM, client=NO_CLIENT)


async def is_clean(services: Container) -> bool:
    """The trail against the tables, the counts against both."""
    while await services.stats.count():
        pass
    recounted = await services.stats_check.run(lambda _done, _total: None)
    return (await reconcile(services)).differences == [] == recounted.differences


async def test_sessions_past_retention_go(
    own_services: Container, own_sql: asyncpg.Connection, clock: MovableClock
) -> None:
    """Those that ended long enough ago, and no others; an event says how many, and the trail still fits the tables."""
    ada = await person(own_services)
    for _ in range(3):
        old = await ada.sign_in()
        await own_services.sessions.log_out_with_refresh_token(old.refresh_token, client=client_at())
    clock.advance(days=9)
    young, live = await ada.sign_in(), await ada.sign_in()
    await own_services.sessions.log_out_with_refresh_token(young.refresh_token, client=client_at())
    assert (await run_jobs(own_services))["session retention"].rows == 0
    clock.advance(days=1, seconds=1)
    assert (await run_jobs(own_services))["session retention"].rows == 3
    assert await own_sql.fetchval("SELECT count(*) FROM families") == 2
    event = await own_sql.fetchrow("SELECT * FROM audit_events WHERE action = 'session.removed'")
    assert event is not None
    assert json.loads(event["detail"])["count"] == 3
    reconciled = await reconcile(own_services)
    assert (reconciled.differences, reconciled.removed, reconciled.sessions) == ([], 3, 2)
    assert await is_clean(own_services)
    with pytest.raises(RefreshTokenRejected, match="not valid"):
        await ada.refresh(old.refresh_token)  # nobody knows it any more
    await ada.refresh(live.refresh_token)


@pytest.mark.case(19)
async def test_a_session_removed_by_hand_is_a_difference(
    own_services: Container, own_sql: asyncpg.Connection, clock: MovableClock
) -> None:
    """Removal excuses those that had ended before its time, and not more than it has removed."""
    ada = await person(own_services)
    gone = [await ada.sign_in() for _ in range(2)]
    await own_services.sessions.log_out_with_refresh_token(gone[0].refresh_token, client=client_at())
    await own_services.sessions.log_out_with_refresh_token(gone[1].refresh_token, client=client_at())
    clock.advance(days=11)
    later = await ada.sign_in()
    await own_services.sessions.log_out_with_refresh_token(later.refresh_token, client=client_at())
    live = await ada.sign_in()
    await own_sql.execute("DELETE FROM families WHERE id = (SELECT min(id::text)::uuid FROM families)")
    assert [what for _, what in (await reconcile(own_services)).differences] == ["has events, and no row"]
    await run_jobs(own_services, "session retention")
    assert [what for _, what in (await reconcile(own_services)).differences] == [
        "2 that had ended are gone, and retention has removed 1"
    ]
    await own_sql.execute("DELETE FROM families")
    places = [place for place, what in (await reconcile(own_services)).differences if what == "has events, and no row"]
    assert len(places) == 2
    assert any(str(live.session_id) in place for place in places)


@pytest.mark.parametrize("settings", [{}, {"session_retention_days": 10, "audit_legal_hold": True}])
async def test_nothing_goes_unasked(
    make_services: MakeServices,
    own: OwnDatabase,
    own_sql: asyncpg.Connection,
    clock: MovableClock,
    settings: dict[str, Any],
) -> None:
    """Without the setting, and under a legal hold, every session is kept."""
    services = make_services(clock, own.app, **settings)
    ada = await person(services)
    await ada.sign_in()
    clock.advance(days=80)
    await run_jobs(services, "expiry", "session retention")
    clock.advance(days=5)
    await run_jobs(services, "session retention")
    assert await own_sql.fetchval("SELECT count(*) FROM families WHERE ended_at IS NOT NULL") == 1


async def test_the_server_may_remove_nothing_else(
    own: OwnDatabase, own_services: Container, own_sql: asyncpg.Connection
) -> None:
    """Not by a statement of its own, and by the function no live session, whatever time it gives."""
    ada = await person(own_services)
    await ada.sign_in()
    connection = await asyncpg.connect(own.app, server_settings={"role": "rota_app"})
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("DELETE FROM families")
    everybody = "SELECT families_remove_ended(array_agg(user_id), array_agg(id), 'infinity') FROM families"
    assert await connection.fetchval(everybody) == 0
    await connection.close()
    assert await own_sql.fetchval("SELECT count(*) FROM families") == 1


@pytest_asyncio.fixture
async def app(own: OwnDatabase, clock: MovableClock) -> AsyncIterator[FastAPI]:
    """The API without its jobs: its lifespan does not run. Access tokens outlive the idle limit's passing."""
    made = create_app(make_settings(own.app, refresh_idle_seconds=600, session_max_seconds=86_400), clock)
    yield made
    await made.state.container.close()


async def test_with_the_jobs_stopped_for_a_month_nothing_lapsed_is_usable(
    app: FastAPI, clock: MovableClock, own_sql: asyncpg.Connection
) -> None:
    """Every surface refuses from the limit on, ten minutes or a month later; then catching up writes every end."""
    services: Container = app.state.container
    admin = await services.users.create("root", PASSWORD, role=Role.ADMIN, actor=None, client=client_at())
    root = Person(services, admin, "root")
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as http:
        for passed in ({"seconds": 600}, {"days": 31}):
            issued = await root.sign_in()
            bearer = {"Authorization": f"Bearer {issued.access_token}"}
            assert (await http.get("/me", headers=bearer)).status_code == 200
            clock.advance(**passed)
            tried = 0
            for route in routes_of(app):
                if (route.openapi_extra or {})["x-access"] in {Access.SIGNED_IN, Access.AUDITOR, Access.ADMIN}:
                    path = re.sub(r"{\w+}", str(issued.session_id), route.path)
                    for method in route.methods or ():
                        tried += 1
                        assert (await http.request(method, path, headers=bearer)).status_code == 401, route.path
            assert tried > 10
            over = await http.post("/logout", data={"refresh_token": issued.refresh_token})
            assert over.json()["ended"] is False  # it was over before
    sleeping, *_ = [await root.sign_in() for _ in range(3)]
    clock.advance(days=31)
    assert await own_sql.fetchval("SELECT count(*) FROM families WHERE ended_at IS NULL") == 3
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as http:
        for path, form in (("/refresh", {}), ("/token", {"grant_type": "refresh_token"})):
            answer = await http.post(path, data={**form, "refresh_token": sleeping.refresh_token})
            assert answer.status_code == 401
            assert answer.json()["error"] == "invalid_grant"
    assert (await run_jobs(services))["expiry"].rows == 2
    reasons = await own_sql.fetch("SELECT end_reason, count(*) AS n FROM families GROUP BY 1 ORDER BY 1")
    assert [(row["end_reason"], row["n"]) for row in reasons] == [("absolute_timeout", 4), ("idle_timeout", 1)]
    assert await is_clean(services)


async def test_catching_up_is_bounded(
    own_services: Container, own_sql: asyncpg.Connection, clock: MovableClock, make_sessions: MakeSessions
) -> None:
    """However many have lapsed and are past retention, a batch ends or removes `CHANGES` at most."""
    ada = await person(own_services)
    await make_sessions(ada.user.id, 650, clock.time)
    clock.advance(days=31)
    assert [(await own_services.housekeeping.end_lapsed_sessions()).rows for _ in range(4)] == [250, 250, 150, 0]
    clock.advance(days=31)
    assert [(await own_services.housekeeping.remove_ended_sessions()).rows for _ in range(4)] == [250, 250, 150, 0]
    per_event = await own_sql.fetch("SELECT detail FROM audit_events WHERE action = 'session.removed'")
    assert sorted(json.loads(row["detail"])["count"] for row in per_event) == [150, 250, 250]
    biggest = (
        "SELECT max(n) FROM (SELECT count(*) AS n FROM audit_events WHERE action = 'session.ended' GROUP BY xact_id) t"
    )
    assert await own_sql.fetchval(biggest) == 250
    assert await is_clean(own_services)


async def test_a_batch_that_would_take_too_long_is_given_up(own: OwnDatabase, own_services: Container) -> None:
    """No statement of a batch waits or works for longer than a second; the next one tries again."""
    holder = await asyncpg.connect(own.owner)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("LOCK TABLE families IN ACCESS EXCLUSIVE MODE")
    with pytest.raises(Unavailable) as caught:
        await own_services.housekeeping.end_lapsed_sessions()
    assert caught.value.why == "SQLSTATE 57014"  # its own limit, before the two seconds that a lock is waited for
    await transaction.rollback()
    await holder.close()


async def test_a_locked_session_holds_up_nobody(
    own: OwnDatabase,
    own_services: Container,
    clock: MovableClock,
    make_sessions: MakeSessions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others are ended; it is said that one is left, and the next run ends it."""
    monkeypatch.setattr(maintenance, "BUSY_SECONDS", 0.0)
    ada = await person(own_services)
    ids = await make_sessions(ada.user.id, 3, clock.time)
    clock.advance(days=31)
    holder = await asyncpg.connect(own.owner)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("SELECT FROM families WHERE id = $1 FOR UPDATE", ids[1])
    report = (await run_jobs(own_services, "expiry"))["expiry"]
    assert (report.state, report.rows) == (State.BUSY, 2)
    lines = {line.duty.name: line for line in await own_services.job_runs.list_lines(JOBS)}
    assert lines["expiry"].run is not None
    assert lines["expiry"].run.whole_since is None
    await transaction.rollback()
    await holder.close()
    report = (await run_jobs(own_services, "expiry"))["expiry"]
    assert (report.state, report.rows) == (State.DONE, 1)
    assert await is_clean(own_services)


async def test_all_at_once(
    make_services: MakeServices,
    own: OwnDatabase,
    own_sql: asyncpg.Connection,
    clock: MovableClock,
    make_sessions: MakeSessions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two `rota maintain` and a server's jobs beside each other: every session ends once, is removed once."""
    monkeypatch.setattr(housekeeping, "CHANGES", 50)
    processes = [make_services(clock, own.app, session_retention_days=10) for _ in range(3)]
    ada, ben = await person(processes[0]), await person(processes[0], "ben")
    await make_sessions(ada.user.id, 700, clock.time)
    clock.advance(days=31)
    await run_jobs(processes[0], "expiry")
    await make_sessions(ben.user.id, 800, clock.time)
    clock.advance(days=31)
    async with running_jobs(processes[2]):
        reports = await asyncio.gather(*(run_jobs(services) for services in processes[:2]))
    assert {report.state for found in reports for report in found.values()} == {State.DONE}
    ends = await own_sql.fetchrow(ENDS)
    assert ends is not None
    assert tuple(ends) == (1500, 1500)
    removed = await own_sql.fetch("SELECT detail FROM audit_events WHERE action = 'session.removed'")
    assert sum(json.loads(row["detail"])["count"] for row in removed) == 700
    assert await own_sql.fetchval("SELECT count(*) FROM families") == 800
    assert await is_clean(processes[0])


@pytest.fixture
def operator(own: OwnDatabase) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
    return {**clean, "ROTA_DATABASE_URL": own.app, "ROTA_SECRETS": SECRET, "ROTA_SESSION_RETENTION_DAYS": "10"}


def rota(environment: dict[str, str], *words: str, code: int = 0) -> str:
    done = subprocess.run([ROTA, *words], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr + done.stdout


async def test_killed_in_the_middle(
    own_services: Container,
    own_sql: asyncpg.Connection,
    clock: MovableClock,
    make_sessions: MakeSessions,
    operator: dict[str, str],
) -> None:
    """SIGKILL again and again, each time after some batches have committed: nothing is lost and nothing done twice."""
    ada = await person(own_services)
    await make_sessions(ada.user.id, 12_000, clock.time - timedelta(minutes=1), timedelta(seconds=1))
    before, killed = 0, 0
    for _ in range(3):
        process = subprocess.Popen([ROTA, "maintain"], env=operator, stdout=-3, stderr=-3)
        while process.poll() is None:
            ended = await own_sql.fetchval("SELECT count(*) FROM audit_events WHERE action = 'session.ended'")
            if ended > before:
                process.send_signal(signal.SIGKILL)
                killed += 1
                before = ended + 2000
                break
        await asyncio.to_thread(process.wait, 30)
    assert killed == 3
    left = await own_sql.fetchval("SELECT count(*) FROM families WHERE ended_at IS NULL")
    assert 0 < left < 12_000
    for job in json.loads(await asyncio.to_thread(rota, operator, "maintain", "--json"))["jobs"]:
        assert job["state"] == "done", job
        if job["job"] == "expiry":
            assert job["rows"] == left
    ends = await own_sql.fetchrow(ENDS)
    assert ends is not None
    assert tuple(ends) == (12_000, 12_000)
    assert await is_clean(own_services)


async def test_the_commands(
    own_services: Container, own_sql: asyncpg.Connection, operator: dict[str, str], own: OwnDatabase
) -> None:
    """`maintain` with its table and exit codes, `stats` and its check, as an operator sees them."""
    ada = await person(own_services)
    await ada.refresh((await ada.sign_in()).refresh_token)
    assert rota(operator, "maintain", "--status").count(" never ") == len(JOBS)
    found = json.loads(rota(operator, "maintain", "--json"))["jobs"]
    assert [job["job"] for job in found] == [job.name for job in JOBS]
    assert {job["state"] for job in found} == {"done"}
    table = {job["job"]: job for job in json.loads(rota(operator, "maintain", "--status", "--json"))["items"]}
    assert table["session retention"]["retention"] == "10 days after their end (ROTA_SESSION_RETENTION_DAYS)"
    assert all(job["last_run"] and job["next_run"] > job["last_run"] for job in table.values())
    assert all(job["entity"] and job["reason"] and job["retention"] for job in table.values())
    assert table["stats"]["total_rows"] == next(job["rows"] for job in found if job["job"] == "stats")
    assert rota(operator, "maintain", "--job", "expiry").startswith("expiry")
    assert "there is no such job" in rota(operator, "maintain", "--job", "expirx", code=2)
    numbers = json.loads(rota(operator, "stats", "--json"))
    assert (numbers["active"]["sessions"], numbers["series"]["totals"]["refreshes"]) == (1, 1)
    assert "active: 1 sessions of 1 users" in rota(operator, "stats")
    assert "from must be at most 31 days" in rota(operator, "stats", "--from", "2020-01-01", code=2).replace("\n", " ")
    assert rota(operator, "stats", "--check").strip().endswith(" 0 differences")
    await own_sql.execute("UPDATE stat_counts SET count = count + 1 WHERE action = 'session.refreshed'")
    assert json.loads(rota(operator, "stats", "--check", "--json", code=5))["differences"]
    await own_sql.execute("UPDATE stat_positions SET xact = '9000000000000000000'")
    failed = rota(operator, "maintain", "--json", code=1)
    assert {job["job"]: job["state"] for job in json.loads(failed[failed.index('{"jobs"') :])["jobs"]}["stats"] == (
        "failed"
    )
    rota({**operator, "ROTA_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}, "maintain", code=75)


async def test_the_table_of_jobs(own_services: Container, app: FastAPI, clock: MovableClock) -> None:
    """Who runs a job writes down when, how many rows and what went wrong; an auditor reads it, and that is an event."""
    await own_services.users.create("auditor", PASSWORD, role=Role.AUDITOR, actor=None, client=client_at())
    outcomes: list[Any] = [Done(5, more=True), Done(2), Done(), ValueError("a secret value"), Done(1)]

    async def work(_services: Container) -> Done:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, Done)
        return outcome

    job = Job("refusals", 3600, work, entity="things", retention="none", reason="a test")
    app.state.duties = (job,)

    async def look() -> dict[str, Any]:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://rota") as http:
            tokens = (await http.post("/token", data={"username": "auditor", "password": PASSWORD})).json()
            bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
            items = (await http.get("/admin/jobs", headers=bearer)).json()["items"]
        return next(item for item in items if item["job"] == "refusals")

    async def once() -> JobReport:
        (report,) = [report async for report in maintain(own_services, [job], lambda _job, _rows: None)]
        return report

    never = await look()
    assert (never["last_run"], never["next_run"], never["overdue"], never["rows"]) == (None, None, True, 0)
    assert (await once()).rows == 7
    found = await look()
    assert (found["rows"], found["total_rows"], found["error"], found["overdue"]) == (7, 7, None, False)
    clock.advance(hours=4)
    assert (await look())["overdue"]
    await once()
    again = await look()
    assert (again["rows"], again["rows_at"], again["overdue"]) == (7, found["rows_at"], False)
    assert again["last_run"] > found["last_run"]
    failed = await once()
    assert (failed.state, failed.error) == (State.FAILED, "broke: ValueError")
    assert (await look())["error"] == "broke: ValueError"
    assert (await look())["done_until"] == again["done_until"]
    await once()
    mended = await look()
    assert (mended["error"], mended["total_rows"]) == (None, 8)
    assert mended["failed_at"] is not None


def test_every_job_says_what_it_is_for() -> None:
    """One line each in the table: a name of its own, an entity, a retention, a reason."""
    assert len({job.name for job in JOBS}) == len(JOBS)
    assert all(job.entity and job.retention and job.reason for job in JOBS)
