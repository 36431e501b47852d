"""People whose passwords are set in every way there is, and mailers that tell them."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from app.cli.exits import Exit
from app.domain.passwords import Blocklist
from app.security.password_policy import PasswordPolicy
from tests.admin.conftest import Office, office
from tests.cli.test_cli import ROTA, environment
from tests.conftest import SECRET, OwnDatabase
from tests.oauth.conftest import Known, basic, make_known

__all__ = ["Office", "office"]

Rota = Callable[..., Any]


@pytest.fixture(scope="session")
def blocklist() -> Blocklist:
    """The lists that the product has, at the length that it asks for."""
    return PasswordPolicy().load()


@pytest.fixture
def rota(own: OwnDatabase) -> Rota:
    """Run `rota …` on the office's database; its process, or what it prints as JSON."""
    settings = environment(
        ROTA_DATABASE_URL=own.app, ROTA_MAINTENANCE_DATABASE_URL=own.maintenance, ROTA_SECRETS=SECRET
    )

    async def run(*words: str, code: Exit = Exit.OK) -> Any:
        done = await asyncio.to_thread(
            subprocess.run,
            [ROTA, *words],
            env=settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout) if "--json" in words else done

    return run


class Mailer:
    """A program with the scope, as its operator runs it."""

    def __init__(self, http: httpx2.AsyncClient, known: Known) -> None:
        self._http = http
        self.known = known
        self.headers = basic(known.client.client_id, known.secret)

    async def get(self, **query: Any) -> dict[str, Any]:
        answer = await self._http.get("/notifications", params=query, headers=self.headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def acknowledge(self, *ids: str) -> int:
        answer = await self._http.post("/notifications/ack", json={"ids": list(ids)}, headers=self.headers)
        assert answer.status_code == 200, answer.text
        done: int = answer.json()["acknowledged"]
        return done


async def make_mailer(office: Office) -> Mailer:
    return Mailer(office.http, await make_known(office.services, scopes=["notifications"]))
