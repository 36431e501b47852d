"""
A walk through every route that there is, with a marked secret in each place of a request that can hold one.

Nothing is listed by route: parameters and bodies are those of the API document, so a route that comes later is walked
when it is there. What a body stores on purpose is named here, by member.
"""

import asyncio
import base64
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import uuid4

import httpx2
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Match

from tests.hostile import canaries

PLACES = ("header", "body", "query", "path")
STREAM_SECONDS = 0.5
# Members that are kept, or told to administrators: no place for a secret. A name that nobody has is none of them.
KEPT = {"label", "name", "client_id", "acr", "amr", "user_agent", "reason", "device"}
# Filters that the trail tells of, since it tells who has looked for what; names of people are not among them.
KEPT_FILTERS = {"client", "device", "browser", "os"}
KEEPS_USERNAME = {("POST", "/register"), ("POST", "/admin/users"), ("PATCH", "/admin/users/{user_id}")}


@dataclass(frozen=True)
class Step:
    """One request of the walk, and where its marks are."""

    method: str
    template: str
    path: str
    places: frozenset[str]
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    json: Any = None
    form: dict[str, str] | None = None

    @property
    def body(self) -> dict[str, Any]:
        if self.form is not None:
            return {"data": self.form}
        return {} if self.json is None else {"json": self.json}


@dataclass
class Route:
    """As the API document describes it."""

    method: str
    template: str
    operation: dict[str, Any]

    def parameters(self, where: str) -> list[str]:
        return [each["name"] for each in self.operation.get("parameters", []) if each["in"] == where]

    @property
    def bodies(self) -> list[tuple[str, dict[str, Any]]]:
        content = self.operation.get("requestBody", {}).get("content", {})
        return [(kind, described["schema"]) for kind, described in content.items()]

    @property
    def places(self) -> set[str]:
        """Where a request can hold anything. Header, body and query any request has, whether it is read or not."""
        return set(PLACES) if self.parameters("path") else set(PLACES) - {"path"}


def routes_of(app: FastAPI) -> list[Route]:
    """
    All of the application, those left out of the document too: nobody has to describe a route for it to be walked.
    """
    document = app.openapi()["paths"]
    found = []
    for route in app.routes:
        template = getattr(route, "path_format", None) or getattr(route, "path", None)
        if template is None:
            continue
        for method in sorted(getattr(route, "methods", None) or ()):
            if method == "HEAD" and isinstance(route, APIRoute) is False:
                continue
            described = document.get(template, {}).get(method.lower(), {})
            if not described:
                names = re.findall(r"{(\w+)", template)
                described = {"parameters": [{"name": name, "in": "path"} for name in names]}
            found.append(Route(method, template, described))
    return found


def value_for(route: Route, member: str, schema: dict[str, Any]) -> Any:
    """A mark that a member could hold, in the member's own type where it is no text."""
    kinds = [kind.get("type") for kind in schema.get("anyOf", [schema])]
    kept = member in KEPT or (member == "username" and (route.method, route.template) in KEEPS_USERNAME)
    text = canaries.stored(member) if kept else canaries.secret(member)
    if "array" in kinds:
        return [text]
    if "object" in kinds:
        return {text: text}
    return text


def bodies_of(route: Route) -> Iterator[tuple[Any, dict[str, str] | None]]:
    """JSON and forms: as described, with one member that is unknown, with each member missing; and none of ours."""
    for kind, schema in route.bodies:
        members = schema.get("properties", {})
        whole = {name: value_for(route, name, described) for name, described in members.items()}
        is_form = "form" in kind
        choices = [whole, {**whole, canaries.secret("unknown"): canaries.secret()}]
        choices += [{name: value for name, value in whole.items() if name != missing} for missing in whole]
        required = schema.get("required", [])
        choices.append({name: whole[name] for name in required if name in whole})
        for choice in choices:
            yield (None, {n: str(v) for n, v in choice.items()}) if is_form else (choice, None)
        if "grant_type" in members:
            for grant in ("password", "refresh_token", "client_credentials"):
                yield None, {**{n: str(v) for n, v in whole.items()}, "grant_type": grant}
    yield {canaries.secret("member"): canaries.secret()}, None
    yield None, {"password": canaries.secret()}


def headers_of(given: dict[str, str]) -> Iterator[dict[str, str]]:
    """What a caller sends along: marks in headers that are read, and in ones that are not."""
    marked = {
        "Cookie": f"session={canaries.secret('cookie')}; __Host-rota_refresh={canaries.secret('cookie')}",
        "Idempotency-Key": canaries.secret("idempotency"),
        "X-Api-Key": canaries.secret("header"),
        "Referer": f"https://example.com/?token={canaries.secret('referer')}",
        "traceparent": canaries.secret("trace"),
        "If-None-Match": canaries.secret("tag"),
        "Last-Event-ID": canaries.secret("event"),
        canaries.secret("name"): "x",
    }
    yield {**marked, **given}
    if not given:
        word = canaries.secret("bearer")
        pair = base64.b64encode(f"{canaries.secret('client')}:{canaries.secret('basic')}".encode()).decode()
        yield {**marked, "Authorization": f"Bearer {word}"}
        yield {**marked, "Authorization": f"Bearer rota_rt_{word}"}
        yield {**marked, "Authorization": f"Bearer eyJ{word}.{word}.{word}"}
        yield {**marked, "Authorization": f"Basic {pair}"}
        yield {**marked, "Authorization": word}


def filled(route: Route, marked: str | None = None) -> str:
    return re.sub(
        r"{(\w+)(?::\w+)?}",
        lambda found: canaries.secret("path") if found.group(1) == marked else str(uuid4()),
        route.template,
    )


def steps_of(route: Route, given: dict[str, str], *, closely: bool) -> Iterator[Step]:
    """
    Requests to a route by somebody.

    Args:
        given: Who they are, as headers.
        closely: Each parameter alone as well: for the caller whom the route lets in.
    """
    first = next(headers_of(given))
    common = (route.method, route.template)
    for headers in headers_of(given):
        yield Step(*common, filled(route), frozenset({"header"}), headers)
    for json, form in bodies_of(route):
        yield Step(*common, filled(route), frozenset({"header", "body"}), first, json=json, form=form)
    names = [*route.parameters("query"), "token", "access_token", "refresh_token", "password", canaries.secret("name")]
    everything = {name: (canaries.stored if name in KEPT_FILTERS else canaries.secret)(name) for name in names}
    yield Step(*common, filled(route), frozenset({"header", "query"}), first, everything)
    for name in names if closely else ():
        yield Step(*common, filled(route), frozenset({"header", "query"}), first, {name: everything[name]})
    for name in route.parameters("path"):
        yield Step(*common, filled(route, name), frozenset({"header", "path"}), first)


class Walker:
    """Sends the steps, and notes which route has seen a mark in which place, as the server has matched it."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.seen: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.statuses: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.answers: list[str] = []
        self.last: dict[str, Any] = {}

        async def noting(scope: Any, receive: Any, send: Any) -> None:
            self.last = scope
            await app(scope, receive, send)

        transport = httpx2.ASGITransport(noting, client=("203.0.113.7", 4711), raise_app_exceptions=False)
        self.http = httpx2.AsyncClient(transport=transport, base_url="http://rota")

    async def send(self, step: Step) -> None:
        answer: httpx2.Response | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(STREAM_SECONDS if "stream" in step.template else 60):
                answer = await self.http.request(
                    step.method, step.path, headers=step.headers, params=step.query, **step.body
                )
        template = self._template()
        if template is not None:
            self.seen[step.method, template] |= step.places
        if answer is not None:
            self.statuses[step.method, step.template].add(answer.status_code)
            self.answers.append(f"{step.method} {step.template}: {answer.headers} {answer.text}")

    def _template(self) -> str | None:
        """Of the route that the server has matched; Starlette's own routes say only what they have called."""
        route = self.last.get("route")
        if route is None and (endpoint := self.last.get("endpoint")) is not None:
            of_endpoint = (each for each in self.app.routes if getattr(each, "endpoint", None) is endpoint)
            route = next((each for each in of_endpoint if each.matches(self.last)[0] is Match.FULL), None)
        return getattr(route, "path_format", None) or getattr(route, "path", None)

    def missed(self, routes: list[Route]) -> list[str]:
        """Routes that have not seen a mark in each of the places where one can be."""
        return [
            f"{route.method} {route.template}: {sorted(route.places - self.seen[route.method, route.template])}"
            for route in routes
            if route.places - self.seen[route.method, route.template]
        ]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()


async def tables(sql: Any) -> AsyncIterator[tuple[str, str]]:
    """Each table of a database as text, every row of it: bytes are shown in hexadecimal."""
    names = await sql.fetch(
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'm', 'v') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
        " AND n.nspname NOT LIKE 'pg_toast%'"
    )
    for (name,) in names:
        rows = await sql.fetch(f"SELECT t::text FROM {name} AS t")
        yield name, "\n".join(str(row[0]) for row in rows)
