"""API clients, people who signed in through them, and a real server for programs that we have not written."""

import base64
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.container import Container
from app.domain.api_clients import ApiClient, ClientGrant, ClientScope, NewClient
from app.domain.events import SYSTEM
from app.domain.users import Role, User
from app.repositories.engine import APP
from app.repositories.logins import make_login
from tests import postgresql
from tests.conftest import PASSWORD, SECRET, WORKER, MovableClock, client_at, make_settings

ROOT = Path(__file__).parents[2]
FORM = "application/x-www-form-urlencoded"


class ElapsingClock(MovableClock):
    """Also the seconds that are counted stand still until a test moves them."""

    def elapsed(self) -> float:
        return self.time.timestamp()


@dataclass(frozen=True)
class Known:
    """A client and its secret, as its operator knows them."""

    client: ApiClient
    secret: str

    @property
    def basic(self) -> dict[str, str]:
        return basic(self.client.client_id, self.secret)

    @property
    def post(self) -> dict[str, str]:
        return {"client_id": self.client.client_id, "client_secret": self.secret}


def basic(client_id: str, secret: str) -> dict[str, str]:
    """RFC 6749 section 2.3.1: each part form-encoded."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def make_known(services: Container, **values: Any) -> Known:
    values.setdefault("name", "a client of the tests")
    for name, kind in (("scopes", ClientScope), ("grants", ClientGrant)):
        if values.get(name) is not None:
            values[name] = frozenset(map(kind, values[name]))
    made = await services.api_clients.create(NewClient(**values), actor=SYSTEM, client=client_at())
    return Known(made.client, made.secret or "")


MakeKnown = Callable[..., Awaitable[Known]]


@pytest.fixture
def clock() -> ElapsingClock:
    return ElapsingClock()


@pytest.fixture
def container(app: FastAPI) -> Container:
    """The services behind `http`."""
    found: Container = app.state.container
    return found


@pytest.fixture
def make_client(container: Container) -> MakeKnown:
    async def make(**values: Any) -> Known:
        return await make_known(container, **values)

    return make


@dataclass(frozen=True)
class Somebody:
    user: User
    username: str


MakeSomebody = Callable[..., Awaitable[Somebody]]


@pytest.fixture
def make_somebody(container: Container) -> MakeSomebody:
    async def make(role: Role = Role.USER) -> Somebody:
        username = f"somebody-{secrets.token_hex(8)}"
        user = await container.users.create(username, PASSWORD, role=role, actor=None, client=client_at())
        return Somebody(user, username)

    return make


@pytest_asyncio.fixture
async def somebody(make_somebody: MakeSomebody) -> Somebody:
    return await make_somebody()


LogIn = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def log_in(http: httpx2.AsyncClient) -> LogIn:
    """At our own route, through no client."""

    async def log_in(person: Somebody) -> dict[str, Any]:
        answer = await http.post("/token", data={"username": person.username, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    return log_in


Vouch = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def vouch(http: httpx2.AsyncClient) -> Vouch:
    """A session that a client opens for a person."""

    async def vouch(known: Known, person: Somebody, **body: Any) -> dict[str, Any]:
        answer = await http.post(
            f"/admin/users/{person.user.id}/sessions", json={"amr": ["mfa"], **body}, headers=known.basic
        )
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    return vouch


# A server process, for libraries that speak HTTP themselves.


@dataclass(frozen=True)
class Served:
    url: str
    services: Container

    async def make_client(self, **values: Any) -> Known:
        return await make_known(self.services, **values)

    async def make_person(self) -> str:
        username = f"person-{secrets.token_hex(8)}"
        await self.services.users.create(username, PASSWORD, role=Role.USER, actor=None, client=client_at())
        return username


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest_asyncio.fixture(scope="session")
async def served_database_url(server_url: str, template_url: str) -> str:
    """A database for the server alone: its jobs would do what other tests do by hand, while they do it."""
    url = await postgresql.make_database(server_url, f"rota_served_{WORKER}", template=f"rota_template_{WORKER}")
    return await make_login(url, "rota_test", role=APP, password="rota_test")


@pytest.fixture(scope="session")
def served_url(served_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`rota serve` with two processes; its issuer is its own address, as metadata demand."""
    port = free_port()
    url, log = f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("served") / "log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
    environment = {**kept, "ROTA_DATABASE_URL": served_database_url, "ROTA_SECRETS": SECRET, "ROTA_ISSUER": url}
    words = [str(Path(sys.executable).with_name("rota")), "serve", "--port", str(port), "--workers", "2"]
    with log.open("wb") as output:
        process = subprocess.Popen(words, env=environment, stdout=output, stderr=output, cwd=ROOT)
        try:
            _wait_for(port, process, log)
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
    assert "Traceback" not in log.read_text()
    for secret in ("rota_cs_", "rota_rt_", PASSWORD):
        assert secret not in log.read_text()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        else:
            return
    pytest.fail(log.read_text())


@pytest_asyncio.fixture
async def served(served_url: str, served_database_url: str) -> AsyncIterator[Served]:
    services = Container.build(make_settings(served_database_url, issuer=served_url))
    yield Served(served_url, services)
    await services.close()
