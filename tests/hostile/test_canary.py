"""
No secret is kept, logged, traced, counted or exported: marked ones through every route, and then a look everywhere.

Everything is on that could tell: log level debug, a line for every request and statement, spans, PostgreSQL's own log
with statements and parameters. The searches themselves are put to the test last: a leak that is planted is found.
"""

import asyncio
import base64
import csv
import io
import logging
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
import pytest_asyncio
import structlog
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import event

from app import container
from app.api.dependencies import Access, stated
from app.domain.users import Role
from app.main import create_app
from app.observability.logs import configure_logs
from app.observability.traces import Traces
from app.repositories import lane
from app.repositories.engine import APP
from app.repositories.logins import make_login
from app.security.notes import new_key
from tests.conftest import WORKER, OwnDatabase, client_at, make_settings
from tests.hostile import canaries
from tests.hostile.walk import Step, Walker, bodies_of, filled, headers_of, routes_of, steps_of, tables

ROOT = Path(__file__).parents[2]
LOGIN = f"rota_canary_{WORKER}"
ORIGIN = "example.com/canaries"
MOST_ISSUED = 80  # are looked for one by one, with their hashes; of all of them, what each begins with
CLIENT_SCOPES = ["introspect", "revoke", "revocations", "authz", "sessions"]


@dataclass
class World:
    """A server with marked secrets for its own, and all places where it could leave something."""

    app: FastAPI
    own: OwnDatabase
    sql: asyncpg.Connection
    environment: dict[str, str]
    log: io.StringIO
    spans: InMemorySpanExporter
    folder: Path
    log_begins_at: int | None
    names: dict[str, str] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    issued: list[tuple[str, str]] = field(default_factory=list)
    client: str = ""

    @property
    def services(self) -> Any:
        return self.app.state.container

    async def headers(self, caller: str) -> dict[str, str]:
        """Somebody's, of a session of their own: what is walked may end it."""
        if caller == "nobody":
            return {}
        if caller == "program":
            return {"Authorization": self.client}
        if caller == "operator":
            return {"Authorization": f"Bearer {self.environment['ROTA_OPERATOR_TOKEN']}"}
        pair = await self.services.sign_in.with_password(
            self.names[caller], self.passwords[caller], client=client_at(f"198.51.100.{secrets.randbelow(250)}")
        )
        if len(self.issued) < MOST_ISSUED:
            self.keep(f"{caller}'s access token", pair.access_token)
            self.keep(f"{caller}'s refresh token", pair.refresh_token)
        return {"Authorization": f"Bearer {pair.access_token}"}

    def keep(self, name: str, value: str) -> None:
        assert value
        self.issued.append((name, value))

    async def rota(self, *words: str) -> str:
        """A command, and all that it said."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from app.cli import main; main()", *words),
            env={**clean, "PYTHONPATH": str(ROOT), **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = await program.communicate()
        assert program.returncode in {0, 5}, said.decode()  # a doctor has findings
        return said.decode()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(container, "make_traces", lambda _endpoint, _version: Traces(provider))
    return exporter


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """All log lines, ours and those of the libraries, at level debug."""
    text = io.StringIO()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", text)
        configure_logs("json", least=logging.DEBUG)
    for name, module in list(sys.modules.items()):  # each has a logger that remembers where it wrote first
        if name.startswith("app.") and hasattr(module, "log"):
            monkeypatch.setattr(module, "log", structlog.get_logger())
    for name in ("httpx2", "httpcore2", "httpcore"):  # of the test's own client
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)
    yield text
    configure_logs("json")


@pytest_asyncio.fixture
async def world(
    own: OwnDatabase, own_sql: asyncpg.Connection, spans: InMemorySpanExporter, log: io.StringIO, tmp_path: Path
) -> AsyncIterator[World]:
    await own_sql.execute(f"DROP ROLE IF EXISTS {LOGIN}")
    url = await make_login(own.owner, LOGIN, role=APP, password=canaries.secret("database"))
    (tmp_path / "sink").mkdir()
    settings = {
        "secrets": f"{canaries.secret('secrets')},{canaries.secret('older')}",
        "operator_token": canaries.secret("operator"),
        "audit_signing_key": new_key(),
        "audit_sink": str(tmp_path / "sink"),
        "audit_origin": ORIGIN,
    }
    environment = {f"ROTA_{name.upper()}": value for name, value in settings.items()}
    environment |= {"ROTA_DATABASE_URL": url, "ROTA_MAINTENANCE_DATABASE_URL": own.maintenance}
    environment |= {"ROTA_SLOW_REQUEST_MILLISECONDS": "1", "ROTA_SLOW_STATEMENT_MILLISECONDS": "1", "COLUMNS": "400"}
    name = await own_sql.fetchval("SELECT current_database()")
    for setting in ("log_statement = 'all'", "log_min_error_statement = 'debug5'", "log_min_duration_statement = 0"):
        await own_sql.execute(f"ALTER DATABASE {name} SET {setting}")
    for setting in ("log_parameter_max_length = -1", "log_parameter_max_length_on_error = -1"):
        await own_sql.execute(f"ALTER DATABASE {name} SET {setting}")
    size = await _size_of_log(own_sql)
    app = create_app(make_settings(url, **settings))
    app.state.container.database.watch._slow_seconds = 0
    for each in app.user_middleware:
        if "slow_seconds" in each.kwargs:
            each.kwargs["slow_seconds"] = 0
    made = World(app, own, own_sql, environment, log, spans, tmp_path, size)
    for caller, role in (("user", Role.USER), ("auditor", Role.AUDITOR), ("admin", Role.ADMIN)):
        made.names[caller] = canaries.stored(caller).lower()
        made.passwords[caller] = canaries.secret("password")
        made.keep(f"{caller}'s password", made.passwords[caller])
        await made.services.users.create(
            made.names[caller], made.passwords[caller], role=role, actor=None, client=client_at()
        )
    yield made
    await app.state.container.close()
    await own_sql.execute(f"REASSIGN OWNED BY {LOGIN} TO CURRENT_USER")
    await own_sql.execute(f"DROP ROLE {LOGIN}")


# PostgreSQL's line with the values of a statement. By default it writes none; told to, it shows what was asked for, a
# name that nobody has for one. What was issued, and passwords of people, are not in any statement at all.
PARAMETERS = "DETAIL:  Parameters: "
LOG_FILE = "current_setting('data_directory') || '/log'"


async def _size_of_log(sql: asyncpg.Connection) -> int | None:
    """Of PostgreSQL's own, where it is the tests' server; `None` where somebody else's is used."""
    try:
        size: int = await sql.fetchval(f"SELECT size FROM pg_stat_file({LOG_FILE})")
    except asyncpg.PostgresError:
        return None
    return size


async def a_life(world: World, http: httpx2.AsyncClient) -> None:
    """Every secret that can be handed out is, and is used, rightly and wrongly: sign-ins, refreshes, ends, resets."""

    async def ok(method: str, path: str, status: int, **more: Any) -> dict[str, Any]:
        answer = await http.request(method, path, **more)
        assert answer.status_code == status, (method, path, answer.text)
        found: dict[str, Any] = answer.json()
        return found

    admin = await world.headers("admin")
    name, password = canaries.stored("person").lower(), canaries.secret("password")
    user = await ok("POST", "/register", 201, json={"username": name, "password": password})
    pair = await ok("POST", "/token", 200, data={"username": name, "password": password})
    key = {"Idempotency-Key": canaries.secret("idempotency")}
    following = await ok("POST", "/refresh", 200, json={"refresh_token": pair["refresh_token"]}, headers=key)
    await ok("POST", "/refresh", 200, json={"refresh_token": pair["refresh_token"]}, headers=key)
    third = await ok("POST", "/refresh", 200, json={"refresh_token": following["refresh_token"]})
    bearer = {"Authorization": f"Bearer {third['access_token']}"}
    await ok("PATCH", f"/sessions/{third['session_id']}", 200, json={"label": canaries.stored("label")}, headers=bearer)
    new = canaries.secret("password")
    change = {"current_password": password, "new_password": new}
    await ok("PUT", "/me/password", 200, json=change, headers=bearer)
    for wrong in (canaries.secret("password"), new + "x", new[:-1]):
        await ok("POST", "/token", 401, data={"username": name, "password": wrong})
        await ok("PUT", "/me/password", 401, json={**change, "current_password": wrong}, headers=bearer)
    await ok("POST", "/token", 401, data={"username": canaries.secret("unknown"), "password": new})
    await ok("POST", "/token", 401, data={"username": canaries.secret("password"), "password": name})
    await ok("POST", "/refresh", 401, json={"refresh_token": pair["refresh_token"]})  # reuse: the family ends
    await ok("POST", "/refresh", 401, json={"refresh_token": third["refresh_token"]})
    world.keep("password", password)
    world.keep("password, changed", new)
    for issued in (pair, following, third):
        for kind in ("access_token", "refresh_token"):
            world.keep(kind, issued[kind])
            changed = issued[kind][:-9] + ("A" if issued[kind][-9] != "A" else "B") + issued[kind][-8:]
            world.keep(f"{kind}, changed", changed)
            await ok("POST", "/refresh", 401, json={"refresh_token": changed})
            await ok("GET", "/me", 401, headers={"Authorization": f"Bearer {changed}"})
            await http.get("/me", params={"access_token": issued[kind], "token": issued[kind]})
            await http.get(f"/sessions/{issued[kind]}", headers=admin)
    await _credentials(world, ok, admin, user["id"])
    await _programs(world, ok, admin)
    await _ends(ok, admin, user["id"])


async def _credentials(world: World, ok: Any, admin: dict[str, str], user: str) -> None:
    """One-time passwords and tokens to set one."""
    invite = {"username": canaries.stored("invited").lower(), "credential": "one_time_password"}
    once = (await ok("POST", "/admin/users", 201, json=invite, headers=admin))["one_time_password"]
    world.keep("one-time password", once)
    form = {"username": invite["username"], "password": once}
    exchanged = (await ok("POST", "/token", 403, data=form))["password_token"]
    world.keep("exchanged token", exchanged)
    exchanged = (await ok("POST", "/token", 403, data=form))["password_token"]  # the former is void
    world.keep("exchanged token", exchanged)
    await ok("POST", "/token", 401, data={**form, "password": once + "x"})
    reset = (await ok("POST", f"/admin/users/{user}/password-token", 201, headers=admin))["password_token"]
    world.keep("set-password token", reset)
    for token in (exchanged, reset):
        new = {"token": token, "new_password": canaries.secret("password")}
        world.keep("password, set", new["new_password"])
        await ok("PUT", "/password", 401, json={**new, "token": token[:-1] + ("A" if token[-1] != "A" else "B")})
        await ok("PUT", "/password", 200, json=new)
        await ok("PUT", "/password", 401, json=new)


async def _programs(world: World, ok: Any, admin: dict[str, str]) -> None:
    """API clients: secrets made, rotated, wrong, as Basic and in the form."""
    asked = {
        "name": canaries.stored("client"),
        "scopes": CLIENT_SCOPES,
        "grants": ["password", "refresh_token", "client_credentials"],
    }
    made = await ok("POST", "/admin/clients", 201, json={**asked, "first_party": True}, headers=admin)
    rotated = await ok("POST", f"/admin/clients/{made['client_id']}/secrets", 200, headers=admin)
    world.keep("client secret", made["client_secret"])
    world.keep("client secret, rotated", rotated["client_secret"])
    for secret in (made["client_secret"], rotated["client_secret"]):
        pair = base64.b64encode(f"{made['client_id']}:{secret}".encode()).decode()
        world.client = f"Basic {pair}"
        world.keep("client's Basic", pair)
        basic = {"Authorization": world.client}
        await ok("POST", "/oauth2/introspect", 200, data={"token": canaries.secret("token")}, headers=basic)
        in_form = {"client_id": made["client_id"], "client_secret": secret}
        await ok("POST", "/oauth2/introspect", 200, data={**in_form, "token": canaries.secret("token")})
        await ok("POST", "/oauth2/introspect", 401, data={**in_form, "client_secret": secret + "x", "token": "x"})
        await ok("POST", "/oauth2/introspect", 400, data={**in_form, "token": "x"}, headers=basic)
    own = await ok("POST", "/oauth2/token", 200, data={"grant_type": "client_credentials"}, headers=basic)
    world.keep("client's token", own["access_token"])
    await ok("POST", "/oauth2/introspect", 200, data={"token": own["access_token"]}, headers=basic)


async def _ends(ok: Any, admin: dict[str, str], user: str) -> None:
    await ok("GET", "/admin/sessions", 200, headers=admin)
    await ok("GET", f"/admin/users/{user}", 200, headers=admin)
    await ok("DELETE", f"/admin/users/{user}/sessions", 200, headers=admin)


@pytest.fixture
def breaking(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The n-th statement from now fails, and quotes what no message should; nothing fails while this is empty."""
    countdown: list[int] = []

    def fail(*_: Any, **__: Any) -> None:
        if countdown:
            countdown[0] -= 1
            if countdown[0] == 0:
                countdown.clear()
                held = canaries.secret("held")  # a traceback with local variables would show it
                raise RuntimeError(f"it broke with {canaries.secret('message')}", held)

    honest = lane._fetch

    async def fetch(*arguments: Any) -> Any:
        fail()
        return await honest(*arguments)

    monkeypatch.setattr(lane, "_fetch", fetch)
    engine = world.services.database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", fail)
    yield countdown
    event.remove(engine, "before_cursor_execute", fail)


CALLERS = ("nobody", "user", "admin", "program", "operator")


async def walk(world: World, walker: Walker, breaking: list[int]) -> None:
    """Every route by every kind of caller; then with each of its first statements failing."""
    for route in routes_of(world.app):
        access = (route.operation.get("x-access") or "anyone").lower()
        for caller in CALLERS:
            given = await world.headers(caller)
            closely = caller == {"api client": "program", "operator": "operator", "anyone": "nobody"}.get(
                access, "admin"
            )
            for step in steps_of(route, given, closely=closely):
                await walker.send(step)
            if not closely:
                continue
            for statement in (1, 2, 3):
                for json_, form in list(bodies_of(route))[:1]:
                    breaking[:] = [statement]
                    await walker.send(
                        Step(
                            route.method,
                            route.template,
                            filled(route),
                            frozenset(),
                            next(headers_of(given)),
                            {},
                            json_,
                            form,
                        )
                    )
                    breaking.clear()


async def everything(world: World) -> dict[str, str]:
    """Place -> all text there, of the places where nothing marked may be."""
    found = {"log lines": world.log.getvalue()}
    found["spans"] = "".join(span.to_json() for span in world.spans.get_finished_spans())
    transport = httpx2.ASGITransport(world.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as http:
        found["metrics"] = (await http.get("/metrics", headers=await world.headers("operator"))).text
    shown = ["config show", "keys list", "doctor", "audit status", "stats"]
    for words in [*shown, *(f"{words} --json" for words in shown)]:
        found[words] = await world.rota(*words.split())
    return found


async def kept(world: World) -> dict[str, str]:
    """Place -> all text there, of the places where a label and a name may be."""
    found = {f"table {name}": text async for name, text in tables(world.sql)}
    await world.rota("audit", "seal")
    bundle = world.folder / f"bundle-{secrets.token_hex(4)}"
    await world.rota("audit", "export", "--output", str(bundle))
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        found[f"bundle {path.relative_to(bundle)}"] = path.read_bytes().decode("latin-1")
    for form in ("ndjson", "csv"):
        found[f"events as {form}"] = await world.rota("audit", "export", "--format", form)
    for form in ("ndjson", "csv"):
        found[f"sessions as {form}"] = await world.rota("sessions", "export", "--format", form)
    found["users"] = await world.rota("users", "list", "--json", "--limit", "100")
    for path in sorted(path for path in (world.folder / "sink").rglob("*") if path.is_file()):
        found[f"sink {path.name}"] = path.read_text()
    if world.log_begins_at is not None:
        read = f"SELECT pg_read_file({LOG_FILE}, $1, $2)"
        size = await _size_of_log(world.sql)
        assert size is not None
        said = str(await world.sql.fetchval(read, world.log_begins_at, size - world.log_begins_at))
        values = [line for line in said.splitlines() if PARAMETERS in line]
        found[PARAMETERS] = "\n".join(values)
        found["PostgreSQL's log"] = "\n".join(line for line in said.splitlines() if PARAMETERS not in line)
    return found


@pytest.mark.timeout(600)
async def test_no_secret_stays_anywhere(world: World, breaking: list[int]) -> None:
    """All routes, all places of a request, good, bad and broken; afterwards no trace of any secret, in no form."""
    own = {name: value for name, value in world.environment.items() if canaries.MARK in value}
    assert own.keys() == {"ROTA_SECRETS", "ROTA_OPERATOR_TOKEN", "ROTA_DATABASE_URL"}
    world.keep("the signing key", world.environment["ROTA_AUDIT_SIGNING_KEY"])
    logging.getLogger("a.library").debug("said")
    async with Walker(world.app) as walker:
        await a_life(world, walker.http)
        await walk(world, walker, breaking)
        routes = routes_of(world.app)
        assert len(routes) > 50
        assert walker.missed(routes) == []
        assert 500 in set().union(*walker.statuses.values()), "nothing broke"
        assert sum(200 in statuses for statuses in walker.statuses.values()) > 20, "nobody got in anywhere"
    nowhere, only_kept = await everything(world), await kept(world)
    for event_name in ("request.slow", "statement.slow", "request.broke"):
        assert f'"{event_name}"' in nowhere["log lines"]
    assert '"level":"debug"' in nowhere["log lines"]
    assert len(world.issued) >= MOST_ISSUED
    found = [f"{place}: {leak}" for place, leak in _leaks(nowhere, world.issued, also_stored=True)]
    values = only_kept.pop(PARAMETERS, "")
    found += [f"{PARAMETERS}: {name}" for name, value in world.issued if canaries.holds(values, value)]
    found += [f"{place}: {leak}" for place, leak in _leaks(only_kept, world.issued, also_stored=False)]
    found += [
        f"answer {leak}" for each in walker.answers for leak in canaries.leaks(each, also_stored=False, tokens=False)
    ]
    assert not found, "\n".join(sorted({line[:400] for line in found}))
    assert canaries.STORED in "".join(only_kept.values()), "and what is kept is seen by the search"


def _leaks(texts: dict[str, str], issued: list[tuple[str, str]], *, also_stored: bool) -> Iterator[tuple[str, str]]:
    for place, text in texts.items():
        for leak in canaries.leaks(text, issued, also_stored=also_stored):
            yield place, leak


def test_a_route_that_was_not_walked_is_noticed() -> None:
    """A walk that leaves out one place of one route says which; a new route is walked without being named."""
    app = create_app(make_settings("postgresql://nobody@127.0.0.1:1/nowhere"))
    router = APIRouter()

    async def late(thing: str, word: str) -> None: ...

    router.add_api_route("/late/{thing}", late, methods=["PUT"], openapi_extra=stated(Access.ANYONE))
    app.routes.extend(router.routes)
    routes = routes_of(app)
    (new,) = [route for route in routes if route.template == "/late/{thing}"]
    assert new.places == {"header", "body", "query", "path"}
    steps = list(steps_of(new, {}, closely=True))
    assert set().union(*(step.places for step in steps)) == new.places
    assert any("word" in step.query for step in steps)
    walker = Walker(app)
    for route in routes:
        walker.seen[route.method, route.template] |= route.places
    assert walker.missed(routes) == []
    walker.seen["PUT", "/late/{thing}"].discard("path")
    assert walker.missed(routes) == ["PUT /late/{thing}: ['path']"]
    del walker.seen["POST", "/token"]
    assert len(walker.missed(routes)) == 2
    assert isinstance(next(route for route in app.routes if isinstance(route, APIRoute)), APIRoute)
    app.state.container.hasher.close()


FORMS: dict[str, Callable[[str], str]] = {
    "itself": lambda text: text,
    "in a sentence": lambda text: f"refused {text}, sorry",
    "lower case": str.lower,
    "hexadecimal": lambda text: text.encode().hex(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "as Basic": lambda text: base64.b64encode(f"client:{text}".encode()).decode(),
    "base64, one further": lambda text: base64.b64encode(f"ab{text}x".encode()).decode(),
    "reversed": lambda text: text[::-1],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_planted_secret_is_found_in_any_form(form: str) -> None:
    """The search can fail the test: made-up marks and real tokens alike; and it finds nothing where nothing is."""
    mark = canaries.secret("password")
    assert canaries.leaks(f"x{FORMS[form](mark)}y", also_stored=False)
    token = f"rota_rt_{base64.urlsafe_b64encode(secrets.token_bytes(78)).decode()}"
    if form != "lower case":
        assert canaries.leaks(f"x{FORMS[form](token)}y", [("token", token)], also_stored=False)
    assert canaries.leaks(canaries.stored(), also_stored=True)
    assert not canaries.leaks(canaries.stored(), also_stored=False)
    noise = secrets.token_hex(10_000) + base64.b64encode(secrets.token_bytes(10_000)).decode()
    assert not canaries.leaks(noise, [("token", token)], also_stored=True)


def test_the_secret_bytes_of_a_token_are_found_too() -> None:
    """A table that held the proof of a token, or a hash of the whole, would be found by it."""
    raw = secrets.token_bytes(78)
    token = f"rota_rt_{base64.urlsafe_b64encode(raw).decode()}"
    for kept_ in (raw[38:70].hex(), raw.hex(), canaries.traces(token)["sha256"], canaries.traces(token)["md5"]):
        assert canaries.leaks(f"\\x{kept_}", [("token", token)], also_stored=False), kept_


async def test_a_leak_planted_in_each_place_is_found(world: World) -> None:
    """In a table as text and as bytes, on a log line, in a span, in the trail and its exports."""
    mark = canaries.secret("planted")
    other = await asyncpg.connect(world.own.owner)  # what is logged is a setting of new sessions
    await other.fetchval(f"SELECT length('{mark}')")
    await other.fetchval("SELECT length($1::text)", mark)
    await other.close()
    await world.sql.execute("CREATE TABLE planted_text AS SELECT $1::text AS t", mark)
    await world.sql.execute("CREATE TABLE planted_bytes AS SELECT convert_to($1, 'UTF8') AS b", mark)
    await world.sql.execute(
        "INSERT INTO audit_events (id, occurred_at, action, version, outcome, actor_kind, subject_id, user_agent)"
        " VALUES (gen_random_uuid(), now(), 'audit.heartbeat', 1, 'success', 'system', gen_random_uuid(), $1)",
        mark,
    )
    structlog.get_logger().info("planted", word=mark)
    logging.getLogger("a.library").debug("planted %s", mark)
    traces = world.services.watching.traces
    with traces.request({}, "x") as span:
        traces.describe(span, "GET", mark, 200)
    nowhere, only_kept = await everything(world), await kept(world)
    leaking = {place for place, text in (nowhere | only_kept).items() if canaries.leaks(text, also_stored=False)}
    assert {"table planted_text", "table planted_bytes", "table audit_events", "log lines", "spans"} <= leaking
    assert {"events as ndjson", "events as csv"} <= leaking
    assert any(place.startswith("bundle ") for place in leaking)
    assert world.log_begins_at is None or {"PostgreSQL's log", PARAMETERS} <= leaking
    assert len([line for line in world.log.getvalue().splitlines() if mark in line]) == 2
    assert "metrics" not in leaking
    assert list(csv.reader(io.StringIO(only_kept["events as csv"])))
    assert world.names["admin"] in only_kept["users"]
