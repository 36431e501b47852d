"""Nothing waits for ever: pools, connections, statements, locks, open transactions, whole requests, the end."""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI, Request

from app.api.dependencies import services as services_of
from app.container import Container
from app.domain.errors import Unavailable
from app.http.deadline import allow_longer
from app.main import create_app
from app.repositories import engine as engine_module
from app.repositories import lane as lane_module
from tests.conftest import PASSWORD, SECRET, MakeServices, OwnDatabase, make_settings
from tests.pools.conftest import free_port, listens, until
from tests.pools.proxy import proxied


@asynccontextmanager
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app, client=("203.0.113.7", 4711), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as http:
        yield http
    await app.state.container.close()


def test_every_wait_is_bounded_in_the_session_itself() -> None:
    """The bounds that the server keeps, and those that we keep beyond them for a server that is gone."""
    bounds = engine_module.SERVER_SETTINGS
    statement, lock = int(bounds["statement_timeout"]), int(bounds["lock_timeout"])
    assert 0 < lane_module.LOCK_MILLISECONDS < lock < statement < 1000 * engine_module.ANSWER_SECONDS
    assert 0 < int(bounds["idle_in_transaction_session_timeout"]) <= 5000
    waits = engine_module.POOL_WAIT_SECONDS + engine_module.CONNECT_SECONDS + engine_module.ANSWER_SECONDS
    assert waits < make_settings("postgresql://x@y/z").request_seconds


async def test_an_exhausted_pool(make_services: MakeServices, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes last waits for so long and is answered that it was not to be had; then it is well again."""
    monkeypatch.setattr(engine_module, "POOL_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(lane_module, "POOL_WAIT_SECONDS", 0.2)
    services = make_services(database_pool_size=2)
    async with services.database.begin() as one, services.database.begin() as two:
        await one.now()
        await two.now()
        with pytest.raises(Unavailable):
            async with services.database.begin() as db:
                await db.now()
        with pytest.raises(Unavailable):
            await services.database.fetch_one("SELECT 1")
    async with services.database.begin() as db:
        assert await db.now()


async def test_a_database_that_swallows(own: OwnDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """On connections that were open, and on those that are to be opened: 503 with `Retry-After`, all within bounds."""
    for module in (engine_module, lane_module):
        monkeypatch.setattr(module, "POOL_WAIT_SECONDS", 0.5)
    monkeypatch.setattr(engine_module, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(engine_module, "ANSWER_SECONDS", 1)
    async with proxied(own.app) as proxy, client(create_app(make_settings(proxy.url, database_pool_size=2))) as http:
        who = {"username": "ada", "password": PASSWORD}
        assert (await http.post("/register", json=who)).status_code == 201
        tokens = (await http.post("/token", data=who)).json()
        proxy.swallow()
        token = {"refresh_token": tokens["refresh_token"]}
        async with asyncio.timeout(25):
            for _ in range(2):
                answers = await asyncio.gather(
                    *(http.post("/refresh", json=token) for _ in range(4)), http.post("/token", data=who)
                )
                assert {answer.status_code for answer in answers} == {503}
                assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)
        proxy.hands_on.set()
        assert (await http.post("/refresh", json=token)).status_code == 200


async def test_a_lock_that_another_holds(own: OwnDatabase, own_sql: asyncpg.Connection) -> None:
    """The row is waited for briefly; 503, and nobody's session is harmed."""
    async with client(create_app(make_settings(own.app))) as http:
        who = {"username": "ada", "password": PASSWORD}
        assert (await http.post("/register", json=who)).status_code == 201
        tokens = (await http.post("/token", data=who)).json()
        token = {"refresh_token": tokens["refresh_token"]}
        async with own_sql.transaction():
            await own_sql.execute("SELECT FROM families FOR UPDATE")
            answer = await http.post("/refresh", json=token)
            assert (answer.status_code, answer.json()["code"]) == (503, "temporarily_unavailable")
            assert "Retry-After" in answer.headers
        assert (await http.post("/refresh", json=token)).status_code == 200


async def test_a_transaction_that_idles(make_services: MakeServices, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends it; the next statement says so as trouble that passes, and the pool goes on without it."""
    monkeypatch.setitem(engine_module.SERVER_SETTINGS, "idle_in_transaction_session_timeout", "50")
    services = make_services()

    async def idle() -> None:
        async with services.database.begin() as db:
            await db.now()
            driver: Any = (await db._db.get_raw_connection()).driver_connection

            async def ended() -> bool:
                found: bool = driver.is_closed()
                return found

            await until(ended, "the server ends it")
            await db.now()

    with pytest.raises(Unavailable):
        await idle()
    async with services.database.begin() as db:
        assert await db.now()


async def test_a_request_past_its_deadline(own: OwnDatabase, own_sql: asyncpg.Connection) -> None:
    """503 with `Retry-After` and its id; no transaction stays open, nothing is half done, the connection is clean."""
    app = create_app(make_settings(own.app, request_seconds=1))

    @app.get("/slow")
    async def slow(request: Request) -> None:
        container: Container = services_of(request)
        async with container.database.begin() as db:
            await db._db.exec_driver_sql("UPDATE job_runs SET rows = 1")
            await db._db.exec_driver_sql("SELECT pg_sleep(4)")

    async with client(app) as http:
        for _ in range(3):
            answer = await http.get("/slow")
            assert (answer.status_code, answer.json()["code"]) == (503, "temporarily_unavailable")
            assert answer.headers["Retry-After"] == "1"
            assert answer.headers["X-Request-Id"] == answer.json()["request_id"]

        async def nobody() -> bool:
            open_ones = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'rota_test' AND xact_start IS NOT NULL"
            return not await own_sql.fetchval(f"{open_ones} AND datname = current_database()")

        await until(nobody, "no transaction is open")
        assert (await http.get("/readyz")).status_code == 200


async def test_the_deadline_of_oauth(own: OwnDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """In OAuth's form, and never an error upon which a client throws its tokens away."""
    app = create_app(make_settings(own.app, request_seconds=1))

    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(type(app.state.container.oauth), "grant", never, raising=False)
    monkeypatch.setattr(app.state.container.database, "fetch_one", never)
    monkeypatch.setattr(app.state.container.database, "begin", never)
    async with client(app) as http:

        @app.get("/oauth2/waits")
        async def waits() -> None:
            await never()

        answer = await http.get("/oauth2/waits")
        assert answer.status_code == 503
        assert answer.json()["error"] == "temporarily_unavailable"
        assert "Retry-After" in answer.headers


async def test_what_waits_on_purpose(own: OwnDatabase) -> None:
    """A long poll has its own time besides, and what has begun to answer goes on as long as it likes."""
    from starlette.responses import StreamingResponse  # noqa: PLC0415 - only here

    app = create_app(make_settings(own.app, request_seconds=1))

    @app.get("/polls")
    async def polls(request: Request) -> str:
        allow_longer(request, 1)
        await asyncio.sleep(1.3)
        return "done"

    @app.get("/streams")
    async def streams() -> StreamingResponse:
        async def content() -> AsyncIterator[str]:
            yield "a"
            await asyncio.sleep(1.3)
            yield "b"

        return StreamingResponse(content())

    async with client(app) as http:
        assert (await http.get("/polls")).json() == "done"
        assert (await http.get("/streams")).text == "ab"


async def test_the_end_of_a_server_whose_database_hangs(own: OwnDatabase) -> None:
    """SIGTERM amid requests that the database does not answer: 503 to them, and over within 20 seconds, by itself."""
    async with proxied(own.app) as proxy:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-c", "from app.cli import main; main()", "serve", "--port", str(port)],
            env={
                **os.environ,
                "ROTA_DATABASE_URL": proxy.url,
                "ROTA_SECRETS": SECRET,
                "ROTA_REGISTRATION": "open",
            },
            stderr=subprocess.DEVNULL,
        )
        try:
            await until(lambda: listens(port), "the server")
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
                who = {"username": f"ada-{secrets.token_hex(4)}", "password": PASSWORD}
                assert (await http.post("/register", json=who)).status_code == 201
                assert (await http.post("/token", data=who)).status_code == 200
                proxy.swallow()
                hanging = [asyncio.create_task(http.post("/token", data=who)) for _ in range(4)]
                await asyncio.sleep(0.5)
                told = time.monotonic()
                process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(process.wait, 60)
                took = time.monotonic() - told
                assert {answer.status_code for answer in await asyncio.gather(*hanging)} == {503}
            assert took < 20
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
