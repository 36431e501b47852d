"""The runbook of docs/operation/secrets.md, followed under load with real server processes."""

import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import jwt
import pytest

from app.domain.api_clients import ClientScope
from app.security.keys import key_id, spell_key_id
from benchmarks.rig import free_port
from tests.conftest import PASSWORD, MakeServices, OwnDatabase
from tests.feed.conftest import Credentials, make_client

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operation" / "secrets.md").read_text()
OLD, NEW = "old-" + secrets.token_urlsafe(36), "new-" + secrets.token_urlsafe(36)
LISTS = [line.format(OLD=OLD, NEW=NEW) for line in ("{OLD}", "{OLD},{NEW}", "{NEW},{OLD}", "{NEW}")]
ISSUER = "https://rota.test"
ACCESS_SECONDS = 10
MAIN = "from app.cli import main; main()"

pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]


def told() -> list[str]:
    """The lists that the page says to set, in its order."""
    found = re.findall(r"export ROTA_SECRETS=([A-Z,]+)", PAGE)
    return [names.replace("OLD", OLD).replace("NEW", NEW) for names in found]


def shown(secret: str) -> str:
    return spell_key_id(key_id(secret.encode()))


@dataclass
class Cluster:
    """Two processes that are replaced one after the other."""

    url: str
    folder: Path
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def environment(self, listed: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
        return {
            **clean,
            "PYTHONPATH": str(ROOT),
            "ROTA_DATABASE_URL": self.url,
            "ROTA_SECRETS": listed,
            "ROTA_ISSUER": ISSUER,
            "ROTA_REGISTRATION": "open",
            "ROTA_DATABASE_POOL_SIZE": "6",
            "ROTA_ACCESS_TOKEN_SECONDS": str(ACCESS_SECONDS),
            "ROTA_REFRESH_GRACE_SECONDS": "5",
            "ROTA_REFRESH_RETRY_SECONDS": "8",
        }

    async def start(self, port: int, listed: str) -> None:
        words = [sys.executable, "-c", MAIN, "serve", "--port", str(port)]
        with (self.folder / f"{port}.log").open("ab") as log:
            self.processes[port] = subprocess.Popen(words, env=self.environment(listed), stderr=log, cwd=self.folder)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5) as http:

            async def is_ready() -> bool:
                assert self.processes[port].poll() is None, (self.folder / f"{port}.log").read_text()
                try:
                    return (await http.get("/readyz")).status_code == 200
                except httpx2.TransportError:
                    return False

            await until(is_ready)

    async def restart_all(self, listed: str) -> None:
        """As the page says: one process at a time, and the next when it is ready."""
        for port in list(self.processes):
            self.processes[port].send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(self.processes[port].wait, 30) in {0, -signal.SIGTERM}
            await self.start(port, listed)

    async def rota(self, listed: str, *words: str) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", MAIN, *words, "--json",
            env=self.environment(listed), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode == 0, out + err
        found: dict[str, Any] = json.loads(out)
        return found

    def kill(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait(20)


async def until(question: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(1200):
        if await question():
            return
        await asyncio.sleep(0.05)
    pytest.fail("waited in vain")


@dataclass
class Load:
    """
    People who sign in, refresh and look. Each answer is also judged by a service that keeps the key set for its hour.

    A request that finds a process gone is sent to the other one, as a proxy would; whatever answers must say yes.
    """

    ports: list[int]
    http: httpx2.AsyncClient
    keys: dict[str, Any] = field(default_factory=dict)
    done: int = 0
    failures: list[str] = field(default_factory=list)
    stopping: bool = False
    work: list[asyncio.Task[Any]] = field(default_factory=list)

    async def begin(self) -> list[dict[str, str]]:
        """Five sessions that are refreshed all the time, somebody who comes and goes; sessions of one who goes away."""
        for name in ("ada", "bea", "cyd"):
            url = f"http://127.0.0.1:{self.ports[0]}/register"
            assert (await self.http.post(url, json={"username": name, "password": PASSWORD})).status_code == 201
        pairs = [await self.spend({"username": "ada", "password": PASSWORD}) for _ in range(5)]
        away = [await self.spend({"username": "bea", "password": PASSWORD}) for _ in range(3)]
        self.work = [asyncio.create_task(self.refresh_for_ever(pair)) for pair in pairs]
        self.work.append(asyncio.create_task(self.come_and_go("cyd")))
        return away

    async def end(self) -> None:
        self.stopping = True
        await asyncio.gather(*self.work)

    async def follow(self, who: Credentials) -> int:
        """An API client asks, by its secret, whether anything has ended."""
        url = f"http://127.0.0.1:{self.ports[0]}/revocations"
        return (await self.http.get(url, headers=who.header)).status_code

    async def fetch_keys(self) -> None:
        """What a service does whose copy of the key set is an hour old."""
        answer = await self.http.get(f"http://127.0.0.1:{self.ports[0]}/.well-known/jwks.json")
        assert answer.headers["cache-control"] == "public, max-age=3600"
        self.keys = {key["kid"]: jwt.PyJWK(key).key for key in answer.json()["keys"]}

    async def send(self, method: str, path: str, **content: Any) -> httpx2.Response | None:
        self.done += 1
        first = self.done % 2
        for port in (self.ports[first], self.ports[1 - first], self.ports[first]):
            try:
                answer = await self.http.request(method, f"http://127.0.0.1:{port}{path}", **content)
            except httpx2.TransportError:
                continue
            if answer.status_code != 200:
                self.failures.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
            return answer
        self.failures.append(f"{method} {path}: nobody answered")
        return None

    async def spend(self, form: dict[str, str]) -> dict[str, str]:
        """Get a pair of tokens; the access token must be good for Rota and for whoever verifies by itself."""
        path = "/refresh" if "refresh_token" in form else "/token"
        answer = await self.send("POST", path, data=form, headers={"Idempotency-Key": secrets.token_urlsafe(24)})
        if answer is None or answer.status_code != 200:
            return form
        pair: dict[str, str] = answer.json()
        await self.send("GET", "/me", headers={"Authorization": f"Bearer {pair['access_token']}"})
        self.verify(pair["access_token"])
        return pair

    def verify(self, token: str) -> None:
        try:
            key = self.keys[jwt.get_unverified_header(token)["kid"]]
            jwt.decode(token, key, algorithms=["ES256"], audience="rota", issuer=ISSUER, leeway=60)
        except (KeyError, jwt.InvalidTokenError) as error:
            self.failures.append(f"a service refused a token: {error!r}")

    async def refresh_for_ever(self, pair: dict[str, str]) -> str:
        while not self.stopping:
            pair = await self.spend({"refresh_token": pair["refresh_token"]})
            await asyncio.sleep(0.1)
        return pair["refresh_token"]

    async def come_and_go(self, username: str) -> None:
        while not self.stopping:
            pair = await self.spend({"username": username, "password": PASSWORD})
            pair = await self.spend({"refresh_token": pair["refresh_token"]})
            await self.send("POST", "/logout", headers={"Authorization": f"Bearer {pair['access_token']}"})
            await asyncio.sleep(0.5)


@asynccontextmanager
async def cluster(url: str, folder: Path) -> AsyncIterator[Cluster]:
    made = Cluster(url, folder)
    try:
        for port in (free_port(), free_port()):
            await made.start(port, OLD)
        yield made
    finally:
        made.kill()


ENDED = "SELECT count(*) FROM families WHERE end_reason IS DISTINCT FROM 'logout' AND ended_at IS NOT NULL"
REFUSED = "SELECT count(*) FROM audit_events WHERE action IN ('refresh.forged', 'refresh.refused')"
NOW = "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"


async def test_nobody_is_signed_out_and_no_request_fails(
    own: OwnDatabase, own_sql: asyncpg.Connection, make_services: MakeServices, tmp_path: Path
) -> None:
    """
    All five steps. People who refresh all the time, who come and go, and who were away for the whole change are served
    throughout; what the page says that `rota keys list` shows is what it shows; afterwards the old secret is worthless.
    """
    assert told() == LISTS[1:]  # the page is what is followed
    appended, fronted, alone = told()
    follower = await make_client(make_services(url=own.app, secrets=OLD), ClientScope.REVOCATIONS)
    async with (
        cluster(own.app, tmp_path) as ours,
        httpx2.AsyncClient(timeout=30, limits=httpx2.Limits(max_keepalive_connections=0)) as http,
    ):
        load = Load(list(ours.processes), http)
        await load.fetch_keys()
        away = await load.begin()

        await ours.restart_all(appended)  # step 1
        found = await ours.rota(appended, "keys", "list")
        assert _states(found) == {shown(OLD): "mints", shown(NEW): "waiting"}
        assert (found["missing"], found["depending"]) == ([], None)

        await load.fetch_keys()  # step 2: an hour has passed for those who keep the key set

        await ours.restart_all(fronted)  # step 3
        noted = str(await own_sql.fetchval(NOW))

        listing = ("keys", "list", "--since", noted)  # step 4
        found = await ours.rota(fronted, *listing)
        assert _states(found) == {shown(NEW): "mints", shown(OLD): "former"}
        assert found["depending"]["sessions"] >= len(away)
        assert found["depending"]["then_wait_seconds"] == ACCESS_SECONDS
        assert _clients(found) == {shown(NEW): 0, shown(OLD): 1}
        came_back = [await load.spend({"refresh_token": pair["refresh_token"]}) for pair in away]
        assert await load.follow(follower) == 200

        async def nobody_depends() -> bool:
            left = await ours.rota(fronted, *listing)
            depending = left["depending"]
            return (depending["sessions"], depending["password_tokens"], _clients(left)[shown(OLD)]) == (0, 0, 0)

        await until(nobody_depends)
        await asyncio.sleep(found["depending"]["then_wait_seconds"])  # as the page says

        await ours.restart_all(alone)  # step 5
        await load.fetch_keys()
        found = await ours.rota(alone, "keys", "list")
        assert (_states(found), found["missing"]) == ({shown(NEW): "mints"}, [])

        for pair in came_back:
            await load.spend({"refresh_token": pair["refresh_token"]})
        await load.end()
        assert load.failures == []
        assert load.done > 100
        assert [await own_sql.fetchval(ENDED), await own_sql.fetchval(REFUSED)] == [0, 0]
        assert await load.follow(follower) == 200

        # What goes with the old one: its tokens are noise, and end nothing.
        former = {"refresh_token": away[0]["refresh_token"]}
        assert (await http.post(f"http://127.0.0.1:{load.ports[0]}/refresh", data=former)).status_code == 401
        assert await own_sql.fetchval(ENDED) == 0


def _states(found: dict[str, Any]) -> dict[str, str]:
    return {each["id"]: each["state"] for each in found["secrets"]}


def _clients(found: dict[str, Any]) -> dict[str, int]:
    return {each["id"]: each["clients"] for each in found["secrets"]}
