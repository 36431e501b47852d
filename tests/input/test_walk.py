"""Every text that any route takes, with what breaks text elsewhere: never a server's failure, never an echo."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.domain.api_clients import ClientScope
from app.domain.users import Role
from app.main import create_app
from tests.conftest import PASSWORD, client_at, make_settings
from tests.oauth.conftest import basic, bearer, make_known

ECHO = "echo9c1f7a3b5d"
PROBLEM = "application/problem+json"
NOBODY = "01a20000-0000-7000-8000-000000000000"
METHODS = ("get", "post", "put", "patch", "delete")
# As they stand in a URL or a form; the first ones have no spelling in JSON.
BYTES = {
    "invalid UTF-8": b"\xff\xfe",
    "overlong": b"\xc0\xaf",
    "a surrogate in UTF-8": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
}
TEXTS = {
    "NUL": "a\0b",
    "a noncharacter": "\uffff",
    "lines": "a\r\nSet-Cookie: x=1\r\n\r\nb",
    "ANSI": "\x1b[2J\x1b[31m",
    "separators": "\u2028\u2029\u0085",
    "formats": "%s%n%x{}${jndi:ldap://x/y}",
    "an end of JSON": '"}],{"a":1,"',
    "many": "a" * 5000,
    "a year 0": "0000-01-01T00:00:00Z",
    "infinity": "infinity",
    "digits": "٣",
    "a leap second": "2016-12-31T23:59:60Z",
    "far east": "9999-12-31T23:59:59+14:00",
    "a big number": "9" * 400,
    "globs": "%_\\%" * 50,
    "a mark": ECHO + "\0",
}
SURROGATES = {"a high surrogate": "\ud800", "a low surrogate": "x\udfff", "a pair turned": "\udc00\ud800"}


@dataclass(frozen=True)
class Operation:
    """A route of the API's document."""

    method: str
    path: str
    described: dict[str, Any]

    @property
    def id(self) -> str:
        return f"{self.method.upper()} {self.path}"

    def names(self, place: str) -> list[str]:
        return [each["name"] for each in self.described.get("parameters", []) if each["in"] == place]

    def body(self, kind: str) -> dict[str, Any] | None:
        content: dict[str, Any] = self.described.get("requestBody", {}).get("content", {})
        return content[kind]["schema"] if kind in content else None

    def at(self, **values: str) -> str:
        return re.sub(r"{(\w+)}", lambda found: values.get(found[1], NOBODY), self.path)


def described() -> tuple[dict[str, Any], list[Operation]]:
    app = create_app(make_settings("postgresql://nobody@127.0.0.1:1/nowhere"))
    document = app.openapi()
    app.state.container.hasher.close()
    found = [
        Operation(method, path, each)
        for path, methods in document["paths"].items()
        for method, each in methods.items()
        if method in METHODS
    ]
    return document, found


DOCUMENT, OPERATIONS = described()
BODIED = [pytest.param(each, id=each.id) for each in OPERATIONS if each.described.get("requestBody")]
ENDING = [pytest.param(each, id=each.id) for each in OPERATIONS if each.path != "/revocations/stream"]
WITH = [pytest.param(each, id=each.id) for each in OPERATIONS]
FORMS = [pytest.param(each, id=each.id) for each in OPERATIONS if each.body("application/x-www-form-urlencoded")]
JSONS = [pytest.param(each, id=each.id) for each in OPERATIONS if each.body("application/json")]


@dataclass(frozen=True)
class Caller:
    """Somebody whom every route lets in, but for what it is asked."""

    http: httpx2.AsyncClient
    admin: dict[str, str]
    client: dict[str, str]

    def headers(self, operation: Operation) -> dict[str, str]:
        match operation.described["x-access"]:
            case "anyone":
                return {}
            case "API client":
                return self.client
            case _:
                return self.admin

    async def ask(self, operation: Operation, path: str, **more: Any) -> httpx2.Response:
        headers = {**self.headers(operation), **more.pop("headers", {})}
        async with asyncio.timeout(20):
            answer = await self.http.request(
                operation.method.upper(), httpx2.URL(f"http://rota{path}"), headers=headers, **more
            )
        assert answer.status_code < 500, (operation.id, path, answer.text)
        assert answer.headers["x-request-id"]
        if answer.status_code >= 400:
            assert ECHO not in answer.text
            assert not re.search(r"Traceback|site-packages|asyncpg|sqlalchemy|SELECT |\.py", answer.text)
            if answer.request.url.path.startswith("/oauth2/"):
                assert answer.json()["error"]
            else:
                assert answer.headers["content-type"] == PROBLEM
                assert answer.json()["request_id"] == answer.headers["x-request-id"]
        return answer


@pytest_asyncio.fixture(scope="module")
async def caller(database_url: str) -> AsyncIterator[Caller]:
    app: FastAPI = create_app(make_settings(database_url))
    services = app.state.container
    name = f"walker-{secrets.token_hex(8)}"
    await services.users.create(name, PASSWORD, role=Role.ADMIN, actor=None, client=client_at())
    issued = await services.sign_in.with_password(name, PASSWORD, client=client_at())
    known = await make_known(services, scopes=[each.value for each in ClientScope])
    transport = httpx2.ASGITransport(app, client=("203.0.113.7", 4711))
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as http:
        yield Caller(http, bearer(issued.access_token), basic(known.client.client_id, known.secret))
    await services.close()


def hostile() -> Iterator[tuple[str, str]]:
    """Each as it stands, percent-encoded, in a URL."""
    for name, raw in BYTES.items():
        yield name, quote_from_bytes(raw, safe="")
    for name, text in TEXTS.items():
        yield name, quote_from_bytes(text.encode(), safe="")


def test_the_document_has_all_routes() -> None:
    """The walk would pass over a route that is not described."""
    assert len(OPERATIONS) >= 50
    assert len(JSONS) >= 10
    assert len(FORMS) >= 6


@pytest.mark.case(73)
@pytest.mark.parametrize("operation", WITH)
async def test_paths(caller: Caller, operation: Operation) -> None:
    """In the place of every id: 404 or 422."""
    for place in operation.names("path"):
        for name, text in hostile():
            answer = await caller.ask(operation, operation.at(**{place: text}))
            assert 400 <= answer.status_code < 500, name
    if operation.path == "/revocations/stream":
        return  # some of these lead to it, and it does not end
    for odd in (f"//{operation.path[1:]}", f"{operation.path}/", f"{operation.path}/..", f"/..{operation.path}"):
        await caller.ask(operation, re.sub(r"{\w+}", NOBODY, odd))


@pytest.mark.case(73)
@pytest.mark.case(74)
@pytest.mark.parametrize("operation", WITH)
async def test_queries(caller: Caller, operation: Operation) -> None:
    """As the value of every parameter, as a parameter's name, and in a query that is none."""
    for name, text in hostile():
        for parameter in operation.names("query"):
            await caller.ask(operation, f"{operation.at()}?{parameter}={text}")
        if operation.path != "/revocations/stream":  # which goes on where the query is none
            await caller.ask(operation, f"{operation.at()}?{text}={text}")
            await caller.ask(operation, f"{operation.at()}?{text}&&=&;{name.replace(' ', '+')}")


@pytest.mark.case(73)
@pytest.mark.parametrize("operation", FORMS)
async def test_forms(caller: Caller, operation: Operation) -> None:
    """As each field, among others that are as they should be."""
    schema = operation.body("application/x-www-form-urlencoded") or {}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for name, text in hostile():
        for field in schema["properties"]:
            fields = {each: str(sample(each, how)) for each, how in schema["properties"].items() if each != field}
            body = "&".join(f"{each}={value}" for each, value in {**fields, field: text}.items())
            answer = await caller.ask(operation, operation.at(), content=body.encode(), headers=headers)
            if name in BYTES or name in {"NUL", "a noncharacter"}:
                assert 400 <= answer.status_code < 500, (name, field, answer.text)


@pytest.mark.case(73)
@pytest.mark.parametrize("operation", JSONS)
async def test_members(caller: Caller, operation: Operation) -> None:
    """As each member, as a member's name, and of each other type that JSON has."""
    schema = operation.body("application/json") or {}
    others: list[Any] = [None, True, 0, -1, 2**63, 10**19, 1.5, [], {}, [[]], {"a": {"b": [None]}}, [ECHO], {ECHO: 1}]
    texts = [*TEXTS.values(), *SURROGATES.values()]
    for member in schema["properties"]:
        rest = {each: sample(each, how) for each, how in schema["properties"].items() if each != member}
        for value in [*texts, *([text] for text in texts[:4]), *others]:
            body = json.dumps({**rest, member: value}).encode()
            answer = await post(caller, operation, body)
            if isinstance(value, str) and (value in SURROGATES.values() or {"\0", "\uffff"} & set(value)):
                assert 400 <= answer.status_code < 500, (member, ascii(value))
    for name in texts:
        answer = await post(caller, operation, json.dumps({name: name}).encode())
        assert 400 <= answer.status_code < 500
    for raw in (b'{"a":1e400}', b'{"a":-1e999}', b'{"a":' + b"9" * 60_000 + b"}", b'{"a":"\xff"}', b"\xef\xbb\xbf{}"):
        answer = await post(caller, operation, raw)
        assert 400 <= answer.status_code < 500


async def post(caller: Caller, operation: Operation, body: bytes) -> httpx2.Response:
    return await caller.ask(operation, operation.at(), content=body, headers={"Content-Type": "application/json"})


@pytest.mark.case(58)
@pytest.mark.parametrize("operation", BODIED)
async def test_bodies_of_other_kinds(caller: Caller, operation: Operation) -> None:
    """A route takes the kinds it documents and no others: what a page can send across sites least of all (415)."""
    takes = set(operation.described["requestBody"]["content"])
    text = b"refresh_token=x"  # well-formed as a form, which guards of API clients look into
    kinds = ["text/plain", "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"]
    kinds += ["application/xml", "application/json, text/plain", "application/*", "", "x" * 300, "text/plain;a=b"]
    kinds += ["application/json; charset=utf-16", "application/json; charset=utf-8; charset=latin-1", "text/json"]
    for kind in kinds:
        if kind.split(";")[0] in takes and "utf-16" not in kind and "latin" not in kind:
            continue
        answer = await caller.ask(operation, operation.at(), content=text, headers={"Content-Type": kind})
        assert answer.status_code == (400 if operation.path.startswith("/oauth2/") else 415), (kind, answer.text)
    for coded in ("gzip", "deflate", "br", "identity, gzip"):
        headers = {"Content-Type": min(takes), "Content-Encoding": coded}
        answer = await caller.ask(operation, operation.at(), content=b"\x1f\x8b\x08", headers=headers)
        assert answer.status_code == (400 if operation.path.startswith("/oauth2/") else 415), (coded, answer.text)


@pytest.mark.case(64)
@pytest.mark.parametrize("operation", WITH)
async def test_other_methods(caller: Caller, operation: Operation) -> None:
    """405, or an answer as safe as GET's; a header that names another method changes nothing."""
    known = {each.method.upper() for each in OPERATIONS if each.path == operation.path}
    for method in ("TRACE", "OPTIONS", "HEAD", "CONNECT", "PROPFIND", "QUERY", "X" * 30):
        if operation.path == "/revocations/stream" and method in known:
            continue
        answer = await caller.http.request(
            method, operation.at(), headers={**caller.headers(operation), "X-Mark": ECHO, "Max-Forwards": "0"}
        )
        assert ECHO not in answer.text
        if method not in known and operation.path != "/authz":
            assert answer.status_code in {404, 405} or (method == "HEAD" and answer.status_code == 200), method
    overridden = {"X-HTTP-Method-Override": "DELETE", "X-Method-Override": "DELETE", "X-Original-URL": "/admin/users"}
    if operation.method == "get" and operation.path not in {"/revocations/stream", "/readyz"}:
        plain = await caller.ask(operation, operation.at())
        with_it = await caller.ask(operation, f"{operation.at()}", headers=overridden)
        assert with_it.status_code == plain.status_code


HEADERS = ["user-agent", "idempotency-key", "x-forwarded-for", "forwarded", "cookie",
           "if-none-match", "last-event-id", "traceparent", "tracestate", "accept", "range", "origin", "host",
           "sec-fetch-site", "content-length-x", "expect"]  # fmt: skip


@pytest.mark.case(73)
@pytest.mark.parametrize("operation", ENDING)
async def test_headers(caller: Caller, operation: Operation) -> None:
    """As the value of every header that anybody reads."""
    for raw in (b"\xff\xfe", b"\xc3\x28", b"a" * 3000, b"", b",,,,;;==", b"\x1b[31m", b"%00%0d%0a", b'"\\'):
        await caller.ask(operation, operation.at(), headers=dict.fromkeys(HEADERS, raw))
        await caller.ask(operation, operation.at(), headers={"authorization": raw})
        await caller.ask(operation, operation.at(), headers={"content-type": raw})


def sample(name: str, schema: dict[str, Any]) -> Any:
    """Something that the schema takes, for a member that is not what the test is about."""
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return sample(name, schema[several][0])
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return False
        case "array":
            return [sample(name, schema.get("items", {}))] if schema.get("minItems") else []
        case "object":
            return {}
    if name.endswith("username"):
        return f"walker-{secrets.token_hex(4)}"
    return NOBODY if schema.get("format") == "uuid" else "x" * max(schema.get("minLength", 1), 16)
