"""Log lines: what is slow is said, by its shape; what is secret is not, wherever it stood."""

import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest

from app.observability.logs import configure_logs, get_logger
from tests.conftest import PASSWORD
from tests.observability.conftest import OPERATOR, Serve


@pytest.fixture(autouse=True)
def _restore_logs() -> Iterator[None]:
    yield
    configure_logs("json")


def lines_of(text: str, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


async def test_a_slow_statement_and_its_request(serve: Serve, sql: asyncpg.Connection) -> None:
    """One that waits for a lock: the statement's shape, the request's route, one id on both; of what is quick, none."""
    served = await serve(1, ROTA_SLOW_REQUEST_MILLISECONDS="250", ROTA_SLOW_STATEMENT_MILLISECONDS="250")
    async with httpx2.AsyncClient(base_url=served.url, timeout=60) as http:
        await http.post("/register", json={"username": "person-slow", "password": PASSWORD})
        pair = (await http.post("/token", data={"username": "person-slow", "password": PASSWORD})).json()
        await http.get("/livez")
        async with sql.transaction():
            await sql.execute("SELECT * FROM families WHERE id = $1 FOR UPDATE", UUID(pair["session_id"]))
            answer = await http.post("/refresh", json={"refresh_token": pair["refresh_token"]})
    served.stop()
    assert answer.status_code == 503
    text = served.log.read_text()
    request_id = answer.headers["x-request-id"]
    statement, *_ = [line for line in lines_of(text, "statement.slow") if line.get("request_id") == request_id]
    (request,) = [line for line in lines_of(text, "request.slow") if line["request_id"] == request_id]
    assert (statement["operation"], statement["failure"]) == ("UPDATE families", "LockNotAvailableError")
    assert statement["milliseconds"] >= 250
    assert "$1" in statement["shape"]
    assert (request["method"], request["route"], request["status"]) == ("POST", "/refresh", 503)
    assert "/livez" not in {line["route"] for line in lines_of(text, "request.slow")}
    assert pair["refresh_token"] not in text


def test_secrets_within_and_in_tracebacks_of_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    """In members of members, in bytes, in the message of an exception that a library logs."""
    configure_logs("json")
    token = "rota_pt_" + "B" * 76
    get_logger().info("x", headers={"authorization": "hunter2", "x": [token, b"hunter2"]}, pairs=[("password_", token)])
    try:
        raise ValueError("hunter2")
    except ValueError:
        logging.getLogger("some.library").exception("it broke with %s", token)
        get_logger().error("y", exc_info=True)
    text = capsys.readouterr().err
    assert "hunter2" not in text
    assert token not in text
    assert [line["error"] for line in map(json.loads, text.splitlines()) if "error" in line] == [
        ["builtins.ValueError"]
    ] * 2


async def test_canaries_through_a_real_server(serve: Serve) -> None:
    """All that a server wrote in its life, with everything slow: no password, no token, no header."""
    served = await serve(
        2,
        ROTA_SLOW_REQUEST_MILLISECONDS="1",
        ROTA_SLOW_STATEMENT_MILLISECONDS="1",
        ROTA_TRACES_ENDPOINT="http://127.0.0.1:9",
    )
    canaries = {PASSWORD, OPERATOR, "canary"}
    async with httpx2.AsyncClient(base_url=served.url, timeout=60) as http:
        await http.post("/register", json={"username": "person-lines", "password": PASSWORD})
        await http.post("/token", data={"username": "person-lines", "password": "canary-password"})
        pair = (await http.post("/token", data={"username": "person-lines", "password": PASSWORD})).json()
        bearer = {"Authorization": f"Bearer {pair['access_token']}", "Cookie": "a=canary-cookie"}
        again = (await http.post("/refresh", json={"refresh_token": pair["refresh_token"]})).json()
        await http.get("/sessions?x=canary-query", headers=bearer)
        await http.get("/readyz", headers={"Authorization": f"Bearer {OPERATOR}"})
        await http.get("/metrics", headers={"Authorization": "Bearer canary-operator"})
        await http.post("/refresh", json={"refresh_token": "canary-token"})
        await http.post("/logout", json={"refresh_token": again["refresh_token"]})
        canaries |= {value for body in (pair, again) for key, value in body.items() if key.endswith("_token")}
    served.stop()
    text = served.log.read_text()
    assert "request.slow" in text
    assert "statement.slow" in text
    assert [canary for canary in canaries if canary in text] == []
    assert [line for line in text.splitlines() if not line.startswith("{")] == []
