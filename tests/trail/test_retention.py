"""Months whose time is over go, whole, proven and on record; what remains still holds."""

from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.cli.verify import verify_folder
from app.command_services import build_retention
from app.domain.errors import Unavailable
from app.domain.events import NO_CLIENT, SYSTEM
from app.repositories.database import Database
from app.services.retention import Retention, RetentionRefused
from tests.trail.conftest import ORIGIN, Log

MONTH = "audit_events_2020_01"

PAST = f"""
CREATE TABLE {MONTH} (LIKE audit_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
ALTER TABLE {MONTH} OWNER TO rota_owner;
ALTER TABLE audit_events ATTACH PARTITION {MONTH} FOR VALUES FROM ('2020-01-01T00:00:00Z') TO ('2020-02-01T00:00:00Z');
SELECT audit_protect('{MONTH}'::regclass);
"""
OLD = """
INSERT INTO audit_events (id, occurred_at, action, version, outcome, actor_kind, actor_id, subject_id, family_id,
                          family_seq, generation, ip, user_agent, detail, reason)
SELECT gen_random_uuid(), '2020-01-10'::timestamptz + n * interval '1 s',
       CASE n WHEN 0 THEN 'session.created' WHEN 299 THEN 'session.ended' ELSE 'session.refreshed' END, 1, 'success',
       'user', $1, $1, $2, n + 1, least(n, 298), '10.0.0.1', 'old',
       CASE n WHEN 0 THEN '{"amr":["pwd"],"client_id":"first-party","scope":""}' END,
       CASE n WHEN 299 THEN 'logout' END
  FROM generate_series(0, 299) AS n
"""


@pytest.fixture
def retained(log: Log) -> Log:
    """Services by a login that may act as the owner, with a retention of thirty days."""
    log.settings |= {"maintenance_database_url": log.own.owner, "audit_retention_days": 30}
    log.services = log.another()
    return log


async def dies(*_: Any, **__: Any) -> None:
    raise Unavailable(why="killed")


async def old_month(log: Log, sql: asyncpg.Connection) -> None:
    await sql.execute(PAST)
    ids = await sql.fetchrow("SELECT gen_random_uuid() AS a, gen_random_uuid() AS b")
    assert ids is not None
    await sql.execute(OLD, ids["a"], ids["b"])
    await log.publish()
    await log.live("ada", 240)
    await log.publish()


async def retain(log: Log, archive: Path) -> list[str]:
    retention, owner = build_retention(log.services)
    try:
        return await run(retention, log, archive)
    finally:
        await owner.close()


async def run(retention: Retention, log: Log, archive: Path) -> list[str]:
    verify = partial(verify_folder, trusted=[log.signer.key(ORIGIN)])
    done = []
    async for due in retention.list_due():
        await retention.remove(due, archive, personal=False, verify=verify, progress=lambda _done, _total: None)
        done.append(due.name)
    return done


async def test_a_month_goes_and_the_rest_holds(retained: Log, own_sql: asyncpg.Connection, tmp_path: Path) -> None:
    """Exported, verified, detached, dropped, and on record; later bundles verify from where the log now begins."""
    log = retained
    await old_month(log, own_sql)
    assert await retain(log, tmp_path / "archive") == [MONTH]
    assert log.verify(tmp_path / "archive" / MONTH).exit_code == 0
    assert await own_sql.fetchval("SELECT count(*) FROM audit_events WHERE occurred_at < '2021-01-01'") == 0
    assert await own_sql.fetchval(f"SELECT to_regclass('{MONTH}')") is None
    assert await own_sql.fetchval("SELECT minimum_index FROM audit_logs") == 512
    detail = await own_sql.fetchval("SELECT detail FROM audit_events WHERE action = 'audit.retention'")
    assert '"events":300' in detail
    await log.live("ben", 300)
    await log.publish()
    bundle = await log.export()
    report = log.verify(bundle)
    assert (report.findings, report.exit_code) == ([], 0)
    assert report.manifest is not None
    assert report.manifest.first == 512
    assert await log.services.guard.check_all() == []
    event = await own_sql.fetchval(
        "SELECT id FROM audit_events ORDER BY seq DESC OFFSET 1 LIMIT 1"
    )  # the last is the export's
    assert (await log.services.proofs.prove(event)).index == report.manifest.size - 1
    reconciled = await log.services.reconciliation.run(progress=lambda _d, _t: None, actor=SYSTEM, client=NO_CLIENT)
    assert reconciled.differences == []
    assert await retain(log, tmp_path / "archive") == []


@pytest.mark.parametrize("step", ["_detach", "_drop"])
async def test_broken_off_it_goes_on(
    retained: Log, own_sql: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Killed before the month is detached, or before it is dropped: the next run ends it; all can sign in meanwhile."""
    log = retained
    await old_month(log, own_sql)
    with monkeypatch.context() as patched:
        patched.setattr(Retention, step, dies)
        with pytest.raises(Unavailable):
            await retain(log, tmp_path / "archive")
    await log.live("ben", 2)
    if step == "_drop":
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await own_sql.execute(f"DELETE FROM {MONTH}")
    assert await retain(log, tmp_path / "archive") == [MONTH]
    assert await own_sql.fetchval(f"SELECT to_regclass('{MONTH}')") is None


@pytest.mark.case(91)
async def test_a_half_detached_month_is_finished(
    retained: Log, own_sql: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DETACH CONCURRENTLY was cut between its two transactions: FINALIZE, with writers going on all the time."""
    log = retained
    await old_month(log, own_sql)
    with monkeypatch.context() as patched:
        patched.setattr(Retention, "_detach", dies)
        with pytest.raises(Unavailable):
            await retain(log, tmp_path / "archive")
    reader, detacher = await asyncpg.connect(log.own.owner), await asyncpg.connect(log.own.owner)
    transaction = reader.transaction()
    await transaction.start()
    await reader.fetch("SELECT count(*) FROM audit_events")
    await detacher.execute("SET statement_timeout = 500")
    with pytest.raises(asyncpg.QueryCanceledError):
        await detacher.execute(f"ALTER TABLE audit_events DETACH PARTITION {MONTH} CONCURRENTLY")
    assert await own_sql.fetchval("SELECT count(*) FROM pg_inherits WHERE inhdetachpending") == 1
    await log.live("ben", 2)
    await transaction.rollback()
    await reader.close()
    await detacher.close()
    assert await retain(log, tmp_path / "archive") == [MONTH]
    await log.live("cleo", 200)
    await log.publish()
    assert log.verify(await log.export()).exit_code == 0


async def test_nothing_goes_that_may_not(
    retained: Log, own_sql: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not without a time, not under a hold, not unsealed, not unsigned, not when the export does not verify."""
    log = retained
    await own_sql.execute(PAST)
    ids = await own_sql.fetchrow("SELECT gen_random_uuid() AS a, gen_random_uuid() AS b")
    assert ids is not None
    await own_sql.execute(OLD, ids["a"], ids["b"])
    with pytest.raises(RetentionRefused, match="not sealed"):
        await retain(log, tmp_path)
    await log.seal_all()
    with pytest.raises(RetentionRefused, match="not sealed and signed"):
        await retain(log, tmp_path)
    await log.publish()
    with pytest.raises(RetentionRefused, match="in whole tiles: 212 more"):
        await retain(log, tmp_path)
    await log.live("ada", 240)
    await log.publish()
    retention, owner = build_retention(log.services)
    assert isinstance(owner, Database)
    for setting, match in (({"_days": 0}, "kept for ever"), ({"_legal_hold": True}, "LEGAL_HOLD")):
        with monkeypatch.context() as patched:
            for name, value in setting.items():
                patched.setattr(retention, name, value)
            with pytest.raises(RetentionRefused, match=match):
                await run(retention, log, tmp_path)
    await own_sql.execute(f"ALTER TABLE {MONTH} DISABLE TRIGGER USER")
    await own_sql.execute(f"UPDATE {MONTH} SET user_agent = 'x' WHERE family_seq = 3")
    with pytest.raises(RetentionRefused, match="does not verify"):
        await run(retention, log, tmp_path)
    await owner.close()
    assert await own_sql.fetchval(f"SELECT count(*) FROM {MONTH}") == 300


async def test_an_incarnation_after_retention_holds(retained: Log, own_sql: asyncpg.Connection, tmp_path: Path) -> None:
    """Its opening tells that events had been removed, so a session may begin within."""
    log = retained
    await own_sql.execute(PAST)
    across = OLD.replace("n * interval '1 s'", "CASE WHEN n < 150 THEN '0' ELSE now() - '2020-01-10' END::interval")
    await own_sql.execute(across, *await own_sql.fetchrow("SELECT gen_random_uuid(), gen_random_uuid()") or ())
    await log.live("ada", 240)
    await log.publish()
    assert await retain(log, tmp_path / "archive") == [MONTH]
    await log.publishing.open_epoch("ticket", maintenance=log.services.maintenance)
    await log.seal_all()
    await log.publishing.publish()
    report = log.verify(await log.export(), origin=f"{ORIGIN}/epoch-2", also=[ORIGIN])
    assert (report.findings, report.exit_code) == ([], 0)
    reconciled = await log.services.reconciliation.run(progress=lambda _d, _t: None, actor=SYSTEM, client=NO_CLIENT)
    assert [what for _, what in reconciled.differences] == ["has events, and no row"] * 2  # made up by this test


async def test_two_months_in_one_run(retained: Log, own_sql: asyncpg.Connection, tmp_path: Path) -> None:
    """The second is exported from where the log begins once the first is gone, even in the middle of a tile."""
    log = retained
    await own_sql.execute(PAST)
    await own_sql.execute(
        PAST.replace("2020_01", "2020_02").replace("2020-02-", "2020-03-").replace("2020-01-", "2020-02-")
    )
    for moved in (OLD, OLD.replace("2020-01-10", "2020-02-10")):
        await own_sql.execute(moved, *await own_sql.fetchrow("SELECT gen_random_uuid(), gen_random_uuid()") or ())
    await log.live("ada", 240)
    await log.publish()
    assert await retain(log, tmp_path / "archive") == [MONTH, "audit_events_2020_02"]
    for name in (MONTH, "audit_events_2020_02"):
        assert log.verify(tmp_path / "archive" / name).exit_code == 0
    await log.live("ben", 100)
    await log.publish()
    assert log.verify(await log.export()).exit_code == 0
