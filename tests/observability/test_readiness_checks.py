"""Whether a process should be given requests: each check fails by itself, and says so to the operator alone."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.domain.clock import Clock
from app.domain.readiness import Check
from app.main import create_app
from app.services import housekeeping, readiness
from tests.conftest import OwnDatabase, make_settings
from tests.observability.conftest import AS_OPERATOR, OPERATOR

BEHIND = "DELETE FROM schema_revisions WHERE revision > '0009'; UPDATE alembic_version SET version_num = '0009'"
AHEAD = (
    "INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) "
    "VALUES ('9999', 'expand', '99.0.0', false, now())"
)
NAMES = ["draining", "database", "schema", "clock", "partitions", "trail", "revocation"]


@pytest_asyncio.fixture
async def own_app(own: OwnDatabase, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FastAPI]:
    """An application on a database of its own, that looks anew at each question."""
    monkeypatch.setattr(housekeeping, "CHECK_SECONDS", 0.0)
    app = create_app(make_settings(own.app, operator_token=OPERATOR))
    yield app
    await app.state.container.close()


async def ask(app: FastAPI, headers: dict[str, str] | None = None) -> httpx2.Response:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://rota") as http:
        return await http.get("/readyz", headers=headers or {})


async def failing(app: FastAPI) -> dict[str, Any]:
    """What is not ok, and why; the answer's status goes with it."""
    answer = await ask(app, AS_OPERATOR)
    checks = answer.json()["checks"]
    assert [check["name"] for check in checks] == NAMES
    assert [set(check) for check in checks] == [{"name", "ok", "why"}] * len(NAMES)
    found = {check["name"]: check["why"] for check in checks if not check["ok"]}
    assert answer.status_code == (503 if found else 200)
    assert answer.json()["status"] == ("unavailable" if found else "ok")
    assert all(check["why"] is None for check in checks if check["ok"])
    assert (await ask(app)).status_code == answer.status_code
    return found


@pytest.mark.parametrize(
    ("harm", "failed"),
    [
        ("ALTER DATABASE {name} SET default_transaction_read_only = on", "database"),
        (BEHIND, "schema"),
        (AHEAD, "schema"),
        ("REVOKE INSERT ON audit_events FROM rota_app", "trail"),
        ("ALTER TABLE audit_events ADD CONSTRAINT no_more CHECK (false) NOT VALID", "trail"),
    ],
    ids=["read only", "schema too old", "schema too new", "no grant", "no event passes"],
)
async def test_each_check_fails_by_itself(
    own_app: FastAPI, own: OwnDatabase, own_sql: asyncpg.Connection, harm: str, failed: str
) -> None:
    """Well before; afterwards the operator reads which, and a stranger reads nothing."""
    assert await failing(own_app) == {}
    name = await own_sql.fetchval("SELECT current_database()")
    await own_sql.execute(harm.format(name=name))
    await own_app.state.container.watching.probe.close()  # settings of the database are of new connections
    found = await failing(own_app)
    if failed == "database":
        assert found.pop("database") == "the database takes no writes"
        assert set(found) == {"schema", "clock", "partitions", "trail"}
        assert all(why.startswith("not tried") for why in found.values())
    else:
        assert set(found) == {failed}
    stranger = (await ask(own_app)).text
    assert not [word for word in (*NAMES[1:], "not tried", name) if word in stranger]


@pytest.mark.case(92)
async def test_partitions_that_end(own_app: FastAPI, own_sql: asyncpg.Connection) -> None:
    """Less than thirty days ahead is too little; 'ahead' is counted to the end of the last month."""
    partitions = await own_sql.fetch(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'audit_events'::regclass ORDER BY 1"
    )
    wanted = (datetime.now(UTC) + timedelta(days=29)).strftime("audit_events_%Y_%m")
    for row in partitions:
        if row["relname"] >= wanted:
            await own_sql.execute(f"DROP TABLE {row['relname']}")
    assert set(await failing(own_app)) == {"partitions"}


class Wrong(Clock):
    """A host whose clock is off."""

    def __init__(self, **off: float) -> None:
        self._off = timedelta(**off)

    def on_host(self) -> datetime:
        return super().on_host() + self._off


@pytest.mark.parametrize(
    ("seconds", "ok"), [(0, True), (0.5, True), (-0.5, True), (5, False), (-5, False), (86_400, False)]
)
async def test_the_host_clock(database_url: str, seconds: float, ok: bool) -> None:  # noqa: FBT001 - a case
    """Within a second of the database's, either way."""
    app = create_app(make_settings(database_url, operator_token=OPERATOR), Wrong(seconds=seconds))
    assert ("clock" not in await failing(app)) is ok
    await app.state.container.close()


async def test_a_database_that_is_away() -> None:
    """503 in good time; what could not be tried is not called ok."""
    app = create_app(make_settings("postgresql://nobody@127.0.0.1:1/nowhere", operator_token=OPERATOR))
    found = await failing(app)
    assert set(found) == {"database", "schema", "clock", "partitions", "trail"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://rota") as http:
        assert (await http.get("/livez")).json() == {"status": "ok"}
    await app.state.container.close()


async def test_a_check_that_does_not_come_to_an_end(
    own_app: FastAPI, own_sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock on the trail is waited for no longer than the check's deadline, and fails that check only."""
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.5)
    monkeypatch.setattr(readiness, "ALL_SECONDS", 10.0)
    assert await failing(own_app) == {}
    async with own_sql.transaction():
        await own_sql.execute("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE")
        found = await failing(own_app)
    assert found["trail"] == "no answer within 0.5 s"
    assert await failing(own_app) == {}


async def test_a_pool_that_is_busy_is_no_reason(own_app: FastAPI) -> None:
    """Probes do not stand in line behind requests: elsewhere the pools would be as busy."""
    container = own_app.state.container
    held = [container.database.begin() for _ in range(container.settings.database_pool_size)]
    for unit in held:
        await unit.__aenter__()
    assert await failing(own_app) == {}
    for unit in held:
        await unit.__aexit__(None, None, None)


async def test_draining_is_seen_at_once(own_app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the other findings are a moment old; requests are still answered."""
    monkeypatch.setattr(housekeeping, "CHECK_SECONDS", 1000.0)
    assert await failing(own_app) == {}
    own_app.state.container.readiness.drain()
    assert await failing(own_app) == {"draining": "the process is stopping"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(own_app), base_url="http://rota") as http:
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/.well-known/jwks.json")).status_code == 200


async def test_probes_cost_little(own_app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred at once, and again within the second: one look."""
    looks = 0
    container = own_app.state.container
    look = container.readiness._look

    async def counted() -> Any:
        nonlocal looks
        looks += 1
        return await look()

    monkeypatch.setattr(container.readiness, "_look", counted)
    monkeypatch.setattr(housekeeping, "CHECK_SECONDS", 1000.0)
    answers = await asyncio.gather(*(ask(own_app) for _ in range(200)))
    assert {answer.status_code for answer in answers} == {200}
    await ask(own_app)
    assert looks == 1


async def test_a_stale_view(own_app: FastAPI) -> None:
    """A process that keeps a view is ready when that was read; one that keeps none asks the database anyway."""
    view = own_app.state.container.ended_view
    assert await failing(own_app) == {}
    view._followed = True
    assert set(await failing(own_app)) == {"revocation"}
    following = asyncio.create_task(view.follow())
    async with asyncio.timeout(30):
        while view.now() is None:
            await asyncio.sleep(0)
    assert await failing(own_app) == {}
    following.cancel()
    view._read_at -= 1000
    assert set(await failing(own_app)) == {"revocation"}


def test_names_are_the_closed_list() -> None:
    """The documentation, the metrics and the answer have the same names in the same order."""
    assert [str(check) for check in Check] == NAMES


@pytest.mark.parametrize("token", ["short", "x" * 31, "x" * 513, "x" * 31 + " ", "x" * 31 + "\u00e9"])
def test_a_weak_token_is_no_setting(database_url: str, token: str) -> None:
    """Or it could be guessed, or not be sent."""
    with pytest.raises(ValueError, match="32 to 512 visible ASCII") as refused:
        make_settings(database_url, operator_token=token)
    assert token not in str(refused.value)
