"""Spans: of each request and statement, joined to the caller's trace, and without anything secret."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from app import container
from app.main import create_app
from app.observability.statements import operation_of, shape_of
from app.observability.traces import Traces, wanted
from tests.conftest import AGENT, PASSWORD, make_settings

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ALLOWED = {
    "rota.request_id", "http.request.method", "http.route", "http.response.status_code",
    "db.system.name", "db.operation.name", "error.type",
}  # fmt: skip


@pytest_asyncio.fixture
async def traced(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[httpx2.AsyncClient, InMemorySpanExporter]]:
    """An application whose spans stay in memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(container, "make_traces", lambda _endpoint, _version: Traces(provider))
    app: FastAPI = create_app(make_settings(database_url))
    transport = httpx2.ASGITransport(app, client=("203.0.113.7", 4711), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota", headers={"User-Agent": AGENT}) as http:
        yield http, exporter
    await app.state.container.close()


def servers(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER]


async def test_a_request_and_its_statements(traced: tuple[httpx2.AsyncClient, InMemorySpanExporter]) -> None:
    """One trace, the caller's; the request's span has the route's template, and each statement's is its child."""
    http, exporter = traced
    await http.post("/register", json={"username": "person-traced", "password": PASSWORD})
    pair = (await http.post("/token", data={"username": "person-traced", "password": PASSWORD})).json()
    exporter.clear()
    answer = await http.post("/refresh", json={"refresh_token": pair["refresh_token"]}, headers={"traceparent": CALLER})
    (request,) = servers(exporter)
    assert request.name == "POST /refresh"
    assert request.parent is not None
    assert f"{request.parent.trace_id:032x}-{request.parent.span_id:016x}" == CALLER[3:52]
    assert dict(request.attributes or {}) == {
        "rota.request_id": answer.headers["x-request-id"],
        "http.request.method": "POST",
        "http.route": "/refresh",
        "http.response.status_code": 200,
    }
    statements = [span for span in exporter.get_finished_spans() if span.kind is SpanKind.CLIENT]
    assert [span.name for span in statements] == ["UPDATE families"]
    assert request.context is not None
    assert all(span.parent and span.parent.span_id == request.context.span_id for span in statements)
    exporter.clear()
    await http.get(f"/sessions/{'0' * 8}-0000-7000-8000-{'0' * 12}", headers={"traceparent": "nonsense"})
    (request,) = servers(exporter)
    assert (request.name, request.parent) == ("GET /sessions/{session_id}", None)
    assert request.status.status_code is StatusCode.UNSET


async def test_nothing_secret_is_in_a_span(traced: tuple[httpx2.AsyncClient, InMemorySpanExporter]) -> None:
    """Canaries in each place of a request, good and bad, and in what breaks: none is in any span."""
    http, exporter = traced
    name, wrong = "person-canary", "canary-wrong-password"
    answers = [
        await http.post("/register", json={"username": name, "password": PASSWORD}),
        await http.post("/token", data={"username": name, "password": wrong}),
        await http.post("/token", data={"username": name, "password": PASSWORD}),
    ]
    pair = answers[-1].json()
    bearer = {"Authorization": f"Bearer {pair['access_token']}", "Cookie": "canary=cookie", "Idempotency-Key": "k" * 30}
    answers += [
        await http.post("/refresh", json={"refresh_token": pair["refresh_token"]}, headers=bearer),
        await http.get("/sessions?canary-query=1", headers=bearer),
        await http.get("/canary-path/x", headers=bearer),
        await http.put("/me/password", json={"current_password": PASSWORD, "new_password": wrong * 2}, headers=bearer),
        await http.post("/refresh", json={"refresh_token": pair["refresh_token"] + "canary"}),
        await http.post("/logout", json={"refresh_token": pair["refresh_token"]}),
        await http.get("/sessions", headers={"Authorization": "Bearer canary-bearer"}),
    ]
    spans = exporter.get_finished_spans()
    assert len(servers(exporter)) == len(answers)
    told = "".join(span.to_json() for span in spans)
    tokens = [value for answer in answers for key, value in _members(answer) if "token" in key and len(value) > 20]
    canaries = ["canary", name, PASSWORD, "203.0.113.7", AGENT, "k" * 30, *tokens, "SELECT users.id", "$1"]
    assert len(tokens) >= 4
    assert [canary for canary in canaries if canary in told] == []
    assert {key for span in spans for key in span.attributes or {}} <= ALLOWED
    assert not [span for span in spans if span.events]  # an exception's message quotes values


def _members(answer: httpx2.Response) -> list[tuple[str, str]]:
    body = answer.json()
    return [(key, value) for key, value in body.items() if isinstance(value, str)] if isinstance(body, dict) else []


@pytest.mark.parametrize(
    ("statement", "operation"),
    [
        ("SELECT users.id FROM users WHERE users.id = $1", "SELECT users"),
        ("\nWITH spent AS (\n  UPDATE families\n SET a = 1 RETURNING *), x AS (INSERT INTO a ...)", "UPDATE families"),
        ("WITH a AS (SELECT 1 FROM families) SELECT * FROM a", "SELECT families"),
        ("INSERT INTO audit_events (id) VALUES ($1)", "INSERT audit_events"),
        ("DELETE FROM password_tokens WHERE x = 'hunter2'", "DELETE password_tokens"),
        ("SELECT count(*) FROM audit_events_2026_11", "SELECT audit_events"),
        ("SELECT pg_try_advisory_xact_lock(hashtext($1))", "SELECT pg_try_advisory_xact_lock"),
        ("SELECT 1", "SELECT"),
        ("SET LOCAL statement_timeout = 500", "SET"),
        ("COMMIT", "COMMIT"),
        ("/* hunter2 */ SELECT a FROM b", "SELECT b"),
    ],
)  # fmt: skip
def test_names_of_operations(statement: str, operation: str) -> None:
    """What is done to which table; never a value, never a month."""
    assert operation_of(statement) == operation


def test_shapes_have_no_values() -> None:
    """Literals of each kind are a question mark; parameters stay."""
    statement = (
        "SELECT a1, $1 /* hunter2 */ FROM t WHERE b = 'hun''ter2' AND c = E'hunter2' -- hunter2\n"
        " AND d = 42.5 OR e = $q$hunter2$q$"
    )
    assert shape_of(statement) == "SELECT a1, $1 FROM t WHERE b = ? AND c = ? AND d = ? OR e = ?"


@pytest.mark.parametrize(
    ("endpoint", "environ", "on"),
    [
        ("", {}, False),
        ("http://127.0.0.1:4318", {}, True),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ("", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ("http://127.0.0.1:4318", {"OTEL_SDK_DISABLED": "true"}, False),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_who_wants_traces(endpoint: str, environ: dict[str, str], on: bool) -> None:  # noqa: FBT001 - a case
    """Our setting, or OpenTelemetry's own variables, which can also say no."""
    assert wanted(endpoint, environ) is on


def test_nothing_is_imported_where_there_are_none() -> None:
    """The application without traces does not load OpenTelemetry; FastAPI's own use of its interface is its own."""
    program = (
        "import sys, json; from app.main import create_app; from app.settings import Settings;"
        "create_app(Settings(database_url='postgresql://h/d', secrets='s' * 40)).state.container.hasher.close();"
        "print(json.dumps([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))]))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("endpoint", ["ftp://x", "collector:4318", "http://user:hunter2@collector/", "http://"])
def test_an_endpoint_is_an_address(database_url: str, endpoint: str) -> None:
    """And holds no password, which would be in log lines of the exporter."""
    with pytest.raises(ValueError, match="must be an http") as refused:
        make_settings(database_url, traces_endpoint=endpoint)
    assert "hunter2" not in str(refused.value)
