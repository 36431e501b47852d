"""Exported bundles hold, and nothing can be changed in them, or under them, unnoticed."""

import random
import shutil
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from app.domain.findings import Class
from app.services.exports import NothingSigned, NothingThere
from tests.trail.conftest import ORIGIN, Log

MUTATIONS = 1000


async def lively(log: Log) -> None:
    """Sessions of all kinds, over several checkpoints and more than one tile."""
    await log.live("ada", 240, end=True)
    await log.live("ben", 5)
    await log.publish()
    await log.live("cleo", 20, end=True)
    await log.publish()
    await log.live("dora", 5)
    await log.publish()


async def test_a_bundle_holds(log: Log) -> None:
    """All of it, with personal data under its commitments; without trust in who exported it."""
    await lively(log)
    report = log.verify(await log.export(), copies=copies(log))
    assert report.findings == []
    assert report.exit_code == 0
    assert (report.sessions, report.checkpoints, report.erased, report.beyond) == (4, 3, 0, 0)


def copies(log: Log) -> list[tuple[str, str]]:
    return [(path.name, path.read_text()) for path in sorted(log.sink.rglob("*")) if path.is_file()]


async def test_a_bundle_without_personal_data_holds_too(log: Log) -> None:
    """The commitments remain, and there is no address in any of its files."""
    await lively(log)
    bundle = await log.export(personal=False)
    assert log.verify(bundle).exit_code == 0
    for path in bundle.rglob("*"):
        assert path.is_dir() or b"203.0.113.7" not in path.read_bytes(), path
        assert path.is_dir() or b"iPhone" not in path.read_bytes(), path


async def test_a_range_holds(log: Log) -> None:
    """Whole tiles around the time that was asked for, under the newest signed head; earlier lives begin within."""
    await log.live("ada", 600)
    await log.publish()
    middle = datetime.now(UTC)
    await log.live("ben", 600)
    await log.publish()
    late = log.verify(await log.export(since=middle))
    assert (late.findings, late.exit_code) == ([], 0)
    assert late.manifest is not None
    assert (late.manifest.first, late.manifest.last, late.manifest.size) == (512, 1204, 1204)
    early = log.verify(await log.export(until=middle))
    assert (early.findings, early.exit_code) == ([], 0)
    assert early.manifest is not None
    assert (early.manifest.first, early.manifest.last) == (0, 768)
    with pytest.raises(NothingThere):
        await log.export(since=datetime(2100, 1, 1, tzinfo=UTC))


async def test_without_a_signature_there_is_no_bundle(log: Log) -> None:
    """Nothing that could not be verified is given out as a bundle."""
    await log.live("ada", 3)
    with pytest.raises(NothingSigned):
        await log.export()
    await log.seal_all()
    with pytest.raises(NothingSigned):
        await log.export()


@pytest.mark.case(77)
async def test_every_random_change_is_found(log: Log, tmp_path: Path) -> None:
    """A thousand bits flipped, bytes cut and added, anywhere in any file: each is found, and its place is named."""
    await lively(log)
    bundle = await log.export()
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    dice = random.Random(11)
    kinds: set[Class] = set()
    for _ in range(MUTATIONS):
        path = dice.choice(files)
        original = path.read_bytes()
        changed = bytearray(original)
        at = dice.randrange(len(changed))
        way = dice.randrange(10)
        if way == 0:
            del changed[at : at + dice.randrange(1, 40)]
        elif way == 1:
            changed[at:at] = dice.randbytes(dice.randrange(1, 40))
        else:
            changed[at] ^= 1 << dice.randrange(8)
        path.write_bytes(changed)
        report = log.verify(bundle)
        assert report.exit_code >= 10, (path.relative_to(bundle), at, way)
        assert all(finding.place and finding.what for finding in report.findings)
        kinds |= set(report.counts)
        path.write_bytes(original)
    assert log.verify(bundle).exit_code == 0
    assert kinds >= {Class.MALFORMED, Class.SIGNATURE, Class.INCONSISTENT, Class.ALTERED, Class.PERSONAL}


@pytest.mark.case(78)
async def test_a_missing_file_is_found(log: Log) -> None:
    """Each file of a bundle, taken away."""
    await lively(log)
    bundle = await log.export()
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        hidden = path.with_name("hidden")
        path.rename(hidden)
        assert log.verify(bundle).exit_code >= 10, path
        hidden.rename(path)


async def disable_triggers(sql: asyncpg.Connection) -> None:
    """As the owner of the database can."""
    tables = "SELECT oid::regclass::text FROM pg_class WHERE relname LIKE 'audit%' AND relkind IN ('r', 'p')"
    for table in await sql.fetch(tables):
        await sql.execute(f"ALTER TABLE {table[0]} DISABLE TRIGGER USER")


FORGERIES: dict[str, tuple[str, set[Class]]] = {
    "an event altered": ("UPDATE audit_events SET generation = generation + 1 WHERE family_seq = 7", {Class.ALTERED}),
    "an event back-dated": (
        "UPDATE audit_events SET occurred_at = occurred_at - interval '1 second' WHERE family_seq = 9",
        {Class.ALTERED},
    ),
    "an address changed": ("UPDATE audit_events SET ip = '10.9.8.7' WHERE family_seq = 3", {Class.ALTERED}),
    "an event removed": ("DELETE FROM audit_events WHERE family_seq = 12", {Class.MISSING, Class.GAP}),
    "a whole family removed": (
        "DELETE FROM audit_events WHERE family_id = (SELECT min(family_id::text)::uuid FROM audit_events)",
        {Class.MISSING},
    ),
    "two events swapped": (
        """
        UPDATE audit_events AS e SET generation = o.generation, family_seq = o.family_seq
          FROM audit_events AS o
         WHERE o.family_id = e.family_id AND e.family_seq IN (5, 6) AND o.family_seq = 11 - e.family_seq
        """,
        {Class.ALTERED},
    ),
    "a salt exchanged": ("UPDATE audit_salts SET salt = sha256(salt)", {Class.ALTERED}),
    "a tile rewritten": (
        "UPDATE audit_tiles SET data = overlay(data PLACING sha256('x') FROM 65)",
        {Class.INCONSISTENT},
    ),
    "a checkpoint's root rewritten": (
        "UPDATE audit_checkpoints SET note = replace(note, E'\\n345\\n', E'\\n344\\n')",
        {Class.SIGNATURE},
    ),
}


@pytest.mark.case(77)
@pytest.mark.parametrize("name", FORGERIES)
async def test_what_the_databases_owner_forges_is_found(log: Log, own_sql: asyncpg.Connection, name: str) -> None:
    """With all triggers off, after the seal: the verifier names the place, under keys that it was given before."""
    forgery, expected = FORGERIES[name]
    await log.live("ada", 320, end=True)
    await log.live("ben", 20)
    await log.publish()
    await log.live("cleo", 20)
    await log.publish()
    await disable_triggers(own_sql)
    await own_sql.execute(forgery)
    report = log.verify(await log.export())
    assert expected <= set(report.counts), report.findings[:5]


@pytest.mark.case(80)
async def test_an_event_added_behind_the_back_is_no_event_of_a_life(log: Log, own_sql: asyncpg.Connection) -> None:
    """The owner adds events before they are sealed: doubled, back-dated, or out of a session's count. All are named."""
    await log.live("ada", 5)
    columns = "version, outcome, reason, actor_kind, actor_id, subject_id, family_id, request_id, detail, ip, action"
    into = f"INSERT INTO audit_events (id, occurred_at, family_seq, generation, {columns})"
    add = f"{into} SELECT {{}}, {columns} FROM audit_events"
    await own_sql.execute(add.format("id, occurred_at + interval '1 ms', 3, 2") + " WHERE family_seq = 3")
    await own_sql.execute(add.format("gen_random_uuid(), occurred_at + interval '1 s', 9, 8") + " WHERE family_seq = 6")
    await own_sql.execute(
        add.format("gen_random_uuid(), date_trunc('month', occurred_at), NULL, NULL") + " WHERE action = 'user.created'"
    )
    await log.publish()
    report = log.verify(await log.export())
    assert {Class.GAP, Class.TIME} <= set(report.counts)
    words = " ".join(finding.what for finding in report.findings)
    assert "stands twice" in words
    assert "is missing, though there is a later one" in words


@pytest.mark.case(80)
@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ("UPDATE audit_events SET ip = '10.9.8.7' WHERE action = 'user.created'", set()),
        ("DELETE FROM audit_events WHERE family_seq = 3", {Class.GAP}),
    ],
    ids=["altered", "deleted"],
)
async def test_what_the_owner_does_before_the_seal(
    log: Log, own_sql: asyncpg.Connection, edit: str, expected: set[Class]
) -> None:
    """Said openly: an alteration in the second before the seal cannot be proved; a deletion leaves a gap in a life."""
    await log.live("ada", 5)
    await disable_triggers(own_sql)
    assert await own_sql.execute(edit) in {"UPDATE 1", "DELETE 1"}
    await log.publish()
    assert set(log.verify(await log.export()).counts) == expected


@pytest.mark.case(96)
async def test_an_unknown_version_fails_closed(log: Log, own_sql: asyncpg.Connection) -> None:
    """A version, an action or a reason that the verifier does not know is a finding, not a shrug."""
    columns = "(id, occurred_at, action, version, outcome, reason, actor_kind, subject_id)"
    for action, version, reason in (
        ("user.created", 2, None),
        ("user.invented", 1, None),
        ("login.failed", 1, "bad_weather"),
    ):
        await own_sql.execute(
            f"INSERT INTO audit_events {columns} VALUES "
            "(gen_random_uuid(), now(), $1, $2, 'failure', $3, 'system', $4)",
            *(action, version, reason, "00000000-0000-0000-0000-000000000000"),
        )
    await log.publish()
    report = log.verify(await log.export())
    assert report.counts == {Class.UNKNOWN: 3}
    assert report.exit_code == 16


@pytest.mark.case(88)
async def test_a_copy_of_ones_own_exposes_a_rewritten_log(log: Log, own_sql: asyncpg.Connection) -> None:
    """Owner and key together write another history: whoever kept one checkpoint of the first sees it."""
    await log.live("ada", 10)
    await log.publish()
    kept = copies(log)
    await disable_triggers(own_sql)
    await own_sql.execute("UPDATE audit_events SET user_agent = 'somebody else' WHERE family_seq = 4")
    await own_sql.execute("TRUNCATE audit_logs, audit_batches, audit_tiles, audit_checkpoints")
    shutil.rmtree(log.sink)
    log.sink.mkdir()
    log.services = log.another()
    await log.publish()
    await log.live("ben", 10)
    await log.publish()
    bundle = await log.export()
    assert log.verify(bundle).exit_code == 0
    report = log.verify(bundle, copies=kept)
    assert report.exit_code == Class.INCONSISTENT
    assert "second root" in report.findings[0].what


@pytest.mark.case(79)
async def test_another_logs_key_is_not_enough(log: Log) -> None:
    """A key under another name, or another key under the name: no signature counts."""
    await log.live("ada", 3)
    await log.publish()
    bundle = await log.export()
    assert log.verify(bundle, origin=f"{ORIGIN}/other").exit_code == Class.SIGNATURE
