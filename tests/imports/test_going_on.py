"""Imports that are killed, altered, raced and refused: each line once, whatever happens."""

import asyncio
import json
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from app.cli.exits import Exit
from app.container import Container
from app.domain.errors import ImportAltered, ImportRunning, Unavailable
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.users import Role
from app.services import user_imports
from app.services.import_files import ImportFile
from tests.cli.test_cli import ROTA
from tests.conftest import PASSWORD, OwnDatabase, client_at
from tests.imports.conftest import HASH, Bring, Rota, count_users, csv_of, faults_of, many, settings_of

# Holds up a batch in the middle of its users, until the test lets go or the server's limit on waiting ends it.
STOP_AT = """
CREATE FUNCTION stop_here() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.username = '{name}' THEN PERFORM pg_advisory_xact_lock(4711); END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER stop_here BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION stop_here();
"""
GO_ON = "DROP TRIGGER stop_here ON users; DROP FUNCTION stop_here(); SELECT pg_advisory_unlock_all()"
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"
DONE = "SELECT coalesce(max(lines_done), 0) FROM user_imports"


async def until(question: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await question():
            await asyncio.sleep(0.005)


def started(own: OwnDatabase, file: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [ROTA, "users", "import", str(file), *words],
        env=settings_of(own),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def check_whole(sql: asyncpg.Connection, count: int) -> None:
    """Each user once, with exactly the events that they must have; one beginning and one end of the import."""
    assert await count_users(sql) == count
    found = await sql.fetchrow(
        """
        SELECT count(*) FILTER (WHERE created = 1) AS created, count(*) FILTER (WHERE disabled = 1) AS disabled,
               count(*) FILTER (WHERE created <> 1 OR disabled <> (disabled_at IS NOT NULL)::int) AS wrong
          FROM users LEFT JOIN LATERAL (
            SELECT count(*) FILTER (WHERE action = 'user.created') AS created,
                   count(*) FILTER (WHERE action = 'user.disabled') AS disabled
              FROM audit_events WHERE subject_id = users.id) AS e ON true
        """
    )
    assert found is not None
    assert (found["created"], found["disabled"], found["wrong"]) == (count, count // 10, 0)
    rows = await sql.fetch("SELECT action, detail FROM audit_events WHERE action LIKE 'import.%' ORDER BY seq")
    assert [row["action"] for row in rows] == ["import.started", "import.finished"]
    detail = json.loads(rows[1]["detail"])
    assert (detail["users"], detail["admins"], detail["disabled"]) == (count, count // 100, count // 10)


async def test_killed_between_batches_it_goes_on_exactly(
    own: OwnDatabase, own_sql: asyncpg.Connection, tmp_path: Path, rota: Rota
) -> None:
    """`kill -9` again and again while batches are written: in the end each line is there once, in the trail too."""
    file = many(tmp_path / "users.csv", 3000)
    killed = 0
    for least in (1, 500, 1500):
        process = started(own, file, "--batch", "20")

        async def come_far(process: subprocess.Popen[bytes] = process, least: int = least) -> bool:
            return process.poll() is not None or await own_sql.fetchval(DONE) >= least

        await until(come_far)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed
    before = await count_users(own_sql)
    assert before % 20 == 0
    done = await rota("import", file, "--json")
    assert done["resumed"]
    assert before <= done["users_before"] < done["users"] == 3000
    await check_whole(own_sql, 3000)
    again = await rota("import", file, "--json")
    assert (again["done_before"], again["users"]) == (True, 3000)
    await check_whole(own_sql, 3000)


async def test_killed_within_a_batch_nothing_of_it_stays(
    own: OwnDatabase, own_sql: asyncpg.Connection, tmp_path: Path, rota: Rota
) -> None:
    """A batch is one transaction: users, events and progress. What goes on may have another size of batch."""
    file = many(tmp_path / "users.csv", 300)
    await own_sql.execute(STOP_AT.format(name="person-150"))
    await own_sql.execute("SELECT pg_advisory_lock(4711)")
    process = started(own, file, "--batch", "40")

    async def is_within() -> bool:
        assert process.poll() is None
        return bool(await own_sql.fetchval(WAITING))

    await until(is_within)
    process.send_signal(signal.SIGKILL)
    process.wait()
    await own_sql.execute(GO_ON)
    assert await own_sql.fetchval(DONE) == 121  # the heading is a line
    assert await count_users(own_sql) == 120
    done = await rota("import", file, "--json", "--batch", 70)
    assert (done["users_before"], done["users"], done["resumed"]) == (120, 300, True)
    await check_whole(own_sql, 300)


async def test_the_trail_and_its_figures_agree_with_the_tables(
    own_sql: asyncpg.Connection, services_of_own: Container, tmp_path: Path, bring: Bring
) -> None:
    """Reconciliation finds no difference for imported users, the disabled ones among them; nor does `stats --check`."""
    await bring(many(tmp_path / "users.csv", 200))
    result = await services_of_own.reconciliation.run(progress=lambda *_: None, actor=SYSTEM, client=NO_CLIENT)
    assert (result.differences, result.users) == ([], 200)
    for _ in range(3):
        await services_of_own.stats.count()
    recounted = await services_of_own.stats_check.run(lambda _done, _total: None)
    assert recounted.differences == []


async def test_a_file_that_was_altered_does_not_go_on(
    own_sql: asyncpg.Connection, tmp_path: Path, bring: Bring, monkeypatch: pytest.MonkeyPatch, rota: Rota
) -> None:
    """Which lines are done is known of the file as it was: altered it is refused, put back it goes on."""
    file = many(tmp_path / "users.csv", 100)
    was = file.read_bytes()
    writes = user_imports.UserImports._write_once
    count = 0

    async def breaks_off(*args: object, **options: object) -> object:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return await writes(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(user_imports.UserImports, "_write_once", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        await bring(file, size=20)
    monkeypatch.undo()
    assert await count_users(own_sql) == 40
    file.write_bytes(was.replace(b"person-90", b"person-9x"))
    with pytest.raises(ImportAltered):
        await bring(file)
    done = await rota("import", file, code=Exit.REFUSED)
    assert "put back the file as it was" in done.stderr
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_bytes(file.read_bytes())
    assert {fault[2] for fault in faults_of(await bring(elsewhere))} == {"taken"}
    assert await count_users(own_sql) == 40
    moved = tmp_path / "moved.csv"
    moved.write_bytes(was)
    brought = await bring(moved)
    assert (brought.before, brought.done.users) == (40, 100)
    await check_whole(own_sql, 100)


async def test_a_file_that_changes_while_it_is_written_stops_there(
    own_sql: asyncpg.Connection, tmp_path: Path, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not checked is not written: the batches before the change stay, none after it."""
    file = many(tmp_path / "users.csv", 100)
    begins = user_imports.UserImports._begin

    async def alters(*args: object, **options: object) -> object:
        begun = await begins(*args, **options)  # type: ignore[arg-type]
        with file.open("r+b") as inside:
            inside.seek(file.stat().st_size - 10)
            inside.write(b"x")
        return begun

    monkeypatch.setattr(user_imports.UserImports, "_begin", alters)
    with pytest.raises(ImportAltered):
        await bring(file, size=30)
    assert await count_users(own_sql) in {60, 90}


async def test_a_file_that_grew_since_it_was_opened(tmp_path: Path) -> None:
    """What was read for its digest is what the import is of, to the last line."""
    path = many(tmp_path / "users.csv", 10)
    with ImportFile(path) as file:
        with path.open("ab") as more:
            more.write(b"one-more,,,\r\n")
        file.digest()
        assert file.size == path.stat().st_size
        assert [batch.position >= file.size for batch in file.batches(after=0, size=4)] == [False, False, True]


async def test_a_name_taken_meanwhile_is_left_out_and_told(
    own: OwnDatabase, own_sql: asyncpg.Connection, services_of_own: Container, tmp_path: Path, rota: Rota
) -> None:
    """Somebody registers between check and batch, even amid the batch: the line is told, and the rest is there."""
    file = many(tmp_path / "users.csv", 100)
    await own_sql.execute(STOP_AT.format(name="person-10"))
    await own_sql.execute("SELECT pg_advisory_lock(4711)")
    importing = asyncio.create_task(rota("import", file, "--batch", 30, "--json"))

    async def is_within() -> bool:
        assert not importing.done()
        return bool(await own_sql.fetchval(WAITING))

    await until(is_within)
    # In this batch, behind the row at which it waits; and in a batch to come.
    for name in ("PERSON-25", "person-77"):
        await services_of_own.users.create(name, PASSWORD, role=Role.USER, actor=SYSTEM, client=client_at())
    await own_sql.execute(GO_ON)
    done = await importing
    assert (done["users"], done["skipped"], done["skipped_lines"]) == (98, 2, [26, 78])
    assert await count_users(own_sql) == 100
    assert await own_sql.fetchval("SELECT count(*) FROM users WHERE password_hash = $1", HASH) == 98
    again = await rota("import", file)
    assert "imported already" in again.stdout
    assert "line 26, 78" in again.stderr


async def test_two_at_once_one_works(
    own: OwnDatabase, own_sql: asyncpg.Connection, tmp_path: Path, rota: Rota, bring: Bring
) -> None:
    """The same file in two processes: the second is refused while the first works, and nothing is there twice."""
    file = many(tmp_path / "users.csv", 200)
    await own_sql.execute(STOP_AT.format(name="person-150"))
    await own_sql.execute("SELECT pg_advisory_lock(4711)")
    importing = asyncio.create_task(rota("import", file, "--batch", 30))

    async def is_within() -> bool:
        return bool(await own_sql.fetchval(WAITING))

    await until(is_within)
    copy = tmp_path / "copy.csv"
    copy.write_bytes(file.read_bytes())
    with pytest.raises(ImportRunning):
        await bring(copy)
    await own_sql.execute(GO_ON)
    await importing
    await check_whole(own_sql, 200)


async def test_many_at_once_is_each_line_once(own_sql: asyncpg.Connection, tmp_path: Path, bring: Bring) -> None:
    """Files that overlap, at once, in opposite order: no deadlock, and each name goes to one of them."""
    names = [f"person-{n}" for n in range(400)]
    one = csv_of(tmp_path / "one.csv", [[name, "", "", ""] for name in names])
    other = csv_of(tmp_path / "other.csv", [[name, "", "auditor", ""] for name in reversed(names)])
    done = await asyncio.gather(bring(one, size=37), bring(other, size=41))
    assert await count_users(own_sql) == 400
    made = [brought.done.users if brought.done else 0 for brought in done]
    assert sum(made) == 400
    created = await own_sql.fetchval("SELECT count(*) FROM audit_events WHERE action = 'user.created'")
    assert created == 400


async def test_a_lost_answer_to_a_commit_is_no_second_batch(
    own_sql: asyncpg.Connection, tmp_path: Path, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch has committed, and the answer was lost: the row says so, and it is not written again."""
    file = many(tmp_path / "users.csv", 100)
    writes = user_imports.UserImports._write_once
    lost: list[object] = []

    async def loses(*args: object, **options: object) -> object:
        done = await writes(*args, **options)  # type: ignore[arg-type]
        if len(lost) < 2:
            lost.append(done)
            raise Unavailable(why="connection lost")
        return done

    monkeypatch.setattr(user_imports.UserImports, "_write_once", loses)
    brought = await bring(file, size=50)
    assert len(lost) == 2
    assert (brought.done.users, brought.done.skipped) == (100, 0)
    await check_whole(own_sql, 100)
