"""Files as they come: what is taken, and the one report of all that is not."""

import asyncio
import contextlib
import json
import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.cli.exits import Exit
from app.domain.user_imports import ImportFormat
from tests.cli.test_cli import ROTA
from tests.conftest import OwnDatabase
from tests.imports.conftest import HASH, Bring, Rota, count_users, csv_of, faults_of, many, settings_of

HEADING = b"username,password_hash,role,disabled\r\n"


async def test_csv_from_the_heading_to_the_trail(own_sql: asyncpg.Connection, tmp_path: Path, rota: Rota) -> None:
    """Names, hashes, roles and who is shut out are stored as they stand, with an event each under the import's id."""
    file = csv_of(
        tmp_path / "users.csv",
        [["Ada", HASH, "admin", "false"], ["ben", "", "", ""], ['"c""c"', HASH, "auditor", "TRUE"]],
    )
    done = await rota("import", file, "--json")
    assert (done["users"], done["admins"], done["disabled"], done["skipped"]) == (3, 1, 1, 0)
    rows = await own_sql.fetch("SELECT * FROM users ORDER BY username_key")
    assert [(row["username"], row["username_key"], row["password_hash"], row["role"]) for row in rows] == [
        ("Ada", "ada", HASH, "admin"),
        ("ben", "ben", None, "user"),
        ('c"c', 'c"c', HASH, "auditor"),
    ]
    assert [row["disabled_at"] is not None for row in rows] == [False, False, True]
    assert not any(row["must_change_password"] for row in rows)
    events = await own_sql.fetch("SELECT * FROM audit_events WHERE request_id = $1::uuid ORDER BY seq", done["id"])
    assert [(row["action"], row["actor_kind"]) for row in events] == [
        ("import.started", "system"),
        ("user.created", "system"),
        ("user.created", "system"),
        ("user.created", "system"),
        ("user.disabled", "system"),
        ("import.finished", "system"),
    ]
    told = {str(row["subject_id"]): row["detail"] for row in events[1:4]}
    assert [told[str(row["id"])] for row in rows] == [f'{{"role":"{row["role"]}"}}' for row in rows]
    around = await own_sql.fetch("SELECT action, detail FROM audit_events WHERE action LIKE 'import.%' ORDER BY seq")
    assert [row["action"] for row in around] == ["import.started", "import.finished"]
    assert json.loads(around[1]["detail"]) == {
        "admins": 1, "disabled": 1, "import": done["id"], "skipped": 0, "users": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbfusername,role\r\nada,user\r\nben,user\r\n", id="BOM and CRLF"),
        pytest.param(b"username,role\nada,user\nben,user", id="LF, and no end of the last line"),
        pytest.param(b'Role,"Username"\nuser,ada\n\n\r\nuser,ben\n\n', id="columns in any order, and empty lines"),
        pytest.param(b"username\nada\nben\n", id="names only"),
        pytest.param(b"\n\r\n\nusername\n\nada\nben\n", id="empty lines before the heading"),
        pytest.param(b"\xef\xbb\xbf\r\nusername\r\nada\r\nben\r\n", id="BOM, and an empty line"),
        pytest.param(b'\xef\xbb\xbf{"username":"ada"}\n{"username":"ben","role":null}\n', id="NDJSON"),
    ],
)
async def test_forms_of_the_same_two(content: bytes, own_sql: asyncpg.Connection, tmp_path: Path, bring: Bring) -> None:
    """What the standards leave open does not matter."""
    file = tmp_path / "users"
    file.write_bytes(content)
    form = ImportFormat.NDJSON if b"{" in content else ImportFormat.CSV
    brought = await bring(file, form=form)
    assert faults_of(brought) == []
    assert [row["username"] for row in await own_sql.fetch("SELECT username FROM users ORDER BY 1")] == ["ada", "ben"]


CSV_FAULTS = [
    pytest.param(b"ada,,user", "line", "wrong_column_count", id="a column too few"),
    pytest.param(b"ada,,user,,", "line", "wrong_column_count", id="a column too many"),
    pytest.param(b'"ada,,user,', "line", "unbalanced_quotes", id="an open quote"),
    pytest.param(b'a"da,,user,', "line", "unbalanced_quotes", id="a quote within"),
    pytest.param(b'"ada"x,,user,', "line", "unbalanced_quotes", id="a quote too early"),
    pytest.param(b"\xffda,,user,", "line", "not_utf8", id="no UTF-8"),
    pytest.param(b"\xed\xa0\x80da,,user,", "line", "not_utf8", id="a surrogate in UTF-8"),
    pytest.param(b"a\0da,,user,", "line", "nul", id="NUL"),
    pytest.param(b"a" * 20_000, "line", "line_too_long", id="a long line"),
    pytest.param(b"ada," + b"$" * 10_000_000, "line", "line_too_long", id="a line of 10 MB"),
    pytest.param(b",,user,", "username", "missing", id="no name"),
    pytest.param(b"a da,,user,", "username", "username_refused", id="a space"),
    pytest.param(b"ada\r,,user,", "username", "username_refused", id="a bare CR"),
    pytest.param("a\u2028da,,user,".encode(), "username", "username_refused", id="U+2028"),
    pytest.param(b"a" * 255 + b",,user,", "username", "username_refused", id="255 characters"),
    pytest.param(b"ada,,root,", "role", "unknown_role", id="a role"),
    pytest.param(b"ada,,User,", "role", "unknown_role", id="a role in capitals"),
    pytest.param(b"ada,,user,yes", "disabled", "not_a_boolean", id="yes"),
    pytest.param(b"ada,,user,1", "disabled", "not_a_boolean", id="1"),
    pytest.param(b"ada,hunter2,user,", "password_hash", "hash_unknown", id="a password"),
    pytest.param(b"ada,!,user,", "password_hash", "hash_disabled", id="a mark of none"),
    pytest.param(b"ada,5f4dcc3b5aa765d61d8327deb882cf99,user,", "password_hash", "hash_unsafe", id="MD5"),
    pytest.param(b"ada,$2b$12$short,user,", "password_hash", "hash_malformed", id="half a hash"),
    pytest.param(b"ada,$2b$31$" + b"a" * 53 + b",user,", "password_hash", "hash_too_costly", id="too costly"),
    pytest.param(b"BEN,,user,", "username", "duplicate", id="twice in the file, in another case"),
    pytest.param("\uff22EN,,user,".encode(), "username", "duplicate", id="twice, in full width"),
    pytest.param(b"Taken,,user,", "username", "taken", id="somebody has it"),
]


@pytest.mark.parametrize(("line", "field", "reason"), CSV_FAULTS)
async def test_a_faulty_line_of_csv(
    line: bytes, field: str, reason: str, own_sql: asyncpg.Connection, tmp_path: Path, bring: Bring
) -> None:
    """Each is told by number, field and reason; the lines around it are good, and nothing is written."""
    before = tmp_path / "before.csv"
    before.write_bytes(b"username\ntaken\n")
    await bring(before)
    file = tmp_path / "users.csv"
    file.write_bytes(HEADING + b"ben,,user,\r\n" + line + b"\r\ncleo,,user,\r\n")
    brought = await bring(file)
    assert faults_of(brought) == [(3, field, reason)]
    assert await count_users(own_sql) == 1
    assert await own_sql.fetchval("SELECT count(*) FROM user_imports") == 1


JSON_FAULTS = [
    pytest.param('{"username": "ada"', "line", "not_json", id="open"),
    pytest.param('{"username": "ada"} x', "line", "not_json", id="more behind it"),
    pytest.param('["ada"]', "line", "not_an_object", id="a list"),
    pytest.param('"ada"', "line", "not_an_object", id="a text"),
    pytest.param("[" * 16_000, "line", "too_deep", id="depth"),
    pytest.param('{"username": "ada", "username": "eve"}', "line", "duplicate_member", id="a member twice"),
    pytest.param('{"username": "ada", "is_admin": true}', "line", "unknown_member", id="a member more"),
    pytest.param('{"username": 4711}', "username", "not_text", id="a number"),
    pytest.param('{"username": {"a": "b"}}', "username", "not_text", id="an object"),
    pytest.param('{"username": NaN}', "line", "not_json", id="NaN"),
    pytest.param('{"username": ' + "9" * 5000 + "}", "line", "not_json", id="a number of 5,000 digits"),
    pytest.param('{"role": "user"}', "username", "missing", id="no name"),
    pytest.param('{"username": null}', "username", "missing", id="null"),
    pytest.param(r'{"username": "a\u0000da"}', "username", "nul", id="NUL"),
    pytest.param(r'{"username": "a\ud800da"}', "username", "surrogate", id="a lone surrogate"),
    pytest.param(r'{"username": "ada", "password_hash": "\udfff"}', "password_hash", "surrogate", id="in the hash"),
    pytest.param('{"username": "ada", "role": 1}', "role", "not_text", id="a role by number"),
    pytest.param('{"username": "ada", "disabled": "true"}', "disabled", "not_a_boolean", id="a text"),
    pytest.param('{"username": "ada", "disabled": 0}', "disabled", "not_a_boolean", id="zero"),
    pytest.param('{"username": "ada", "created_at": "yesterday"}', "created_at", "not_a_time", id="no time"),
    pytest.param('{"username": "ada", "created_at": "2020-01-01T00:00:00"}', "created_at", "not_a_time", id="no zone"),
    pytest.param('{"username": "ada", "created_at": "0001-01-01T00:00:00+14:00"}', "created_at", "not_a_time", id="0"),
    pytest.param('{"username": "ada", "created_at": "9999-12-31T23:59:59Z"}', "created_at", "in_the_future", id="9999"),
]


@pytest.mark.parametrize(("line", "field", "reason"), JSON_FAULTS)
async def test_a_faulty_line_of_ndjson(
    line: str, field: str, reason: str, own_sql: asyncpg.Connection, tmp_path: Path, bring: Bring
) -> None:
    """Likewise, where a value has a type besides."""
    file = tmp_path / "users.ndjson"
    file.write_text('{"username": "ben"}\n' + line + '\n{"username": "cleo"}\n')
    assert faults_of(await bring(file)) == [(2, field, reason)]
    assert await count_users(own_sql) == 0


@pytest.mark.parametrize(
    ("heading", "field", "reason", "unknown"),
    [
        pytest.param(
            b"username,email,is admin\nada,,\n", "line", "unknown_member", ["email", "is admin"], id="unknown"
        ),
        pytest.param(b"username,role,Role\nada,,\n", "line", "duplicate_member", [], id="twice"),
        pytest.param(b"password_hash,role\n,\n", "username", "missing", [], id="no names"),
        pytest.param(b"", "username", "missing", [], id="an empty file"),
        pytest.param(b"\n\n", "username", "missing", [], id="empty lines"),
        pytest.param(b"ada,hunter2,user\nben,,\n", "username", "missing", [], id="data"),
        pytest.param(b"username," + HASH.encode() + b"\n", "line", "unknown_member", ["?"], id="data among names"),
        pytest.param("username\n".encode("utf-16"), "line", "nul", [], id="UTF-16"),
    ],
)
async def test_a_heading_that_cannot_be_taken(
    heading: bytes, field: str, reason: str, unknown: list[str], tmp_path: Path, bring: Bring
) -> None:
    """Columns that are not known are named; what is no name of a column, but somebody's hash, is not repeated."""
    file = tmp_path / "users.csv"
    file.write_bytes(heading)
    brought = await bring(file)
    assert brought.checked is not None
    assert faults_of(brought) == [(1, field, reason)]
    assert brought.checked.faults.unknown == unknown


async def test_one_report_of_all_that_is_wrong(own_sql: asyncpg.Connection, tmp_path: Path, rota: Rota) -> None:
    """Every faulty line, in order, every field of it; to a person fifty, to a program all; never a hash or a name."""
    secret = "5f4dcc3b5aa765d61d8327deb882cf99"
    odd = f"$scram$4096$c2FsdHNhbHQ$sha-1=c2FsdHNhbHQ,{secret}=c2FsdHNhbHQ"  # passlib would say it aloud
    rows = [["ada", HASH, "user", ""], *([f"somebody-{n}", secret, "root", "maybe"] for n in range(100))]
    file = csv_of(tmp_path / "users.csv", [*rows, ["ben", f'"{odd}"', "", ""], ["ADA", "", "", ""]])
    told = await rota("import", file, "--json", code=Exit.CHECK_FAILED)
    assert (told["written"], told["faulty_lines"], told["fault_count"]) == (False, 102, 302)
    assert told["faults"][-2] == {"line": 103, "field": "password_hash", "reason": "hash_malformed"}
    assert told["faults"][:3] == [
        {"line": 3, "field": "password_hash", "reason": "hash_unsafe"},
        {"line": 3, "field": "role", "reason": "unknown_role"},
        {"line": 3, "field": "disabled", "reason": "not_a_boolean"},
    ]
    assert told["faults"][-1] == {"line": 104, "field": "username", "reason": "duplicate", "first_line": 2}
    said = await rota("import", file, code=Exit.CHECK_FAILED)
    assert said.stdout.splitlines()[0] == "line 3: password_hash: hash_unsafe"
    assert said.stdout.splitlines()[-1] == "and 252 more; --json tells of all"
    assert "Nothing was written" in said.stderr
    for text in (json.dumps(told), said.stdout, said.stderr):
        assert secret not in text
        assert "somebody" not in text
    assert await count_users(own_sql) == 0


async def test_a_look_writes_nothing(own_sql: asyncpg.Connection, tmp_path: Path, rota: Rota) -> None:
    """`--dry-run` tells what would be made; the table, the trail and the list of imports stay as they were."""
    file = many(tmp_path / "users.csv", 250)
    events = await own_sql.fetchval("SELECT count(*) FROM audit_events")
    told = await rota("import", file, "--dry-run", "--json")
    assert (told["written"], told["users"], told["admins"], told["disabled"]) == (False, 250, 2, 25)
    assert await count_users(own_sql) == 0
    assert await own_sql.fetchval("SELECT count(*) FROM user_imports") == 0
    assert await own_sql.fetchval("SELECT count(*) FROM audit_events") == events


async def test_what_cannot_be_read_twice_is_refused(tmp_path: Path, rota: Rota) -> None:
    """A pipe, a directory, nothing at all, and a name that does not say the format."""
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "users").write_text("username\n")
    for name in ("pipe.csv", "", "nothing.csv", "users"):
        path: Any = tmp_path / name
        await rota(
            "import", path, "--format" if name == "" else "--batch", "csv" if name == "" else 10, code=Exit.USAGE
        )


async def test_on_a_terminal_a_bar_tells_rate_and_time(own: OwnDatabase, tmp_path: Path) -> None:
    """Standard error alone has it, and only if it is a terminal; standard output stays for programs."""
    file = many(tmp_path / "users.csv", 3000)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [ROTA, "users", "import", str(file), "--batch", "100", "--json"],
        env={**settings_of(own), "TERM": "xterm", "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""

    def read_all() -> None:
        nonlocal shown
        with contextlib.suppress(OSError):  # the terminal ends with the process
            while piece := os.read(ours, 65_536):
                shown += piece

    reading = asyncio.create_task(asyncio.to_thread(read_all))
    out, _ = await asyncio.to_thread(process.communicate)
    await reading
    os.close(ours)
    assert process.returncode == 0, shown
    assert json.loads(out)["users"] == 3000
    assert re.search(rb"checking", shown)
    assert re.search(rb"importing.*3000/3000.*[\d,]+/s.*\d:\d\d:\d\d", shown)
