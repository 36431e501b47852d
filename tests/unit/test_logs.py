"""Log lines: one a line, nothing secret."""

import json
from collections.abc import Iterator

import pytest
import structlog

from app.observability.logs import configure_logs, describe_failure, get_logger, redact


@pytest.fixture(autouse=True)
def _restore_logs() -> Iterator[None]:
    """What a test has sent to its own captured stream goes back to the common one, when that is there again."""
    yield
    configure_logs("json")


TOKEN = "rota_rt_" + "A" * 104
CLIENT_SECRET = "rota_cs_" + "A" * 43
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"


def test_secrets_are_blanked_by_name_and_by_look() -> None:
    """Whatever is named like a secret or looks like a token."""
    line = redact(
        None,
        "info",
        {
            "event": f"got {TOKEN} and {JWT}!",
            "client": f"{CLIENT_SECRET}",
            "password": "hunter2",
            "refresh_token": "x",
            "n": 1,
        },
    )
    assert line == {
        "event": "got [redacted] and [redacted]!",
        "client": "[redacted]",
        "password": "[redacted]",
        "refresh_token": "[redacted]",
        "n": 1,
    }


def test_a_line_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Line ends, escape sequences and separators of an attacker are escaped."""
    configure_logs("json")
    structlog.contextvars.clear_contextvars()
    evil = 'a\r\nb\x1b[31m\u2028%s${jndi:x}"}'
    get_logger().info("event", username=evil)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["username"] == evil
    assert line.isascii()
    assert line.isprintable()


def test_a_failure_is_described_without_its_message() -> None:
    """Drivers quote the values they choke on; classes and places are enough."""
    try:
        try:
            raise ValueError("hunter2")
        except ValueError as error:
            raise RuntimeError("hunter2") from error
    except RuntimeError as error:
        described = describe_failure(error)
    assert described["error"] == ["builtins.RuntimeError", "builtins.ValueError"]
    assert "hunter2" not in json.dumps(described)
