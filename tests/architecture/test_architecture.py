"""Rules that no type checker knows."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.api.client_auth import any_client, client_with
from app.api.dependencies import Access, administering, auditing, signed_in
from app.domain.api_clients import ClientScope
from app.domain.events import Action, ActorKind, Outcome
from app.domain.families import EndReason
from app.main import create_app
from app.models import AuditEventRow, Base, FamilyRow
from tests.conftest import make_settings

GUARDS: dict[object, Access] = {
    signed_in: Access.SIGNED_IN,
    auditing: Access.AUDITOR,
    administering: Access.ADMIN,
    any_client: Access.CLIENT,
    **{client_with(scope): Access.CLIENT for scope in ClientScope},
}
ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "app").rglob("*.py"))


def routes_of(app: FastAPI) -> Iterator[APIRoute]:
    """All API routes, wherever FastAPI keeps those of included routers."""
    seen: list[object] = list(app.routes)
    while seen:
        route = seen.pop()
        if isinstance(route, APIRoute):
            yield route
        seen += getattr(getattr(route, "original_router", None) or getattr(route, "router", None), "routes", [])


@pytest.fixture(scope="module")
def app() -> Iterator[FastAPI]:
    made = create_app(make_settings("postgresql://nobody@127.0.0.1:1/nowhere"))
    yield made
    made.state.container.hasher.close()


def test_every_route_says_who_may_call_it(app: FastAPI) -> None:
    """And asks for a token exactly if it says so; a route of neither kind fails here."""
    routes = list(routes_of(app))
    documented = app.openapi()["paths"]
    assert {route.path.replace(":path}", "}") for route in routes} == set(documented)
    assert len(routes) >= 15
    for route in routes:
        stated = (route.openapi_extra or {}).get("x-access")
        guards = {dependency.call for dependency in route.dependant.dependencies} & set(GUARDS)
        assert stated == (GUARDS[guards.pop()] if guards else Access.ANYONE), route.path
        assert not guards, route.path


async def test_without_a_token_every_guarded_route_is_shut(app: FastAPI) -> None:
    """Walked over HTTP: 401, whatever else is asked."""
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://rota") as http:
        for route in routes_of(app):
            if (route.openapi_extra or {})["x-access"] != Access.ANYONE:
                path = re.sub(r"{\w+}", "01a20000-0000-7000-8000-000000000000", route.path)
                for method in route.methods or ():
                    assert (await http.request(method, path)).status_code == 401, route.path


def test_services_do_not_see_a_clock_of_the_host() -> None:
    """Time is PostgreSQL's: the host's clock is read in one place."""
    reading = re.compile(r"datetime\.now|time\.time\(|utcnow|date\.today")
    found = [path.name for path in SOURCES if reading.search(path.read_text())]
    assert found == ["clock.py"]


def test_domain_is_pure() -> None:
    """No I/O, no framework, no waiting."""
    for path in (ROOT / "app" / "domain").glob("*.py"):
        tree = ast.parse(path.read_text())
        names = {
            name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            )
        }
        assert not names & {"asyncio", "os", "socket", "pathlib", "fastapi", "sqlalchemy", "asyncpg", "structlog"}, path
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)], path


def test_repositories_never_commit() -> None:
    """Only a unit of work does, by name, inside a service; and a pooled hot statement, which is one of its own."""
    for path in SOURCES:
        if "commit()" in path.read_text():
            assert path.parent.name == "services" or path.name in {"database.py", "pooled.py"}, path


def test_every_action_is_written_somewhere() -> None:
    """No word of the vocabulary is dead."""
    sources = "".join(path.read_text() for path in SOURCES if path.name != "events.py")
    unused = [action.name for action in Action if f"Action.{action.name}" not in sources]
    assert unused == []


def test_actions_are_nouns_and_verbs() -> None:
    """`noun.verb`, stable identifiers."""
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", action) for action in Action)


@pytest.mark.parametrize(
    ("table", "column", "values"),
    [
        (FamilyRow, "end_reason", EndReason),
        (AuditEventRow, "outcome", Outcome),
        (AuditEventRow, "actor_kind", ActorKind),
    ],
)
def test_closed_lists_are_the_same_in_the_migrations(table: type[Base], column: str, values: type) -> None:
    """The migration's CHECK names exactly what the domain knows (it never imports the application)."""
    text = "".join(path.read_text() for path in (ROOT / "migrations" / "versions").glob("*.py"))
    listed = re.search(rf"{column} IN \(([^)]*)\)", text.replace('"\n    "', ""))
    assert listed, table
    assert set(re.findall(r"'(\w+)'", listed.group(1))) == {str(value) for value in values}  # type: ignore[attr-defined]


def test_migrations_never_import_the_application() -> None:
    """A revision must run as it was written, whatever the application becomes."""
    for path in (ROOT / "migrations" / "versions").glob("*.py"):
        assert not re.search(r"^\s*(from|import) app\b", path.read_text(), re.MULTILINE), path


def test_rotation_writes_no_indexed_column() -> None:
    """Or its updates would not be HOT."""
    written = {"generation", "event_seq", "rotated_at", "idle_expires_at", "last_ip", "attempt"}
    table = Base.metadata.tables["families"]
    indexed = {column.name for index in table.indexes for column in index.columns} | {
        column.name for column in table.primary_key.columns
    }
    assert not written & indexed


def test_files_and_functions_stay_small() -> None:
    """Past 400 lines or 60 a function, look for the seam."""
    for path in SOURCES:
        source = path.read_text()
        assert source.count("\n") <= 400, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 70, f"{path}: {node.name}"


def test_there_is_one_passlib() -> None:
    """libpass, and not the passlib of the same import name beside it."""
    from importlib.metadata import packages_distributions  # noqa: PLC0415

    assert set(packages_distributions()["passlib"]) == {"libpass"}
