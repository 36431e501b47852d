"""The runner as real processes: together, killed, cut off, held up."""

import asyncio
import json
import signal

import asyncpg
import pytest

from app.cli.exits import Exit
from app.repositories.migrations import LOCKS, RUNNER
from tests.migrations.conftest import PGBOUNCER, Pooled, Tree, ended, until

BUILD = (
    'with op.get_context().autocommit_block():\n        op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_slow '
    'ON families (created_at)")'
)
DROP = 'op.execute("DROP INDEX ix_slow")'
STATE = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_slow')"


async def told(look: asyncpg.Connection) -> list[tuple[str, str]]:
    rows = await look.fetch("SELECT detail FROM audit_events WHERE action = 'schema.migrated' ORDER BY seq")
    details = [json.loads(row["detail"]) for row in rows]
    return [(detail["from"], detail["to"]) for detail in details]


async def backends(look: asyncpg.Connection, name: str) -> list[int]:
    found = await look.fetch(
        "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()", name
    )
    return [row["pid"] for row in found]


async def reader(url: str) -> asyncpg.Connection:
    """A snapshot that stays open: every concurrent build waits for it."""
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM families")
    return connection


async def test_ten_at_once(tree: Tree, fresh_url: str, head: str) -> None:
    """Rota's command and Alembic's own, on an empty database: all end well, one worked, one event."""
    rota = [tree.start(fresh_url, "db", "upgrade", "--json") for _ in range(8)]
    plain = ["from alembic.config import main; main(['upgrade', 'head'])"] * 2
    others = [tree.start(fresh_url, program=program) for program in plain]
    said = await asyncio.gather(*(ended(process) for process in (*rota, *others)))
    moved = [json.loads(line) for text in said for line in text.splitlines() if line.startswith("{")]
    assert len(moved) == 8
    assert {one["to"] for one in moved} == {head}
    assert sum(bool(one["applied"]) for one in moved) <= 1
    connection = await asyncpg.connect(fresh_url)
    assert await told(connection) == [("base", head)]
    await connection.close()


async def test_killed_amid_an_index(tree: Tree, migrated_url: str, look: asyncpg.Connection, head: str) -> None:
    """
    kill -9 while an index is being built, the next runner started at once.

    It cannot begin before the server has ended the dead one's statement; it clears away the INVALID index and builds it
    again; one event tells of what both have done.
    """
    tree.add("9001", 'op.execute("CREATE TABLE between ()")', down='op.execute("DROP TABLE between")')
    tree.add("9002", BUILD, down=DROP, before="9001")
    slow = await reader(migrated_url)
    first = tree.start(migrated_url, "db", "upgrade")
    await until(lambda: exists(look), "the index to be begun")
    (orphan,) = await backends(look, "rota-migrate")
    first.send_signal(signal.SIGKILL)
    await asyncio.to_thread(first.communicate)
    assert await told(look) == []
    second = tree.start(migrated_url, "db", "upgrade", "--json")
    await until(lambda: gone(look, orphan), "the server to notice that its client is dead")
    assert await look.fetchval(STATE) in {False, None}
    await slow.close()
    said = await ended(second)
    assert json.loads(said.splitlines()[0])["applied"] == ["9002"]
    assert await look.fetchval(STATE) is True
    assert await told(look) == [(head, "9002")]
    await tree.rota(migrated_url, "db", "downgrade", head, "--yes")


async def exists(look: asyncpg.Connection) -> bool:
    return await look.fetchval(STATE) is not None


async def gone(look: asyncpg.Connection, process: int) -> bool:
    return not await look.fetchval("SELECT 1 FROM pg_stat_activity WHERE pid = $1", process)


async def test_a_lost_lock_stops_the_work(tree: Tree, migrated_url: str, look: asyncpg.Connection) -> None:
    """The connection with the lock is cut: the runner stops, leaves no statement behind, and can be repeated."""
    tree.add("9001", BUILD, down=DROP)
    slow = await reader(migrated_url)
    process = tree.start(migrated_url, "db", "upgrade")
    await until(lambda: exists(look), "the index to be begun")
    (holder,) = await backends(look, "rota-migrate-lock")
    await look.execute("SELECT pg_terminate_backend($1)", holder)
    said = await ended(process, Exit.TRY_AGAIN)
    assert "lock was lost" in said
    await until(lambda: no_worker(look), "its last statement to end")
    await slow.close()
    await tree.rota(migrated_url, "db", "upgrade")
    assert await look.fetchval(STATE) is True


async def no_worker(look: asyncpg.Connection) -> bool:
    return not await backends(look, "rota-migrate")


async def test_the_holder_is_named(tree: Tree, migrated_url: str, look: asyncpg.Connection) -> None:
    """After the limit: exit code 75, and who it is."""
    await look.execute("SET application_name = 'somebody else'")
    await look.execute(f"SELECT pg_advisory_lock({LOCKS}, {RUNNER})")
    said = await tree.rota(migrated_url, "db", "upgrade", "--wait", "0.5", code=Exit.TRY_AGAIN)
    assert f"process {look.get_server_pid()} (somebody else) of" in said
    assert len(said.splitlines()) == 1


async def test_a_table_that_is_in_use(tree: Tree, migrated_url: str, look: asyncpg.Connection) -> None:
    """The lock is not waited for longer than a second; the revision is tried again until it gets it."""
    tree.add("9001", 'op.execute("ALTER TABLE users ADD COLUMN more text")')
    holder = await asyncpg.connect(migrated_url)
    await holder.execute("BEGIN; SELECT count(*) FROM users")
    process = tree.start(migrated_url, "db", "upgrade")
    assert process.stderr is not None
    line = await asyncio.to_thread(process.stderr.readline)
    assert "migration.blocked" in line
    assert "9001" in line
    await holder.close()
    await ended(process)
    assert await look.fetchval(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname = 'more'"
    )


async def test_a_table_that_stays_in_use(tree: Tree, migrated_url: str, look: asyncpg.Connection, head: str) -> None:
    """After the last attempt: exit code 75, who is in the way, and nothing is changed."""
    tree.set("app/services/migrations.py", "ATTEMPTS: Final = 11", "ATTEMPTS: Final = 2")
    tree.add("9001", 'op.execute("ALTER TABLE users ADD COLUMN more text")')
    holder = await asyncpg.connect(migrated_url)
    await holder.execute("SET application_name = 'a report'; BEGIN; SELECT count(*) FROM users")
    said = await tree.rota(migrated_url, "db", "upgrade", code=Exit.TRY_AGAIN)
    assert "Revision 9001 did not get its locks in 2 attempts" in said
    assert f"process {holder.get_server_pid()} (a report) of" in said
    assert await look.fetchval("SELECT version_num FROM alembic_version") == head
    await holder.close()


async def test_deadlocks_are_tried_again(tree: Tree, migrated_url: str, look: asyncpg.Connection) -> None:
    """Twice chosen as the victim, then through: each attempt begins anew."""
    await look.execute("CREATE SEQUENCE tries")
    tree.set("app/services/migrations.py", "PAUSE_SECONDS: Final = (1.0, 3.0)", "PAUSE_SECONDS: Final = (0.0, 0.1)")
    victim = (
        "DO $$ BEGIN IF nextval('tries') < 3 THEN RAISE EXCEPTION 'chosen' USING ERRCODE = 'deadlock_detected'; "
        "END IF; END $$"
    )
    tree.add("9001", f'op.execute("CREATE TABLE once ()")\n    op.execute("{victim}")')
    said = await tree.rota(migrated_url, "db", "upgrade")
    assert said.count("migration.blocked") == 2
    assert await look.fetchval("SELECT last_value FROM tries") == 3


async def test_a_statement_that_takes_too_long(tree: Tree, migrated_url: str) -> None:
    """It is ended, and said; what a concurrent build may take is not bounded (see the killed one)."""
    tree.set("app/repositories/migrations.py", 'STATEMENT_TIMEOUT: Final = "5s"', 'STATEMENT_TIMEOUT: Final = "100ms"')
    tree.add("9001", 'op.execute("SELECT pg_sleep(60)")')
    said = await tree.rota(migrated_url, "db", "upgrade", code=Exit.FAILURE)
    assert "Revision 9001 failed and was rolled back: a statement took longer than 100ms" in said


async def test_a_revision_that_fails(tree: Tree, migrated_url: str, look: asyncpg.Connection, head: str) -> None:
    """The ones before it stay and are told of by the next run; one line says what was wrong."""
    tree.add("9001", 'op.execute("CREATE TABLE kept ()")')
    tree.add("9002", 'op.execute("CREATE TABLE lost ()")\n    op.execute("SELECT 1/0")', before="9001")
    said = await tree.rota(migrated_url, "db", "upgrade", code=Exit.FAILURE)
    assert "Revision 9002 failed and was rolled back: division by zero (SQLSTATE 22012)." in said
    assert await look.fetchval("SELECT to_regclass('kept') IS NOT NULL AND to_regclass('lost') IS NULL")
    assert await told(look) == []
    tree.add("9002", before="9001")
    await tree.rota(migrated_url, "db", "upgrade")
    assert await told(look) == [(head, "9002")]


async def test_leftovers_are_found(tree: Tree, migrated_url: str, look: asyncpg.Connection) -> None:
    """A constraint that no revision validates, an index of nobody's: all is done, and exit code 5 says so."""
    tree.add("9001", 'op.execute("ALTER TABLE users ADD CONSTRAINT ck_users_odd CHECK (id IS NOT NULL) NOT VALID")')
    said = await tree.rota(migrated_url, "db", "upgrade", code=Exit.CHECK_FAILED)
    assert "the constraint ck_users_odd is NOT VALID" in said
    await look.execute("ALTER TABLE users VALIDATE CONSTRAINT ck_users_odd")
    await look.execute("CREATE INDEX of_nobody ON users (created_at)")
    await look.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'of_nobody'::regclass")
    said = await tree.rota(migrated_url, "db", "upgrade", code=Exit.CHECK_FAILED)
    assert "the index of_nobody is INVALID" in said
    said = await tree.rota(migrated_url, "db", "status")
    assert "the index of_nobody is INVALID" in said


async def test_an_index_of_ours_is_mended(tree: Tree, migrated_url: str, look: asyncpg.Connection) -> None:
    """One that an applied revision made is built anew in place, with nothing pending."""
    await look.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_families_live'::regclass")
    await tree.rota(migrated_url, "db", "check", code=Exit.CHECK_FAILED)
    await tree.rota(migrated_url, "db", "upgrade")
    await tree.rota(migrated_url, "db", "check")
    assert await told(look) == []


async def test_within_an_event_loop(tree: Tree, migrated_url: str) -> None:
    """Whoever calls Alembic from a coroutine gets the same."""
    program = (
        "import asyncio; from app.cli.schema import upgrade_schema; import os\n"
        "async def main(): print(upgrade_schema(os.environ['ROTA_DATABASE_URL']).steps)\n"
        "asyncio.run(main())"
    )
    tree.add("9001")
    assert "('9001',)" in await ended(tree.start(migrated_url, program=program))


async def test_without_a_database(tree: Tree) -> None:
    """One sentence, exit code 75."""
    said = await tree.rota("postgresql://nobody@127.0.0.1:1/nowhere", "db", "upgrade", code=Exit.TRY_AGAIN)
    assert "cannot answer" in said


@pytest.mark.skipif(not PGBOUNCER.exists(), reason="needs Debian's pgbouncer")
async def test_behind_a_pooler(tree: Tree, migrated_url: str, look: asyncpg.Connection, pooled: Pooled) -> None:
    """Transaction pooling is refused, and said how to mend it; a pooler of sessions is as good as none."""
    tree.add("9001", 'op.execute("CREATE TABLE through ()")')
    async with pooled(migrated_url, "transaction") as url:
        said = await tree.rota(url, "db", "upgrade", code=Exit.REFUSED)
        assert "ROTA_MIGRATION_DATABASE_URL" in said
        assert await look.fetchval("SELECT to_regclass('through')") is None
        await tree.rota(url, "db", "upgrade", ROTA_MIGRATION_DATABASE_URL=migrated_url)
        assert await look.fetchval("SELECT to_regclass('through') IS NOT NULL")
    tree.add("9002", 'op.execute("CREATE TABLE through_sessions ()")', before="9001")
    async with pooled(migrated_url, "session") as url:
        await tree.rota(url, "db", "upgrade")
    assert await look.fetchval("SELECT to_regclass('through_sessions') IS NOT NULL")
