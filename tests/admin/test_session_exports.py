"""Sessions as a download, and on the command line."""

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import uvicorn

from app.api import session_exports
from app.domain.events import ANONYMOUS, NO_CLIENT
from app.domain.families import EndReason
from app.domain.session_exports import COLUMNS
from app.domain.spreadsheet_cells import harmless
from app.services import session_search
from tests.admin.found import Desk
from tests.admin.found import desk as desk  # noqa: PLC0414 - a fixture
from tests.conftest import SECRET, OwnDatabase

ROTA = str(Path(sys.executable).with_name("rota"))


async def exported(desk: Desk, **asked: Any) -> str:
    answer = await desk.http.get("/admin/sessions/export", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.text


async def test_an_export_is_the_list(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both forms, both orders, with a filter and without: the same sessions in the same order, over many pages."""
    monkeypatch.setattr(session_search, "EXPORT_PAGE", 7)
    await desk.make_rows(60)
    for asked in ({}, {"state": "active"}, {"browser": "Chrome", "os": "Windows"}, {"user": "nobody"}):
        for order in ("newest", "oldest"):
            listed = await desk.all_pages(**asked, order=order)
            lines = (await exported(desk, **asked, order=order)).splitlines()
            assert [json.loads(line)["id"] for line in lines] == listed
            rows = list(csv.DictReader(io.StringIO(await exported(desk, **asked, order=order, format="csv"))))
            assert [row["id"] for row in rows] == listed


@pytest.mark.case(69)
async def test_the_form_of_csv(desk: Desk) -> None:
    """RFC 4180: CRLF, quoted commas, quotes and line ends; what a spreadsheet would run begins with an apostrophe."""
    await desk.make_rows(1)
    hostile = {
        "label": '=HYPERLINK("http://x","a,b")',
        "device": "+1",
        "browser": "@SUM(1)",
        "os": "-2\r\n3",
        "user_agent": "\tx",
    }
    for name, value in hostile.items():
        await desk.sql.execute(f"UPDATE families SET {name} = $1 WHERE id = $2", value, desk.rows[0]["id"])
    answer = await desk.http.get("/admin/sessions/export", params={"format": "csv", "user": desk.rows[0]["username"]})
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="sessions.csv"'
    assert answer.text.startswith(",".join(COLUMNS) + "\r\n")
    assert answer.text.endswith("\r\n")
    (row,) = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert {name: row[name] for name in hostile} == {name: f"'{value}" for name, value in hostile.items()}
    plain = json.loads(await exported(desk, user=desk.rows[0]["username"]))
    assert {name: plain[name] for name in hostile} == hostile


@pytest.mark.case(69)
@pytest.mark.parametrize("first", [*"=+-@\t\r\n\0\uff1d\uff0b\uff0d\uff20"])
def test_no_cell_is_a_formula(first: str) -> None:
    """Whatever a spreadsheet takes for the beginning of one."""
    assert harmless(f"{first}1") == f"'{first}1"
    assert harmless(-1) == -1


async def test_an_export_is_an_event_at_both_ends(desk: Desk) -> None:
    """Filter and count; nothing of the rows, and no name."""
    await desk.make_rows(30)
    count = len(await desk.all_pages(user="ada", state="ended"))
    await exported(desk, user="ada", state="ended", format="csv")
    details = await _details(desk.sql, 2)
    assert [(each["stage"], each["count"], each["format"]) for each in details] == [
        ("begun", 0, "csv"),
        ("finished", count, "csv"),
    ]
    assert details[1]["filter"]["state"] == "ended"
    assert "ada" not in json.dumps(details)


async def _details(sql: asyncpg.Connection, count: int) -> list[dict[str, Any]]:
    """The exports' events, as soon as there are so many: the last one is written after the answer."""
    async with asyncio.timeout(20):
        while True:
            rows = await sql.fetch("SELECT detail FROM audit_events WHERE action = 'admin.exported' ORDER BY seq")
            if len(rows) >= count:
                return [json.loads(row["detail"]) for row in rows]
            await asyncio.sleep(0.05)


async def test_what_is_wrong_is_refused_before_anything_is_sent(desk: Desk) -> None:
    """422 as in the list; a form that is not known too."""
    for asked in ({"format": "xlsx"}, {"state": "dead"}, {"limit": "5"}, {"ip_scope": "any"}):
        await desk.refused(422, "/export", **asked)


@pytest.mark.case(71)
@pytest.mark.parametrize(("seconds", "most"), [(3600.0, 100), (0.0, 22)], ids=["by pieces", "by time"])
async def test_whoever_loses_the_session_amid_an_export_gets_no_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, seconds: float, most: int
) -> None:
    """The rest is not sent, and the event says that it was broken off; at once where a piece has taken long."""
    monkeypatch.setattr(session_exports, "CHECK_SECONDS", seconds)
    await desk.make_rows(150)
    monkeypatch.setattr(session_search, "EXPORT_PAGE", 1)
    (row,) = await desk.sql.fetch("SELECT id FROM families WHERE user_id = $1", desk.auditor.user.id)
    pages, seen = desk.services.session_search.pages, 0

    async def ending(*given: Any, **named: Any) -> AsyncIterator[Any]:
        nonlocal seen
        async for page in pages(*given, **named):
            seen += 1
            if seen == 20:
                await desk.services.sessions.end(
                    desk.auditor.user.id, row["id"], actor=ANONYMOUS, client=NO_CLIENT, reason=EndReason.ROLE_CHANGE
                )
            yield page

    monkeypatch.setattr(desk.services.session_search, "pages", ending)
    with pytest.raises(Exception):  # noqa: B017 - as a client sees it, the answer ends before its end
        await exported(desk)
    details = await _details(desk.sql, 2)
    assert details[-1]["stage"] == "broken_off"
    assert 20 <= details[-1]["count"] < most


@pytest.fixture
def served(desk: Desk) -> uvicorn.Server:
    return uvicorn.Server(uvicorn.Config(desk.app, host="127.0.0.1", port=0, log_config=None, lifespan="off"))


async def test_a_slow_or_vanished_reader_holds_no_transaction(desk: Desk, served: uvicorn.Server) -> None:
    """A real socket: while nobody reads, no connection is in a transaction; a hang-up is written down."""
    await desk.make_rows(100)
    await desk.sql.execute("UPDATE families SET user_agent = repeat('x', 500)")
    await desk.sql.execute(
        """
        INSERT INTO families (user_id, id, client_id, role, created_at, idle_expires_at, expires_at, user_agent, seed,
                              generation, event_seq, scope, authenticated_at, amr)
        SELECT user_id, gen_random_uuid(), client_id, role, created_at, idle_expires_at, expires_at, user_agent, seed,
               0, 1, '', created_at, 'pwd' FROM families CROSS JOIN generate_series(1, 300)
        """
    )
    task = asyncio.create_task(served.serve())
    while not served.started:
        await asyncio.sleep(0.02)
    port = served.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    head = (
        f"GET /admin/sessions/export HTTP/1.1\r\nHost: x\r\nAuthorization: {desk.http.headers['Authorization']}\r\n\r\n"
    )
    writer.write(head.encode())
    assert b"200 OK" in await reader.readline()
    idle = 0
    async with asyncio.timeout(60):
        while idle < 10:  # the server has filled what the socket takes, and waits for the reader
            busy = await desk.sql.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND xact_start IS NOT NULL AND backend_type = 'client backend'"
            )
            idle = 0 if busy else idle + 1
            await asyncio.sleep(0.05)
    writer.transport.abort()
    details = await _details(desk.sql, 2)
    assert details[-1]["stage"] == "broken_off"
    assert 0 < details[-1]["count"] < 30_000
    served.should_exit = True
    await task


def rota(own: OwnDatabase, *words: str, code: int = 0) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
    environment = {**clean, "ROTA_DATABASE_URL": own.app, "ROTA_SECRETS": SECRET, "COLUMNS": "200"}
    done = subprocess.run([ROTA, *words], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


async def test_on_the_command_line(desk: Desk, own: OwnDatabase, tmp_path: Path) -> None:
    """List, page, show, explain, export; the same as over HTTP, and exit codes that say what was wrong."""
    await desk.make_rows(40)
    ada = await desk.person("eve")
    issued = await ada.sign_in()
    await ada.refresh(issued.refresh_token)
    listed = json.loads(rota(own, "sessions", "list", "--json", "--limit", "500"))
    assert [item["id"] for item in listed["items"]] == await desk.all_pages()
    asked = ("--state", "ended", "--browser", "Chrome", "--limit", "2")
    page = json.loads(rota(own, "sessions", "list", *asked, "--json"))
    following = json.loads(rota(own, "sessions", "list", *asked, "--json", "--after", page["next"]))
    both = [item["id"] for item in page["items"] + following["items"]]
    assert both == (await desk.all_pages(state="ended", browser="Chrome"))[:4]
    session = str(issued.session_id)
    table = rota(own, "sessions", "list", "--user", "eve").splitlines()
    assert table[0].split()[:2] == ["created", "user"]
    assert session in table[1]
    shown = rota(own, "sessions", "show", session)
    assert "session.refreshed" in shown
    assert json.loads(rota(own, "sessions", "show", session, "--json"))["timeline"]["generations"][0]["generation"] == 1
    assert "is alive" in rota(own, "sessions", "explain", session).splitlines()[0]
    assert json.loads(rota(own, "sessions", "explain", session, "--json"))["state"] == "active"
    file = tmp_path / "sessions.csv"
    rota(own, "sessions", "export", "--format", "csv", "--output", str(file), "--order", "newest")
    with file.open(newline="", encoding="utf-8") as lines:
        assert [row["id"] for row in csv.DictReader(lines)] == await desk.all_pages()
    on_stdout = rota(own, "sessions", "export", "--user", "eve")
    assert json.loads(on_stdout)["id"] == session
    rota(own, "sessions", "export", "--output", str(file), code=1)
    rota(own, "sessions", "show", "01a20000-0000-7000-8000-000000000000", code=3)
    rota(own, "sessions", "list", "--ended-by", "nobody-at-all", code=3)
    assert "created-from" in rota(own, "sessions", "list", "--created-from", "yesterday", code=2)
    assert "ip" in rota(own, "sessions", "list", "--ip", "nowhere", code=2)
    assert "after" in rota(own, "sessions", "list", "--after", "nonsense", code=2)
