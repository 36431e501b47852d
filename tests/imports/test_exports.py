"""Leaving again: what is exported, who can read it, and that it comes back as it was."""

import asyncio
import csv
import io
import json
import os
import pty
import stat
import subprocess
from pathlib import Path

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.exits import Exit
from app.container import Container
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.import_lines import heading, read_csv, read_heading, read_object, write_line
from app.domain.spreadsheet_cells import bare, guarded
from app.domain.user_imports import COLUMNS, ImportFormat
from app.domain.users import Credential, Role
from app.services.acting import Acting
from tests.cli.test_cli import ROTA
from tests.conftest import PASSWORD, OwnDatabase, client_at
from tests.imports.conftest import HASH, Bring, Rota, csv_of, faults_of, settings_of

FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM",
    "'=1",
    "''",
    "'",
    "'ada",
    "\uff1dcmd|calc",
    'a"b',
    "a,b",
    '"',
    "\uff0b2",
    "\u00fc",
]
ROWS = """
SELECT username, username_key, password_hash, role, disabled_at IS NOT NULL, created_at FROM users ORDER BY username_key
"""


@pytest.mark.parametrize("form", ["csv", "ndjson"])
async def test_what_is_exported_comes_back_exactly(
    form: str, own: OwnDatabase, own_sql: asyncpg.Connection, services_of_own: Container, tmp_path: Path, rota: Rota
) -> None:
    """Names that a spreadsheet would run, quotes and commas, every role, those shut out, the times of creation."""
    lines = [{"username": name, "role": "auditor", "disabled": n % 2 == 0} for n, name in enumerate(FORMULAS)]
    lines.append(
        {"username": "ada", "password_hash": HASH, "role": "admin", "created_at": "2020-02-29T12:00:00.123456Z"}
    )
    (tmp_path / "in.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    await rota("import", tmp_path / "in.ndjson")
    user = await services_of_own.users.create("ben", PASSWORD, role=Role.USER, actor=SYSTEM, client=client_at())
    before = [tuple(row) for row in await own_sql.fetch(ROWS)]
    assert len(before) == len(FORMULAS) + 2
    out = tmp_path / f"out.{form}"
    done = await rota("export", "--format", form, "--output", out)
    assert f"users: {len(before)}" in done.stderr
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    if form == "csv":
        cells = [cell for row in csv.reader(io.StringIO(out.read_text(), newline="")) for cell in row]
        assert not any(cell.startswith(("=", "+", "-", "@", "\uff1d", "\uff0b")) for cell in cells)
    await own_sql.execute("TRUNCATE users")
    assert (await rota("import", out, "--json"))["users"] == len(before)
    assert [tuple(row) for row in await own_sql.fetch(ROWS)] == before
    assert user.password_hash in {row[2] for row in before}


async def test_who_is_not_in_it(
    own_sql: asyncpg.Connection, services_of_own: Container, tmp_path: Path, rota: Rota
) -> None:
    """Deleted users are not, and a one-time password is not: imported it would be good for ever."""
    gone = await services_of_own.users.create("gone", PASSWORD, role=Role.USER, actor=SYSTEM, client=client_at())
    await services_of_own.users.delete(gone.id, by=Acting(SYSTEM, NO_CLIENT))
    one_time = Credential.ONE_TIME_PASSWORD
    await services_of_own.credentials.invite("ada", role=Role.USER, credential=one_time, by=Acting(SYSTEM, NO_CLIENT))
    assert await own_sql.fetchval("SELECT password_hash FROM users WHERE username = 'ada'") is not None
    out = await rota("export")
    assert [(row["username"], row["password_hash"]) for row in map(json.loads, out.stdout.splitlines())] == [
        ("ada", None)
    ]


async def test_that_somebody_exported_is_an_event(
    own_sql: asyncpg.Connection, tmp_path: Path, rota: Rota, bring: Bring
) -> None:
    """One when it begins, before anything is read, one when it ends, with how many; no hash in either."""
    await bring(csv_of(tmp_path / "users.csv", [["ada", HASH, "", ""], ["ben", HASH, "", ""]]))
    await rota("export")
    rows = await own_sql.fetch("SELECT detail FROM audit_events WHERE action = 'admin.exported' ORDER BY seq")
    found = [json.loads(row["detail"]) for row in rows]
    assert [(each["what"], each["stage"], each["count"]) for each in found] == [
        ("users", "begun", 0),
        ("users", "finished", 2),
    ]
    assert not any(HASH in row["detail"] for row in rows)


async def test_never_over_a_file_and_never_to_a_screen(
    own: OwnDatabase, own_sql: asyncpg.Connection, tmp_path: Path, rota: Rota, bring: Bring
) -> None:
    """What is there stays, a link is not followed, and a terminal gets hashes only if it is said."""
    await bring(csv_of(tmp_path / "users.csv", [["ada", HASH, "", ""]]))
    there = tmp_path / "there.csv"
    there.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path in (there, tmp_path / "link", tmp_path / "no" / "folder"):
        await rota("export", "--output", path, code=Exit.USAGE)
    assert there.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    for words, told in (((), False), (("--to-terminal",), True)):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [ROTA, "users", "export", *words], env=settings_of(own), stdout=theirs, stdin=theirs, stderr=subprocess.PIPE
        )
        _, said = await asyncio.to_thread(process.communicate)
        os.close(theirs)
        shown = os.read(ours, 65_536) if told else b""
        os.close(ours)
        assert (process.returncode == 0, HASH.encode() in shown) == (told, told), said
    assert await own_sql.fetchval("SELECT count(*) FROM audit_events WHERE action = 'admin.exported'") == 2


async def test_many_pages_are_one_export(own_sql: asyncpg.Connection, tmp_path: Path, bring: Bring, rota: Rota) -> None:
    """Page by page by id: each user once, however many there are."""
    await bring(csv_of(tmp_path / "users.csv", [[f"person-{n}", "", "", ""] for n in range(2500)]))
    names = [json.loads(line)["username"] for line in (await rota("export")).stdout.splitlines()]
    assert sorted(names) == sorted(f"person-{n}" for n in range(2500))


@given(st.text())
def test_a_guarded_cell_comes_back(cell: str) -> None:
    """Whatever it is, and no spreadsheet takes it for a formula."""
    assert bare(guarded(cell)) == cell
    assert guarded(cell)[:1] not in set("=+-@\t\r\n\0\uff1d\uff0b\uff0d\uff20")


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1) | st.sampled_from(FORMULAS)


@given(NAMES, st.none() | st.sampled_from([HASH, "{SSHA}abc=", "S:00", "_abc"]), st.booleans(), st.sampled_from(Role))
def test_a_line_comes_back(name: str, password_hash: str | None, disabled: bool, role: Role) -> None:  # noqa: FBT001
    """Both formats, any name without a line break: written and read it is the same."""
    values = {
        "username": name, "password_hash": password_hash, "role": role.value, "disabled": disabled,
        "created_at": "2026-11-28T00:00:00.000000Z",
    }  # fmt: skip
    assert read_object(write_line(ImportFormat.NDJSON, values)) == values
    columns = read_heading(heading(ImportFormat.CSV).removesuffix("\r\n"))
    assert columns == COLUMNS
    line = write_line(ImportFormat.CSV, values)
    assert next(csv.reader([line], strict=True))[0] == guarded(name)
    row = read_csv(line.removesuffix("\r\n"), columns)
    assert {**row, "password_hash": row["password_hash"] or None} == values


async def test_a_cell_of_somebody_elses_file(tmp_path: Path, own_sql: asyncpg.Connection, bring: Bring) -> None:
    """An apostrophe that guards nothing belongs to the name."""
    brought = await bring(csv_of(tmp_path / "users.csv", [["'ada", "", "", ""], ["o'neill", "", "", ""]]))
    assert faults_of(brought) == []
    assert [row["username"] for row in await own_sql.fetch("SELECT username FROM users ORDER BY 1")] == [
        "'ada",
        "o'neill",
    ]
