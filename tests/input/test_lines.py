"""Log lines of what attackers write: one line an event, escaped, in both forms; the trail has the exact value."""

import json
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
import structlog
from fastapi import FastAPI

from app.http import middleware
from app.observability.logs import configure_logs, describe_failure, get_logger
from tests.conftest import PASSWORD

EVIL = [
    "a\r\nb", "a\nlevel=error event=fake", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u2028\u2029", "\u0085\x0b\x0c",
    "%s %n %d %(x)s {0} {x}", "${jndi:ldap://x/y}", '"}{"event":"fake', "\x00", "\x7f\x9b31m", "\u202eabc", "\ud800",
    "\\r\\n", "a" * 10_000, "<script>alert(1)</script>", "\ufeff", "\x08\x08\x08",
]  # fmt: skip
TOKEN = "rota_dt_" + "A" * 43
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"


@pytest.fixture(autouse=True)
def _restore_logs() -> Iterator[None]:
    """The very lists that were there: loggers in use hold on to them, and so do tests that look into what is logged."""
    structlog.contextvars.clear_contextvars()
    root = logging.getLogger()
    known, handlers, level = structlog.get_config(), root.handlers[:], root.level
    yield
    structlog.configure(**known)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.case(54)
@pytest.mark.parametrize("evil", EVIL, ids=ascii)
@pytest.mark.parametrize("form", ["json", "console"])
def test_one_line_whatever_it_holds(capsys: pytest.CaptureFixture[str], form: Any, evil: str) -> None:
    """As a value, a member's name, the event, within a list, and in a library's own line."""
    configure_logs(form)
    get_logger().info("event", username=evil, within=[evil, {"a": evil}])
    get_logger().warning(evil, **{evil: 1})
    logging.getLogger("a.library").warning("said %s", evil)
    said = capsys.readouterr().err
    lines = said.split("\n")
    assert lines.pop() == ""
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines), lines
    if form == "json":
        read = [json.loads(line) for line in lines]
        assert read[0]["username"] == evil
        assert read[1]["event"] == evil
        assert all(line.isascii() for line in lines)


@pytest.mark.parametrize("form", ["json", "console"])
def test_tokens_of_every_kind_are_blanked(capsys: pytest.CaptureFixture[str], form: Any) -> None:
    """Also those that came later than the rule, wherever they stand."""
    configure_logs(form)
    get_logger().info(f"got {TOKEN}", value=JWT, deep=[{"a": f"x {TOKEN}"}])
    logging.getLogger("a.library").warning("said %s", TOKEN)
    said = capsys.readouterr().err
    assert TOKEN not in said
    assert JWT not in said
    assert said.count("[redacted]") == 4


@pytest.mark.case(57)
@pytest.mark.parametrize("form", ["json", "console"])
def test_an_exception_with_a_token_in_scope(capsys: pytest.CaptureFixture[str], form: Any) -> None:
    """Classes and places: no message, no local variable, no source line, even where a library logs it with debug on."""
    configure_logs(form, least=logging.DEBUG)

    def inner(refresh_token: str) -> None:
        password = f"hunter2-{refresh_token}"
        raise RuntimeError(password)

    try:
        try:
            inner(TOKEN)
        except RuntimeError as error:
            raise ValueError(TOKEN) from error
    except ValueError as error:
        get_logger().error("broke", **describe_failure(error))
        get_logger().exception("broke again")
        logging.getLogger("a.library").exception("said")
        logging.getLogger("a.library").error("said", exc_info=error, stack_info=True)
    said = capsys.readouterr().err
    assert "ValueError" in said
    assert "RuntimeError" in said
    for secret in (TOKEN, "hunter2", "A" * 43, "raise ", "password = "):
        assert secret not in said


@pytest.mark.case(57)
async def test_a_broken_route_with_debug_on(
    app: FastAPI, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The framework's debug answer would show the source; ours is 500 and an id, and the log has no token."""
    app.debug = True

    async def broken(_self: object, presented: str, **_: object) -> None:
        raise RuntimeError(presented)

    monkeypatch.setattr(type(app.state.container.refresh), "rotate", broken)
    monkeypatch.setattr(middleware, "log", structlog.get_logger())  # its own remembers where it wrote first
    with structlog.testing.capture_logs() as lines:
        answer = await http.post("/refresh", json={"refresh_token": TOKEN})
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert "request.broke" in {line["event"] for line in lines}
    said = answer.text + str(lines)
    assert TOKEN not in said
    assert "Traceback" not in said


@pytest.mark.case(54)
async def test_whoever_an_attacker_says_to_be_writes_no_line(port: int, log_path: Path) -> None:
    """`rota serve`: what it logs of hostile names, agents and paths is one JSON object a line, and none is theirs."""
    mark = secrets.token_hex(6)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        for evil in EVIL:
            if evil == "\ud800" or len(evil) > 200:
                continue
            agent = {b"User-Agent": bytes(each for each in evil.encode() if each >= 32 and each != 127)}
            answer = await http.post("/token", data={"username": f"{mark}{evil}", "password": PASSWORD}, headers=agent)
            assert answer.status_code in {400, 401, 422, 429}, ascii(evil)
            assert mark not in answer.text
            await http.get(f"/{quote(evil, safe='')}", headers=agent)
    lines = log_path.read_text().split("\n")
    assert lines.pop() == ""
    assert len(lines) > 1
    for line in lines:
        assert line.isprintable()
        assert json.loads(line)["event"] != "fake"
