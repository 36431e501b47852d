"""Credentials in URLs: refused on every route before anything else, and written down nowhere."""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
import pytest_asyncio
import structlog
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app import container
from app.http import middleware
from app.http.urls import ENDINGS, NAMES, holds_credential
from app.main import create_app
from app.observability.traces import Traces
from tests.api.test_sign_in_api import bearer, log_in, register
from tests.conftest import make_settings
from tests.input.conftest import statuses, talk
from tests.input.test_walk import NOBODY, OPERATIONS, Operation

TOKEN = "rota_rt_" + "Ab3-" * 26
MARK = "hunter2canary9c1f7a3b5d"


def jwt() -> str:
    parts = (b'{"alg":"ES256","typ":"at+jwt"}', b'{"sub":"' + MARK.encode() + b'"}', b"signature")
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def twice(text: str) -> str:
    return "".join(f"%25{byte:02X}" for byte in text.encode())


QUERIES = [
    "operator_token=x", "__Host-rota_refresh=x", "__Host-rota_device=x", "user.token=x", "x-access-token=x",
    "my_refresh_token=x", "login_password=x", "passphrase=x",
    *(f"{name}={MARK}" for name in ("access_token", "refresh_token", "token", "password", "client_secret", "id_token",
                                   "device_token", "password_token", "new_password", "current_password", "secret",
                                   "assertion", "client_assertion", "authorization", "bearer", "api_key", "jwt")),
    f"ACCESS_TOKEN={MARK}", f"Access-Token={MARK}", f"accessToken={MARK}", f"access%5Ftoken={MARK}",
    f"%61ccess_token={MARK}", f"access%255Ftoken={MARK}", f"{twice('access_token')}={MARK}",
    f"access_token[]={MARK}", f"+access_token+={MARK}", f"access_token%00={MARK}", f"limit=1&access_token={MARK}",
    f"limit=1;access_token={MARK}", f"access_token={MARK}&access_token={MARK}", "access_token", "access_token=",
    f"next=https://x.example/?access_token={MARK}", f"next=https%3A%2F%2Fx%2F%23access_token%3D{MARK}",
    f"x={TOKEN}", f"{TOKEN}", f"{TOKEN}=1", f"x={quote(TOKEN, safe='').replace('_', '%5F')}", f"x={twice(TOKEN)}",
    f"x=rota_dt_{'a' * 40}", f"x=rota_pt_{'a' * 76}", f"x=rota_cs_{'a' * 43}", f"x={jwt()}", f"Bearer%20{jwt()}",
    f"x={jwt().rpartition('.')[0]}.", f"%FF%FE&x={TOKEN}",
]  # fmt: skip
PATHS = [f"/{TOKEN}", f"/sessions/{TOKEN}", f"/{TOKEN}/me", f"/me/{jwt()}", f"/me%2f{twice(TOKEN)}",
         f"/admin/users/rota_pt_{'a' * 76}", f"/x/y;a={TOKEN}"]  # fmt: skip
HARMLESS = [
    b"tokens=2", b"secretary=x",
    b"", b"limit=1", b"after=" + b"A" * 32, b"prefix=rota_rt", b"user=rota_rt_x", b"scope=token", b"client=token-app",
    b"username_prefix=password", b"role=admin&scope=files.read", b"action=password.changed", b"token_type_hint=x",
    b"after=eyJhbGciOiJFUzI1NiJ9", b"browser=eyJ.x", b"os=Windows%20NT%2010.0", b"%", b"%%%25", b"&&=&", b"=token",
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
def test_what_is_a_credential(query: str) -> None:
    """By its name in any spelling, or by its look, also behind two layers of encoding."""
    assert holds_credential(b"/me", query.encode())


@pytest.mark.parametrize("path", PATHS)
def test_what_is_a_credential_in_a_path(path: str) -> None:
    """By its look."""
    assert holds_credential(path.encode(), b"")


@pytest.mark.parametrize("query", HARMLESS)
def test_what_is_none(query: bytes) -> None:
    """Words are not credentials."""
    assert not holds_credential(b"/admin/sessions", query)


def test_no_parameter_of_ours_is_named_like_one() -> None:
    """Neither a name nor an id in a path is ever mistaken, whatever is documented."""
    names = {name for each in OPERATIONS for name in each.names("query")}
    assert len(names) > 20
    for name in names:
        assert not holds_credential(b"/x", f"{name}={NOBODY}&{name}=%20".encode()), name
    for each in OPERATIONS:
        assert not holds_credential(each.at().encode(), b"")


async def test_cursors_are_no_credentials(http: httpx2.AsyncClient) -> None:
    """Those that pages and the feed give, a hundred of them."""
    from datetime import UTC, datetime  # noqa: PLC0415 - likewise

    from uuid_utils.compat import uuid7  # noqa: PLC0415 - likewise

    from app.domain.pages import Position, write_cursor  # noqa: PLC0415 - beside its only use

    for _ in range(100):
        cursor = write_cursor(Position(datetime.now(UTC), uuid7()))
        assert not holds_credential(b"/sessions", f"after={cursor}".encode())
    await register(http, name := f"cursor-{secrets.token_hex(4)}")
    for _ in range(3):
        tokens = await log_in(http, name)
    page = (await http.get("/sessions?limit=1", headers=bearer(tokens))).json()
    assert (await http.get("/sessions", params={"after": page["next"]}, headers=bearer(tokens))).status_code == 200


def bounded_in_time() -> list[bytes]:
    return [b"%25" * 2700, b"&" * 8000, b"eyJ" * 2700, b"rota_rt_" * 1000, b"a=eyJaaaaa" + b"." * 8000, b"%" * 8000]


@pytest.mark.parametrize("query", bounded_in_time(), ids=range(len(bounded_in_time())))
def test_no_query_takes_long(query: bytes) -> None:
    """The longest URL that is let in is walked a few times and no more (a runaway would meet the suite's timeout)."""
    for _ in range(200):
        holds_credential(query, query)


@pytest.mark.parametrize("operation", [pytest.param(each, id=each.id) for each in OPERATIONS])
async def test_every_route_refuses(http: httpx2.AsyncClient, operation: Operation) -> None:
    """400 before who asks is looked at, whatever the method's rights; at `/authz` 403 or the guard's 401."""
    for query in (f"access_token={MARK}", f"x={TOKEN}"):
        answer = await http.request(operation.method.upper(), f"{operation.at()}?{query}")
        if operation.path == "/authz":
            assert answer.status_code in {401, 403}
            continue
        assert answer.status_code == 400, answer.text
        assert answer.headers["cache-control"] == "no-store"
        problem = answer.json()
        if operation.path.startswith("/oauth2/"):
            assert problem["error"] == "invalid_request"
        else:
            assert problem["code"] == "credential_in_url"
            assert problem["request_id"] == answer.headers["x-request-id"]
        assert MARK not in answer.text
        assert TOKEN not in answer.text


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/nowhere", "/", "/livez", "/docs/start.js"])
async def test_what_is_no_route_of_the_api_refuses_too(http: httpx2.AsyncClient, path: str) -> None:
    """Pages and paths that are not there."""
    assert (await http.get(f"{path}?token={MARK}")).status_code == 400


async def test_a_good_token_in_a_query_opens_nothing(http: httpx2.AsyncClient) -> None:
    """RFC 6750 section 2.3 is not spoken; and what would have been done is not done."""
    await register(http, name := f"url-{secrets.token_hex(4)}")
    tokens = await log_in(http, name)
    for path in ("/me", "/sessions", "/me/events"):
        assert (await http.get(path, params={"access_token": tokens["access_token"]})).status_code == 400
        assert (await http.get(path, params={"a": tokens["access_token"]}, headers=bearer(tokens))).status_code == 400
    refresh = {"refresh_token": tokens["refresh_token"]}
    assert (await http.post("/refresh", params=refresh, json=refresh)).status_code == 400
    assert (await http.delete("/sessions", params=refresh, headers=bearer(tokens))).status_code == 400
    assert (await http.post("/refresh", json=refresh)).status_code == 200


@pytest_asyncio.fixture
async def traced(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[httpx2.AsyncClient, InMemorySpanExporter, FastAPI]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(container, "make_traces", lambda _endpoint, _version: Traces(provider))
    app = create_app(make_settings(database_url, slow_request_milliseconds=1, operator_token="o" * 40))
    transport = httpx2.ASGITransport(app, client=("203.0.113.7", 4711), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as http:
        yield http, exporter, app
    await app.state.container.close()


async def test_neither_traces_nor_metrics_have_it(
    traced: tuple[httpx2.AsyncClient, InMemorySpanExporter, FastAPI],
) -> None:
    """In a query, a path, a header's place: templates only."""
    http, exporter, _ = traced
    for url in (f"/me?token={MARK}", f"/{MARK}", f"/sessions/{MARK}", f"/x?{TOKEN}", f"/{TOKEN}"):
        await http.get(url, headers={"Authorization": f"Bearer {MARK}"})
    told = [
        f"{span.name}{span.attributes}{span.events}{span.status.description}" for span in exporter.get_finished_spans()
    ]
    assert len(told) >= 5
    counted = (await http.get("/metrics", headers={"Authorization": "Bearer " + "o" * 40})).text
    assert "rota_http_requests" in counted
    for text in (*told, counted):
        assert MARK not in text
        assert TOKEN[8:] not in text


async def test_no_line_has_a_path(
    traced: tuple[httpx2.AsyncClient, InMemorySpanExporter, FastAPI],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Slow, broken, abandoned: each line names the route's template, and nothing that the client has written."""
    http, _, app = traced

    async def broken(*_: object, **__: object) -> Any:
        held = MARK  # in scope, as a token would be
        raise RuntimeError(held)

    monkeypatch.setattr(type(app.state.container.authentication), "authenticate", broken)
    monkeypatch.setattr(middleware, "log", structlog.get_logger())  # its own remembers where it wrote first
    with structlog.testing.capture_logs() as lines:
        assert (await http.get(f"/sessions/{NOBODY}?x={MARK}")).status_code == 500
        await http.get(f"/{MARK}?token={TOKEN}")
    (line,) = [each for each in lines if each["event"] == "request.broke"]
    assert line["route"] == "/sessions/{session_id}"
    for each in lines:
        assert MARK not in str(each)
        assert NOBODY not in str(each)


async def test_the_servers_own_log(port: int, log_path: Path) -> None:
    """`rota serve` writes no access log; requests that break in the middle leave no URL either."""
    for url in (f"/me?access_token={MARK}", f"/{MARK}?x={TOKEN}", f"/sessions/{TOKEN}", f"/authz?access_token={MARK}"):
        found = statuses(await talk(port, f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()))
        assert 400 <= found[0] < 500
    await talk(port, f"GET /{MARK} HTTP/7.7\r\n\r\n".encode())
    await talk(port, f"GET /{MARK}?{TOKEN} HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".encode())
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST /refresh HTTP/1.1\r\nHost: x\r\nX-M: {MARK}\r\nContent-Type: application/json\r\n"
        f"Content-Length: 99\r\n\r\n{{{MARK}".encode()
    )
    await writer.drain()
    writer.close()
    await talk(port, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    text = log_path.read_text()
    assert MARK not in text
    assert TOKEN not in text


def test_names_are_as_they_are_compared() -> None:
    """A name with another character than these would never be met."""
    assert all(name.isalnum() and name == name.lower() for name in (*NAMES, *ENDINGS))


@pytest.mark.parametrize("operation", [pytest.param(each, id=each.id) for each in OPERATIONS])
async def test_every_route_by_another_spelling(http: httpx2.AsyncClient, operation: Operation) -> None:
    """What a proxy's rule for the path may not have recognised, no route answers: 404, be it to who may do it."""
    path = operation.at()
    others = [f"{path}%0a", f"{path}%0A", f"/%2f{path[1:]}", f"{path}%5C", f"/%{ord(path[1]):02x}{path[2:]}"]
    if path.count("/") > 1:
        others += [f"/{path[1:].replace('/', '%2F')}", f"/{path[1:].replace('/', '%5c')}"]
    for other in others:
        answer = await http.request(operation.method.upper(), other)
        assert answer.status_code == 404, other


async def test_another_spelling_with_good_credentials(http: httpx2.AsyncClient) -> None:
    """The same with a token that would open it; and pages that nobody has to sign in for."""
    await register(http, name := f"url-{secrets.token_hex(4)}")
    tokens = await log_in(http, name)
    for path in ("/me", "/sessions", "/authz", "/livez", "/readyz", "/docs", "/openapi.json", "/metrics"):
        assert (await http.get(f"{path}%0a", headers=bearer(tokens))).status_code == 404
    fields = {"refresh_token": tokens["refresh_token"]}
    assert (await http.post("/refresh%0a", json=fields)).status_code == 404
    assert (await http.post("/refresh", json=fields)).status_code == 200
