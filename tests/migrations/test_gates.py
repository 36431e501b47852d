"""What every revision must keep to."""

import asyncio
import re
import tomllib
from itertools import pairwise

import asyncpg

from app import __version__
from app.cli.schema import downgrade_schema, find_drift, upgrade_schema
from app.domain.schema import BASE, Phase, Revision, release_order
from app.models import Base
from app.services.migrations import read_revisions
from tests.migrations.conftest import ROOT

REVISIONS = read_revisions()
ORDER = [Phase.EXPAND, Phase.MIGRATE, Phase.CONTRACT]
PARTITION = re.compile(r"audit_events_\d{4}_\d{2}.*")


def released() -> list[dict[str, str]]:
    text = (ROOT / "migrations" / "releases.toml").read_text()
    found: list[dict[str, str]] = tomllib.loads(text).get("release", [])
    return found


def test_one_line() -> None:
    """One head, one base: each revision follows the one before it."""
    assert [one.before for one in REVISIONS] == [BASE, *(one.id for one in REVISIONS[:-1])]


def test_phases_follow_each_other() -> None:
    """Within a release: first what the former one also runs on, last what takes something away from it."""
    ends = {one["revision"] for one in released()}
    begun: list[Phase] = []
    for revision in REVISIONS:
        begun.append(revision.phase)
        assert begun == sorted(begun, key=ORDER.index), revision.id
        if revision.id in ends:
            begun = []


def test_the_oldest_release_rises_by_contracting_only() -> None:
    """And never beyond the release that brings the revision."""
    for former, revision in pairwise(REVISIONS):
        before, after = release_order(former.oldest_release), release_order(revision.oldest_release)
        assert before <= after <= release_order(__version__), revision.id
        assert before == after or revision.phase is Phase.CONTRACT, revision.id


def test_releases_are_recorded_in_order() -> None:
    """With a revision that there is, and a commit."""
    ids = [one.id for one in REVISIONS]
    places = []
    for one in released():
        assert set(one) == {"version", "date", "revision", "commit"}
        assert re.fullmatch(r"[0-9a-f]{40}", one["commit"])
        places.append((release_order(one["version"]), ids.index(one["revision"])))
    assert places == sorted(places)


async def test_names_are_the_models(look: asyncpg.Connection) -> None:
    """Constraints and indexes have the convention's names, as the models have them: `ck_users_role`."""
    rows = await look.fetch(
        """
        SELECT conrelid::regclass::text AS relation, conname::text AS name FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'p', 'u', 'f', 'x') AND conrelid <> 0
        UNION
        SELECT indrelid::regclass::text, c.relname::text FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid
         WHERE c.relnamespace = 'public'::regnamespace
        """
    )
    found = {
        (row["relation"], row["name"])
        for row in rows
        if row["relation"] != "alembic_version" and not PARTITION.fullmatch(row["relation"])
    }
    tables = Base.metadata.tables.values()
    constraints = {(table.name, str(made.name)) for table in tables for made in table.constraints}
    assert found == constraints | {(table.name, str(made.name)) for table in tables for made in table.indexes}
    for table, name in found:
        assert re.fullmatch(rf"(ck|pk|uq|ix|ex)_{table}(_\w+)?", name), name
        assert f"_{table}_ck_" not in name


async def test_no_drift(migrated_url: str) -> None:
    """The models are what the migrations make, and a difference would be seen."""
    assert await asyncio.to_thread(find_drift, migrated_url) is None
    connection = await asyncpg.connect(migrated_url)
    await connection.execute("ALTER TABLE users ADD COLUMN stray text")
    await connection.close()
    assert "stray" in (await asyncio.to_thread(find_drift, migrated_url) or "")


COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, NULL) AS type FROM pg_attribute AS a
 WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef
   AND a.attidentity = '' ORDER BY a.attnum
"""
TABLES = """
SELECT relname::text AS name FROM pg_class AS c
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
   AND relname <> 'alembic_version' ORDER BY 1
"""
FILES = """
SELECT relname::text AS name, relfilenode AS file FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
"""
# Something of each type; what a CHECK wants instead is read from it below.
SAMPLES = {
    "uuid": "uuidv7()",
    "text": "'aaaa'",
    "bytea": "sha256('a')",
    "integer": "1",
    "bigint": "1",
    "smallint": "1",
    "boolean": "true",
    "timestamp with time zone": "statement_timestamp()",
    "inet": "'203.0.113.7'",
    "xid8": "pg_current_xact_id()",
    "bigint[]": "'{}'",
    "bytea[]": "ARRAY[sha256('a')]",
    "text[]": "'{}'",
    "jsonb": "'{}'",
    "json": "'{}'",
    "interval": "'1 day'",
    "date": "current_date",
}


async def fill(db: asyncpg.Connection) -> None:
    """A row in each table that has none."""
    for table in [row["name"] for row in await db.fetch(TABLES)]:
        if await db.fetchval(f"SELECT EXISTS (SELECT FROM {table})"):
            continue
        checks = await db.fetch(
            "SELECT pg_get_constraintdef(oid) AS text FROM pg_constraint WHERE conrelid = $1::regclass", table
        )
        values = {}
        for column in await db.fetch(COLUMNS, table):
            name = column["name"]
            values[name] = SAMPLES[column["type"]]
            for check in checks:
                if listed := re.search(rf"\(\(?{name} = (?:ANY \(ARRAY\[)?('[^']*')", check["text"]):
                    values[name] = listed.group(1)
                if length := re.search(rf"octet_length\({name}\) = (\d+)", check["text"]):
                    values[name] = f"decode(repeat('00', {length.group(1)}), 'hex')"
        await db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())})")


async def test_stairway(fresh_url: str) -> None:
    """
    Each revision up, down, up, with a row in every table that there is; one that says it rewrites nothing does not.

    PostgreSQL gives a table another file when it writes it anew.
    """
    db = await asyncpg.connect(fresh_url)
    for revision in REVISIONS:
        await fill(db)
        await climb(db, fresh_url, revision)
        await fill(db)
        await asyncio.to_thread(downgrade_schema, fresh_url, revision.before)
        await climb(db, fresh_url, revision)
    await db.close()


async def climb(db: asyncpg.Connection, url: str, revision: Revision) -> None:
    before = {row["name"]: row["file"] for row in await db.fetch(FILES)}
    await asyncio.to_thread(upgrade_schema, url, revision.id)
    after = {row["name"]: row["file"] for row in await db.fetch(FILES)}
    rewritten = [name for name, file in before.items() if name in after and after[name] != file]
    assert bool(rewritten) == revision.rewrites, (revision.id, rewritten)
    assert await db.fetchval("SELECT version_num FROM alembic_version") == revision.id
