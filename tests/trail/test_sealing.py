"""The sealer: one order, nothing lost, nothing twice, whatever happens to it."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event

from app.domain.errors import RotaError, StoredStateInvalid
from app.domain.events import NOBODY
from app.repositories.seals import SealRepository
from app.services import sealing
from tests.conftest import OwnDatabase
from tests.trail.conftest import ORIGIN, Log

ADD = """
INSERT INTO audit_events (id, occurred_at, action, version, outcome, actor_kind, subject_id)
VALUES (gen_random_uuid(), clock_timestamp(), 'audit.heartbeat', 1, 'success', 'system', $1)
"""


async def sealed_in_order(sql: asyncpg.Connection) -> None:
    """Every committed event is sealed exactly once, and the batches join."""
    events = await sql.fetchval("SELECT count(*) FROM audit_events")
    (head,) = await sql.fetch("SELECT * FROM audit_logs ORDER BY epoch DESC LIMIT 1")
    batches = await sql.fetch("SELECT * FROM audit_batches WHERE epoch = $1 ORDER BY first_index", head["epoch"])
    assert head["tree_size"] == sum(batch["count"] for batch in batches) == events
    for before, after in pairwise(batches):
        assert after["first_index"] == before["first_index"] + before["count"]
        assert [after[f"from_{part}"] for part in ("epoch", "xact", "seq")] == [
            before[f"to_{part}"] for part in ("epoch", "xact", "seq")
        ]
    sizes = await sql.fetch("SELECT tree_size, count(*) FROM audit_checkpoints GROUP BY epoch, tree_size")
    assert all(row[1] == 1 for row in sizes)


async def verified(log: Log) -> None:
    report = log.verify(await log.export())
    assert (report.findings, report.exit_code) == ([], 0)


@pytest.fixture
def batches_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event in a batch of its own: cursors are put to the test between any two."""
    monkeypatch.setattr(sealing, "BATCH", 1)


async def connect(own: OwnDatabase) -> asyncpg.Connection:
    return await asyncpg.connect(own.owner)


async def sizes(log: Log) -> int:
    status = await log.services.sealing.status()
    assert status is not None
    return status.tree_size


@pytest.mark.case(83)
@pytest.mark.usefixtures("batches_of_one")
async def test_a_late_commit_is_not_lost(log: Log, own: OwnDatabase, own_sql: asyncpg.Connection) -> None:
    """A transaction that began to write first and commits last: those after it wait, then all are sealed in order."""
    late, early = await connect(own), await connect(own)
    await log.seal()
    transaction = late.transaction()
    await transaction.start()
    await late.execute(ADD, NOBODY)
    await early.execute(ADD, NOBODY)
    await log.seal()
    assert await sizes(log) == 0
    await transaction.commit()
    await log.seal_all()
    assert await sizes(log) == 2
    await sealed_in_order(own_sql)
    await late.close()
    await early.close()


@pytest.mark.case(84)
@pytest.mark.usefixtures("batches_of_one")
async def test_a_lower_sequence_of_a_higher_transaction(
    log: Log, own: OwnDatabase, own_sql: asyncpg.Connection
) -> None:
    """The cursor is the pair: on the sequence alone, or on the transaction alone, one of these would be lost."""
    first, second = await connect(own), await connect(own)
    one, two = first.transaction(), second.transaction()
    await one.start()
    lower = int(await first.fetchval("SELECT pg_current_xact_id()::text"))
    await two.start()
    assert int(await second.fetchval("SELECT pg_current_xact_id()::text")) > lower
    await second.execute(ADD, NOBODY)
    await first.execute(ADD, NOBODY)
    await first.execute(ADD, NOBODY)
    await second.execute(ADD, NOBODY)
    await two.commit()
    await log.seal()
    assert await sizes(log) == 0
    await one.commit()
    await log.seal_all()
    order = await own_sql.fetch("SELECT to_xact::text, to_seq FROM audit_batches ORDER BY first_index")
    stored = await own_sql.fetch("SELECT xact_id::text, seq FROM audit_events ORDER BY xact_id, seq")
    assert [tuple(row) for row in order] == [tuple(row) for row in stored]
    assert [row[1] for row in order] != sorted(row[1] for row in order)
    await sealed_in_order(own_sql)
    await first.close()
    await second.close()


@pytest.mark.case(81)
@pytest.mark.usefixtures("batches_of_one")
async def test_many_writers_and_several_sealers(log: Log, own: OwnDatabase, own_sql: asyncpg.Connection) -> None:
    """Transactions of all lengths, three sealers at once, all the time: one tree, every event once."""
    dice = random.Random(7)
    others = [log.another() for _ in range(2)]
    writing = True

    async def write() -> None:
        db = await connect(own)
        for _ in range(25):
            async with db.transaction():
                if dice.random() < 0.5:
                    await db.fetchval("SELECT pg_current_xact_id()")
                    await asyncio.sleep(dice.random() / 50)
                for _ in range(dice.randrange(1, 4)):
                    await db.execute(ADD, NOBODY)
                    await asyncio.sleep(dice.random() / 100)
        await db.close()

    async def seal(services: Any) -> None:
        while writing:
            await services.sealing.seal()
            await asyncio.sleep(0)

    sealers = [asyncio.create_task(seal(services)) for services in (log.services, *others)]
    await asyncio.gather(*(write() for _ in range(6)))
    writing = False
    await asyncio.gather(*sealers)
    await log.publish()
    await sealed_in_order(own_sql)
    assert await log.services.guard.check_all() == []
    await verified(log)


@pytest.mark.case(82)
async def test_who_holds_it_up_is_named(
    log: Log,
    own: OwnDatabase,
    server_url: str,
    own_sql: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A transaction that sits open in another database of the cluster: status, log and trail name it; none is lost."""
    monkeypatch.setattr(sealing, "LAG_WARNING_SECONDS", 0)
    monkeypatch.setattr(sealing, "LAG_ALARM_SECONDS", 0)
    await log.seal()
    idler = await asyncpg.connect(server_url, server_settings={"application_name": "the idler"})
    transaction = idler.transaction()
    await transaction.start()
    try:
        await idler.fetchval("SELECT pg_current_xact_id()")
        await log.live("ada", 3)
        await log.seal()
        status = await log.services.sealing.status()
        assert status is not None
        assert (status.tree_size, status.lag_seconds > 0) == (0, True)
        assert "the idler" in {holder.application for holder in status.holders}
        lines: list[dict[str, Any]] = []
        record = SimpleNamespace(error=lambda event, **more: lines.append({"event": event, **more}))
        monkeypatch.setattr(sealing, "log", record)
        for _ in range(2):
            await log.services.sealing.watch()
        assert "the idler" in next(line["blocker"] for line in lines if line["event"] == "audit.seal_lags")
        alarms = await own_sql.fetch("SELECT detail FROM audit_events WHERE action = 'audit.alarm'")
        assert len(alarms) == 1
    finally:
        await transaction.rollback()
        await idler.close()
    await log.seal_all()
    await sealed_in_order(own_sql)


@contextlib.contextmanager
def broken_at(log: Log, statement: int) -> Iterator[Callable[[], int]]:
    """The connection is lost before the n-th statement or commit; tells how many there were."""
    engine = log.services.database._engine.sync_engine
    seen = 0

    def count(*_: Any, **__: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == statement:
            raise ConnectionResetError("cut")

    event.listen(engine, "before_cursor_execute", count)
    event.listen(engine, "commit", count)
    try:
        yield lambda: seen
    finally:
        event.remove(engine, "before_cursor_execute", count)
        event.remove(engine, "commit", count)


@pytest.mark.case(81)
async def test_killed_between_any_two_statements(log: Log, own_sql: asyncpg.Connection) -> None:
    """Sealing and publishing, cut off before each statement in turn: the next run goes on; no fork, no gap."""
    await log.seal()
    statement, done = 1, False
    while not done:
        await log.live(f"person-{statement}", 90)
        with broken_at(log, statement) as seen:
            with contextlib.suppress(RotaError, ConnectionResetError):
                await log.publish()
            done = seen() < statement
        await log.publish()
        await sealed_in_order(own_sql)
        statement += 1
    assert statement > 20
    await verified(log)


@pytest.mark.case(81)
@pytest.mark.timeout(240)
async def test_a_killed_sealer_process(log: Log, own: OwnDatabase, own_sql: asyncpg.Connection) -> None:
    """SIGKILL at any moment, again and again, while events are written: the log goes on from where it was."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ROTA_")},
        "ROTA_DATABASE_URL": own.app,
        "ROTA_SECRETS": "test-secret-test-secret-test-secret-test",
        "ROTA_AUDIT_ORIGIN": ORIGIN,
        "ROTA_AUDIT_SIGNING_KEY": log.settings["audit_signing_key"],
        "ROTA_AUDIT_SINK": log.settings["audit_sink"],
    }
    words = [str(Path(sys.executable).with_name("rota")), "audit", "seal", "--watch"]
    writing = True

    async def write() -> None:
        number = 0
        while writing:
            number += 1
            await log.live(f"writer-{number}", 20)

    writer = asyncio.create_task(write())
    dice = random.Random(3)
    for _ in range(6):
        before = await own_sql.fetchval("SELECT count(*) FROM audit_checkpoints")
        process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE)
        while await own_sql.fetchval("SELECT count(*) FROM audit_checkpoints") == before:
            assert process.poll() is None, process.stderr and process.stderr.read()
            await asyncio.sleep(0.05)
        await asyncio.sleep(dice.random())
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.communicate)
    writing = False
    await writer
    await log.publish()
    await sealed_in_order(own_sql)
    assert await own_sql.fetchval("SELECT count(*) FROM audit_checkpoints") > 3
    await verified(log)


async def test_a_read_that_lies_seals_nothing(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each leaf is computed from two reads; if they differ, nothing is sealed, and the next attempt is clean."""
    await log.live("ada", 3)
    honest = SealRepository.read_between

    async def lie(self: SealRepository, *places: Any, **more: Any) -> Any:
        stretch = await honest(self, *places, **more)
        stretch.events[1] = stretch.events[1]._replace(generation=77)
        return stretch

    with monkeypatch.context() as patched:
        patched.setattr(SealRepository, "read_between", lie)
        await log.services.sealing.seal()
        with pytest.raises(StoredStateInvalid):
            await log.services.sealing.seal()
    assert await sizes(log) == 0
    await log.seal_all()
    assert await sizes(log) == 5


@pytest.mark.parametrize("harm", ["root = sha256('x')", "tree_size = tree_size + 1", "edge = '{}'"])
async def test_a_head_that_contradicts_itself_is_not_built_on(log: Log, own_sql: asyncpg.Connection, harm: str) -> None:
    """Nothing is guessed."""
    await log.live("ada", 3)
    await log.seal_all()
    await log.live("ben", 3)
    await own_sql.execute(f"UPDATE audit_logs SET {harm}")
    with pytest.raises((StoredStateInvalid, ValueError)):
        await log.services.sealing.seal()


@pytest.mark.case(76)
async def test_an_event_behind_the_seal_is_noticed(log: Log, own_sql: asyncpg.Connection) -> None:
    """One that appears where all was sealed, and one that disappears: the counts tell."""
    await log.live("ada", 5)
    await log.seal_all()
    xact = await own_sql.fetchval("SELECT xact_id::text FROM audit_events WHERE action = 'session.created'")
    await own_sql.execute(ADD.replace("subject_id)", "subject_id, xact_id)").replace("$1)", f"$1, '{xact}')"), NOBODY)
    assert [reason for reason, _ in await log.services.guard.check_all()] == ["miscounted"]


async def test_nothing_to_seal_costs_no_transaction_id(log: Log, own_sql: asyncpg.Connection) -> None:
    """An idle sealer burns none, and neither does an export's reading."""
    await log.live("ada", 3)
    await log.publish()
    before = int(await own_sql.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))
    for _ in range(5):
        await log.services.sealing.status()
        await log.publishing.publish()
    span = await log.services.exports.span(None, None)
    await log.services.exports.write_bundle(
        log.folder / "b", span, since=None, until=None, personal=True, progress=lambda _done, _total: None
    )
    async for _ in log.services.exports.pages(None, None):
        pass
    assert int(await own_sql.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")) == before
