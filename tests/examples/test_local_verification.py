"""The example service, as a process beside a real Rota."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from uuid_utils.compat import uuid7

from app.container import Container
from app.domain.events import NO_CLIENT
from app.domain.families import EndReason
from app.domain.session_ends import SessionEnd
from app.security.event_tokens import EventTokens
from tests.cli.test_cli import free_port
from tests.conftest import PASSWORD, OwnDatabase, make_settings
from tests.feed.conftest import Credentials, Serve

FOLDER = Path(__file__).parents[2] / "examples" / "local_verification"


@asynccontextmanager
async def example(rota: str, who: Credentials, log: Path, **more: str) -> AsyncIterator[httpx2.AsyncClient]:
    """The service in a process of its own, and a client for it."""
    port = free_port()
    words = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ROTA_", "PYTHONPATH"))}
    environment = {
        **clean,
        "ROTA_URL": rota,
        "FEED_CLIENT_ID": who.client.client_id,
        "FEED_CLIENT_SECRET": who.secret,
        **more,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(words, cwd=FOLDER, env=environment, stdout=output, stderr=output)
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:

            async def answers() -> bool:
                assert process.poll() is None, log.read_text()
                try:
                    return (await http.get("/health")).status_code == 200
                except httpx2.TransportError:
                    return False

            await until(answers)
            yield http
    finally:
        process.terminate()
        process.wait(20)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it is so."""
    for _ in range(1200):
        if await true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never was")


async def sign_in(rota: httpx2.AsyncClient) -> str:
    answer = await rota.post("/token", data={"username": "ada", "password": PASSWORD})
    token: str = answer.json()["access_token"]
    return token


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_it_refuses_what_has_ended_and_survives_our_restart(
    own: OwnDatabase, serve: Serve, who: Credentials, tmp_path: Path
) -> None:
    """Log in, call, log out, refused; again with Rota away in between, during which it goes on by what it knows."""
    served = await serve(own.app, ROTA_REGISTRATION="open")
    async with (
        example(served.url, who, tmp_path / "example.log") as http,
        httpx2.AsyncClient(base_url=served.url, timeout=20) as rota,
    ):

        async def fresh() -> bool:
            return not (await http.get("/health")).json()["stale"]

        async def status(token: str) -> int:
            return (await http.get("/hello", headers=bearer(token))).status_code

        await until(fresh)
        await rota.post("/register", json={"username": "ada", "password": PASSWORD})
        first, second, third = [await sign_in(rota) for _ in range(3)]
        assert [await status(token) for token in (first, second, third)] == [200, 200, 200]

        await rota.post("/logout", headers=bearer(first))

        async def first_is_refused() -> bool:
            return await status(first) == 401

        await until(first_is_refused)
        assert await status(second) == 200

        await asyncio.to_thread(served.stop)
        assert [await status(token) for token in (first, second)] == [401, 200]  # nobody is there to be asked

        services = Container.build(make_settings(own.app))
        caller = await services.authentication.authenticate(second)
        await services.sessions.end_others(caller, client=NO_CLIENT)  # the third, while Rota is away
        await services.close()
        again = await serve(own.app, port=urlsplit(served.url).port)
        assert again.url == served.url

        async def third_is_refused() -> bool:
            return await status(third) == 401

        await until(third_is_refused)
        assert await status(second) == 200
        await rota.post("/logout", headers=bearer(second))

        async def second_is_refused() -> bool:
            return await status(second) == 401

        await until(second_is_refused)


@pytest.mark.parametrize(("choice", "expected"), [("refuse", 503), ("accept", 200)])
async def test_what_it_does_when_it_knows_nothing(
    own: OwnDatabase, serve: Serve, who: Credentials, tmp_path: Path, choice: str, expected: int
) -> None:
    """The feed shuts it out: by choice it refuses with 503, or goes on by signature and expiry."""
    served = await serve(own.app, ROTA_REGISTRATION="open")
    stranger = Credentials(who.client, "wrong")
    async with (
        example(served.url, stranger, tmp_path / "example.log", WHEN_STALE=choice) as http,
        httpx2.AsyncClient(base_url=served.url, timeout=20) as rota,
    ):
        await rota.post("/register", json={"username": "ada", "password": PASSWORD})
        token = await sign_in(rota)
        assert (await http.get("/hello", headers=bearer(token))).status_code == expected
        assert (await http.get("/hello", headers=bearer(token[:-4] + "AAAA"))).status_code == 401


async def test_only_access_tokens_give_access(own: OwnDatabase, serve: Serve, who: Credentials, tmp_path: Path) -> None:
    """Nothing, noise, a token about the end of a session: 401, though the last is signed by the same key."""
    served = await serve(own.app)
    services = Container.build(make_settings(own.app))
    tokens = EventTokens(services.signing_keys, issuer=services.settings.issuer, audience=services.settings.audience)
    ended = SessionEnd(uuid7(), uuid7(), datetime.now(UTC), EndReason.LOGOUT, 1)
    token = tokens.issue(ended, services.clock.on_host())
    await services.close()
    async with example(served.url, who, tmp_path / "example.log", WHEN_STALE="accept") as http:
        assert (await http.get("/hello")).status_code == 401
        for each in ("x", "a.b.c", token):
            assert (await http.get("/hello", headers=bearer(each))).status_code == 401
