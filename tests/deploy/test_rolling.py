"""The whole of a deployment, under load, behind a real nginx: nobody notices."""

import asyncio
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx2
import pytest

from app.container import Container
from app.domain.api_clients import ClientScope
from app.domain.users import Role
from tests.conftest import PASSWORD, OwnDatabase, client_at, make_settings
from tests.deploy.conftest import NGINX, Serve, Served, nginx
from tests.deploy.load import Load
from tests.feed.conftest import make_client
from tests.migrations.conftest import Tree

pytestmark = [
    pytest.mark.alone,
    pytest.mark.timeout(600),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]

PEOPLE = 40
SETTINGS = {"ROTA_MAX_SESSIONS_PER_USER": "1000"}

GAPS = """
SELECT f.id FROM families AS f LEFT JOIN audit_events AS e ON e.family_id = f.id
 GROUP BY f.user_id, f.id
HAVING array_agg(e.family_seq ORDER BY e.family_seq) <> ARRAY(SELECT generate_series(1, f.event_seq))
"""
REFUSALS = "SELECT action, reason FROM audit_events WHERE outcome <> 'success'"
ALIVE = "SELECT count(*) FROM families WHERE id = ANY($1::uuid[]) AND ended_at IS NULL"


@asynccontextmanager
async def loaded(own: OwnDatabase, servers: list[Served]) -> AsyncIterator[Load]:
    """The load runs while the body does, on these two servers."""
    services = Container.build(make_settings(own.app))
    names = [f"person-{number}-{secrets.token_hex(4)}" for number in range(PEOPLE)]
    for name in names:
        await services.users.create(name, PASSWORD, role=Role.USER, actor=None, client=client_at())
    await services.users.create("admin", PASSWORD, role=Role.ADMIN, actor=None, client=client_at())
    who = await make_client(services, ClientScope.INTROSPECT)
    await services.close()
    first, second = servers
    with (
        tempfile.TemporaryDirectory(prefix="rota-nginx-", ignore_cleanup_errors=True) as folder,
        nginx((first.port, second.port), Path(folder)) as port,
    ):
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=50)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, limits=limits) as http:
            load = Load(http, names, "", who.basic)
            admin = await load.sign_in("admin")
            assert admin is not None, load.failures
            load.admin = admin.access_token
            running = asyncio.create_task(load.run())
            try:
                yield load
            finally:
                load.stopping = True
                await running


async def more(load: Load, requests: int = 300) -> None:
    """Until so many further ones were answered."""
    wanted = load.done.total() + requests
    while load.done.total() < wanted and not load.failures:
        await asyncio.sleep(0.05)
    assert load.failures == []


async def replace(served: Served, serve: Serve, database_url: str, tree: Tree) -> Served:
    """Stop one, which succeeds in time, and start the new release in its place."""
    served.send(signal.SIGTERM)
    assert await served.ended() == 0, served.log.read_text()
    assert "Traceback" not in served.log.read_text()
    return await serve(database_url, port=served.port, tree=tree.path, **SETTINGS)


async def check_everybody(load: Load, sql: asyncpg.Connection) -> None:
    """Each session that nobody ended still refreshes, the others are over, and every trail is without a gap."""
    assert len(load.sessions) > 20
    assert len(load.left) > 5
    for kept in load.sessions:
        assert await load.refresh(kept), load.failures
    assert load.failures == []
    assert await sql.fetchval(ALIVE, [kept.session_id for kept in load.sessions]) == len(load.sessions)
    assert await sql.fetchval(ALIVE, [kept.session_id for kept in load.left]) == 0
    assert await sql.fetch(GAPS) == []
    assert await sql.fetch(REFUSALS) == []


async def test_a_release_under_load(own: OwnDatabase, own_sql: asyncpg.Connection, serve: Serve, release: Tree) -> None:
    """
    Expand, replace one process after the other, then the rest: no request fails, no session is lost.

    The new release does not start before the schema has what it needs, the former one runs on that and not on the rest.
    """
    servers = [await serve(own.app, **SETTINGS) for _ in range(2)]
    async with loaded(own, servers) as load:
        await more(load)
        early = await serve(own.app, tree=release.path, ready=False)
        assert await early.ended() == 5
        assert "run `rota db upgrade`" in early.log.read_text()

        said = await release.rota(own.owner, "db", "upgrade", "--phase", "expand")
        assert "applied column, index" in said
        await more(load)
        for place in range(2):
            servers[place] = await replace(servers[place], serve, own.app, release)
            await more(load)
        assert await own_sql.fetchval("SELECT version_num FROM alembic_version") == "index"

        said = await release.rota(own.owner, "db", "upgrade")
        assert "applied drop" in said
        await more(load)
        late = await serve(own.app, ready=False)
        assert await late.ended() == 4
        assert "too new" in late.log.read_text()
        load.stopping = True
        await asyncio.sleep(0)
        await more(load, 0)
        assert len(load.done) == 9, load.done  # each kind of request was there
    async with httpx2.AsyncClient(base_url=servers[0].url, timeout=30) as http:
        load.http = http
        await check_everybody(load, own_sql)


async def test_back_again_under_load(own: OwnDatabase, own_sql: asyncpg.Connection, serve: Serve) -> None:
    """Both processes replaced twice, with two workers each, by signals to their whole groups: likewise."""
    servers = [await serve(own.app, "--workers", "2", **SETTINGS) for _ in range(2)]
    async with loaded(own, servers) as load:
        await more(load)
        for place in (0, 1, 0, 1):
            servers[place].send(signal.SIGTERM, group=True)
            assert await servers[place].ended() == 0, servers[place].log.read_text()
            await more(load, 50)  # the other one carries it all
            servers[place] = await serve(own.app, "--workers", "2", port=servers[place].port, **SETTINGS)
            await more(load, 100)
    async with httpx2.AsyncClient(base_url=servers[0].url, timeout=30) as http:
        load.http = http
        await check_everybody(load, own_sql)
