"""An operator with a token, and servers of several workers."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest_asyncio
from fastapi import FastAPI

from app.main import create_app
from tests.cli.test_cli import free_port
from tests.conftest import AGENT, SECRET, MovableClock, make_settings

ROOT = Path(__file__).parents[2]
ROTA = str(Path(sys.executable).parent / "rota")
OPERATOR = "operator-token-operator-token-0123456789"
AS_OPERATOR = {"Authorization": f"Bearer {OPERATOR}"}


@pytest_asyncio.fixture
async def operated(database_url: str, clock: MovableClock) -> AsyncIterator[FastAPI]:
    """An application with an operator."""
    application = create_app(make_settings(database_url, operator_token=OPERATOR), clock)
    yield application
    await application.state.container.close()


@pytest_asyncio.fixture
async def asked(operated: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(operated, client=("203.0.113.7", 4711))
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota", headers={"User-Agent": AGENT}) as client:
        yield client


@dataclass
class Served:
    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


Serve = Callable[..., Awaitable[Served]]


@pytest_asyncio.fixture
async def serve(tmp_path: Path, database_url: str) -> AsyncIterator[Serve]:
    """Start servers; they are stopped at the end of the test."""
    started: list[Served] = []

    async def start(workers: int = 1, **settings: str) -> Served:
        port = free_port()
        log = tmp_path / f"log-{len(started)}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ROTA_", "PROMETHEUS_"))}
        own = {"ROTA_DATABASE_URL": database_url, "ROTA_SECRETS": SECRET, "ROTA_OPERATOR_TOKEN": OPERATOR}
        own |= {"PYTHONPATH": str(ROOT), "ROTA_REGISTRATION": "open", "ROTA_DATABASE_POOL_SIZE": "4"}
        words = [ROTA, "serve", "--port", str(port), "--workers", str(workers)]
        with log.open("wb") as output:
            process = subprocess.Popen(words, env={**clean, **own, **settings}, stdout=output, stderr=output, cwd=ROOT)
        served = Served(process, f"http://127.0.0.1:{port}", log)
        started.append(served)
        async with httpx2.AsyncClient(base_url=served.url) as http:
            for _ in range(600):
                assert process.poll() is None, log.read_text()
                try:
                    if (await http.get("/readyz")).status_code == 200:
                        return served
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.1)
        raise AssertionError(log.read_text())

    yield start
    for served in started:
        if served.process.poll() is None:
            served.stop()
