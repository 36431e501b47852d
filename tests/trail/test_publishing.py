"""Checkpoints: one root a size, never over another history, whatever dies when."""

import asyncio
import errno
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.domain.checkpoints import Checkpoint
from app.security.notes import open_note
from app.services.publishing import HistoryRefused, Publishing, SinkUnavailable
from tests.conftest import WORKER, OwnDatabase
from tests.postgresql import make_database
from tests.trail.conftest import ORIGIN, Log
from tests.trail.test_bundles import copies
from tests.trail.test_sealing import verified


def published(log: Log, origin: str = ORIGIN) -> list[Checkpoint]:
    """All that is in the sink, by size, each signature checked."""
    key = log.signer.key(origin)
    folder = log.sink / origin.replace("/", "%2F")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert all(path.stat().st_mode & 0o222 == 0 for path in files)
    return [Checkpoint.parse(open_note(path.read_text(), [key])) for path in files]


async def test_checkpoints_are_published_once_a_size(log: Log) -> None:
    """Nothing new, nothing published; a file once there is never touched again."""
    await log.live("ada", 3)
    await log.publish()
    first = next(path for path in log.sink.rglob("*") if path.is_file())
    before = (first.stat().st_mtime_ns, first.read_bytes())
    assert not await log.publishing.publish()
    await log.live("ben", 3)
    await log.publish()
    assert [checkpoint.size for checkpoint in published(log)] == [5, 10]
    assert (first.stat().st_mtime_ns, first.read_bytes()) == before
    await verified(log)


@pytest.mark.case(87)
async def test_two_publishers_at_once(log: Log, own_sql: asyncpg.Connection) -> None:
    """Several processes with the key: one root a size, in the table and in the sink."""
    others = [log.another() for _ in range(3)]
    publishers = [log.publishing, *(other.publishing for other in others)]
    for turn in range(8):
        await log.live(f"person-{turn}", 2)
        await log.seal_all()
        await asyncio.gather(*(publisher.publish() for publisher in publishers if publisher))
    stored = await own_sql.fetch("SELECT tree_size, root FROM audit_checkpoints ORDER BY tree_size")
    assert [(c.size, c.root) for c in published(log)] == [(row[0], row[1]) for row in stored]
    assert len(stored) == 8


@pytest.mark.parametrize("when", ["before it is stored", "before it is published"])
async def test_killed_between_signing_storing_and_publishing(
    log: Log, monkeypatch: pytest.MonkeyPatch, own_sql: asyncpg.Connection, when: str
) -> None:
    """What was stored is published later, byte for byte; what was not is signed anew, and is the same."""
    await log.live("ada", 3)
    await log.seal_all()

    async def dies(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("killed")

    with monkeypatch.context() as patched:
        if when == "before it is stored":
            patched.setattr("app.repositories.tiles.TileRepository.add_checkpoint", dies)
        else:
            patched.setattr(Publishing, "_push", dies)
        with pytest.raises(Exception):  # noqa: B017 - whatever becomes of it
            await log.publishing.publish()
    assert published(log) == []
    restarted = log.another().publishing
    assert restarted is not None
    await restarted.publish()
    assert [checkpoint.size for checkpoint in published(log)] == [5]
    assert await own_sql.fetchval("SELECT count(*) FROM audit_checkpoints") == 1
    await log.live("ben", 3)
    await log.publish()
    assert [checkpoint.size for checkpoint in published(log)] == [5, 10]
    await verified(log)


@pytest.mark.case(86)
async def test_a_full_disk_and_a_sink_that_is_away(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing half-written stays; sealing goes on; when it is back, the newest is published and all is consistent."""
    await log.live("ada", 3)
    await log.publish()
    full = False

    def fsync(_: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    full = True
    for turn in range(3):
        await log.live(f"full-{turn}", 3)
        await log.seal_all()
        with pytest.raises(SinkUnavailable) as refused:
            await log.publishing.publish()
        assert refused.value.why == "No space left on device"
    assert len([path for path in log.sink.rglob("*") if path.is_file()]) == 1
    full = False
    log.sink.rename(log.folder / "elsewhere")
    await log.live("away", 3)
    await log.seal_all()
    with pytest.raises(SinkUnavailable):
        await log.publishing.publish()
    (log.folder / "elsewhere").rename(log.sink)
    await log.publishing.publish()
    sizes = [checkpoint.size for checkpoint in published(log)]
    assert sizes[0] == 5
    assert sizes[-1] == 25
    await verified(log)


@pytest.mark.case(87)
async def test_the_sink_is_not_overwritten(log: Log) -> None:
    """Another checkpoint of the size stands there: it stays, and publishing stops."""
    await log.live("ada", 3)
    await log.publish()
    (file,) = (path for path in log.sink.rglob("*") if path.is_file())
    other = log.signer.sign(ORIGIN, Checkpoint(ORIGIN, 5, bytes(32)).text())
    file.chmod(0o644)
    file.write_text(other)
    await log.live("ben", 3)
    await log.seal_all()
    with pytest.raises(HistoryRefused, match="another history"):
        await log.publishing.publish()
    assert file.read_text() == other


@pytest.mark.case(85)
@pytest.mark.parametrize("regrown", [0, 60])
async def test_a_restored_copy_is_not_signed_over(
    log: Log, own: OwnDatabase, server_url: str, tmp_path: Path, regrown: int
) -> None:
    """
    An older copy of the database: refused, whether it is shorter than what was published or has grown past it. When the
    operator says so, a further incarnation seals all that is there, and its first entry names the last checkpoint.
    """
    await log.live("ada", 5)
    await log.publish()
    await log.services.database.close()
    copy = await make_database(server_url, f"rota_restored_{WORKER}", template=f"rota_own_{WORKER}")
    await log.live("ben", 5)
    await log.publish()
    longest = published(log)[-1]
    old_bundle = await log.export()

    settings = {**log.settings, "maintenance_database_url": copy}
    restored = log.make(url=copy, **settings)
    there = Log(restored, OwnDatabase(copy, copy, copy), tmp_path / "there", log.signer, log.make, settings)
    await there.live("cleo", regrown)
    await there.seal_all()
    with pytest.raises(HistoryRefused, match="older copy" if not regrown else "another history"):
        await there.publishing.publish()
    assert published(log)[-1] == longest

    origin = await there.publishing.open_epoch(
        "restored from the backup of last night", maintenance=restored.maintenance
    )
    assert origin == f"{ORIGIN}/epoch-2"
    await there.live("dora", 5, end=True)
    await there.publish()
    await there.publish()
    bundle = await there.export()
    report = there.verify(bundle, origin=origin, also=[ORIGIN], copies=copies(log))
    assert (report.findings, report.sessions) == ([], 3)
    opening = (bundle / "tile" / "entries").rglob("*")
    first = min(path for path in opening if path.is_file()).read_bytes()
    assert longest.text().replace("\n", "\\n").encode() in first
    assert b"restored from the backup of last night" in first
    assert log.verify(old_bundle).exit_code == 0
    assert await restored.guard.check_all() == []


async def test_a_heartbeat_breaks_the_silence(
    log: Log, own_sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nothing happens for ten minutes, that is an event; so an old newest entry means that sealing stopped."""
    await log.live("ada", 1)
    await log.publishing.beat()
    beats = "SELECT count(*) FROM audit_events WHERE action = 'audit.heartbeat'"
    assert await own_sql.fetchval(beats) == 0
    monkeypatch.setattr("app.services.publishing.HEARTBEAT", timedelta(0))
    await log.publishing.beat()
    assert await own_sql.fetchval(beats) == 1
    await log.publish()
    bundle = await log.export()
    assert log.verify(bundle, max_age=600).exit_code == 0
    await asyncio.sleep(1.1)
    assert log.verify(bundle, max_age=1).exit_code == 19
