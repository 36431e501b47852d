"""
Verifying access tokens: how fast, with how many statements, and how soon an end is known everywhere.

    python -m benchmarks.verify [--quick] [--json PATH]

Ratios are to an empty endpoint under the same server in the same run; all of it shares this machine's cores. An end is
made in one of four server processes; the time is from its acknowledgement to the answer with which each of the other
three has refused the access token, asked again and again. At the end, what a thousand followers of the feed cost
refreshes, as `benchmarks.streams` measures it.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
import urllib.parse
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha256
from itertools import cycle
from uuid import UUID

import uvloop
from uuid_utils.compat import uuid7

from app.container import Container
from app.domain.api_clients import ClientScope, NewClient
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.families import Grant
from app.domain.users import Role
from app.security.access_tokens import AccessTokens
from app.security.signing_keys import SigningKeys
from app.security.verified_tokens import VERIFIED_MAXIMUM
from app.settings import Settings
from benchmarks import rig, streams
from benchmarks.refresh import FILL, counting_proxy, off_the_loop

CLIENTS = 16
PROCESSES = 4
STALENESS_MS = 2000
JWT_CHECKS = 2000
REFRESHED = 20_000  # families
ONCE = VERIFIED_MAXIMUM + 2000  # so many tokens that none is remembered until its turn comes again


class Tokens:
    """Access tokens of the families that `FILL` makes, which are a function of their number."""

    def __init__(self) -> None:
        settings = Settings(database_url="postgresql://unused", secrets=rig.SECRET)  # type: ignore[arg-type]
        self._issuer, self._audience = settings.issuer, settings.audience
        self.issuing = self.checking()

    def checking(self) -> AccessTokens:
        """A checker that has not seen any token yet."""
        return AccessTokens(
            SigningKeys([rig.SECRET.encode()]),
            issuer=self._issuer,
            audience=self._audience,
            lifetime=timedelta(seconds=900),
            new_id=uuid7,
        )

    def of(self, n: int) -> str:
        now = datetime.now(UTC)
        grant = Grant(
            now=now,
            user_id=UUID(md5(f"user{n}".encode(), usedforsecurity=False).hexdigest()),
            family_id=UUID(f"019a0000-0000-7000-8000-{n:012x}"),
            generation=0,
            seed=sha256(f"seed{n}".encode()).digest(),
            client_id="first-party",
            scope="",
            role=Role.USER,
            authenticated_at=now,
            amr="pwd",
            acr=None,
            idle_expires_at=now + timedelta(days=7),
            expires_at=now + timedelta(days=30),
        )
        return self.issuing.issue(grant)[0]


def request(method: str, path: str, token: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", f"Authorization: Bearer {token}"]
    lines += [] if method == "GET" else ["Content-Length: 0"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def same(sent: bytes) -> Callable[[bytes | None], bytes]:
    return lambda _: sent


def jwt_check_us(tokens: Tokens) -> dict[str, float]:
    """What checking a token costs the processor: the first time, and when its signature was checked before."""
    checker, now = tokens.checking(), datetime.now(UTC)
    made = [tokens.of(n) for n in range(JWT_CHECKS)]
    times: dict[str, float] = {}
    for name in ("jwt_check_us", "jwt_check_again_us"):
        started = time.perf_counter()
        for token in made:
            checker.verify(token, now)
        times[name] = 1e6 * (time.perf_counter() - started) / len(made)
    return times


def introspecting(url: str) -> tuple[str, str]:
    """An API client that may introspect: its id and secret."""

    async def make() -> tuple[str, str]:
        services = Container.build(Settings(database_url=url, secrets=rig.SECRET))  # type: ignore[arg-type]
        try:
            new = NewClient(name="benchmark", scopes=frozenset({ClientScope.INTROSPECT}))
            made = await services.api_clients.create(new, actor=SYSTEM, client=NO_CLIENT)
            return made.client.client_id, str(made.secret)
        finally:
            await services.close()

    return asyncio.run(make())


def introspection(client: tuple[str, str], token: str) -> bytes:
    body = urllib.parse.urlencode({"token": token}).encode()
    basic = b64encode(":".join(map(urllib.parse.quote_plus, client)).encode()).decode()
    head = (
        f"POST /oauth2/introspect HTTP/1.1\r\nHost: bench\r\nAuthorization: Basic {basic}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextlib.contextmanager
def empty_server() -> Iterator[int]:
    port = rig.free_port()
    words = [sys.executable, "-m", "uvicorn", "benchmarks.empty_app:app", "--port", str(port), "--loop", "uvloop"]
    words += ["--http", "httptools", "--no-access-log", "--log-level", "warning"]
    with rig.server(words, port):
        yield port


class Asker:
    """One kept connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> "Asker":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, sent: bytes) -> int:
        """The status of the answer."""
        self._writer.write(sent)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        )
        await self._reader.readexactly(length)
        return int(head[9:12])

    def close(self) -> None:
        self._writer.close()


async def speed(url: str, tokens: Tokens, families: int, seconds: int, rounds: int) -> dict[str, float]:
    """Forward authentication and introspection against an empty endpoint, 16 clients each with a session of its own."""
    mine = [tokens.of(families - number) for number in range(CLIENTS)]
    asking = await asyncio.to_thread(introspecting, url)
    once = cycle([request("GET", "/authz", tokens.of(families)) for _ in range(ONCE)])
    loads: dict[str, list[Callable[[bytes | None], bytes]]] = {
        "empty": [same(rig.form_request("/empty", {"refresh_token": "x" * 112}))] * CLIENTS,
        "verify": [same(request("GET", "/authz", token)) for token in mine],
        "verify_first": [lambda _: next(once)] * CLIENTS,
        "introspect": [same(introspection(asking, token)) for token in mine],
    }
    runs: dict[str, list[rig.Run]] = {name: [] for name in loads}
    with rig.rota(url, seals=False) as port, empty_server() as empty_port:
        ports = {name: empty_port if name == "empty" else port for name in loads}
        asker = await Asker.to(port)
        if await asker.ask(loads["introspect"][0](None)) == 404:
            del loads["introspect"]
        asker.close()
        for name, load in loads.items():
            await rig.closed_loop(ports[name], 1, load)
        for _ in range(rounds):
            for name, load in loads.items():
                runs[name].append(await rig.closed_loop(ports[name], seconds, load))
    assert not any(run.errors for kept in runs.values() for run in kept), "requests failed"
    figures: dict[str, float] = {}
    for name in loads:
        if name != "empty":
            ratios = [one.rate / base.rate for one, base in zip(runs[name], runs["empty"], strict=True)]
            figures[f"{name}_ratio_to_empty.c{CLIENTS}"] = rig.median(ratios)
        figures[f"{name}_per_s.c{CLIENTS}"] = rig.median([run.rate for run in runs[name]])
        figures[f"{name}_p99_ms.c{CLIENTS}"] = rig.median([run.quantile_ms(0.99) for run in runs[name]])
    return figures


async def count_statements(url: str, tokens: Tokens, families: int) -> dict[str, float]:
    """Statements of a verification, counted on the wire; those that keep the view have a connection of their own."""
    load = [same(request("GET", "/authz", tokens.of(families - number))) for number in range(CLIENTS)]
    async with (
        counting_proxy(url, but=b"rota-ends") as (proxied, counts),
        off_the_loop(rig.rota(proxied, seals=False)) as port,
    ):
        await rig.closed_loop(port, 3, load)  # the jobs of the start pass
        before = counts["statements"]
        run = await rig.closed_loop(port, 2, load)
        assert not run.errors
        return {"statements_per_verify": (counts["statements"] - before) / len(run.latencies)}


async def end_everywhere(url: str, tokens: Tokens, trials: int) -> dict[str, float]:
    """End a session in one process, ask the others until each has refused its token."""
    times: list[float] = []
    with ExitStack() as stack:
        ports = [stack.enter_context(rig.rota(url, seals=number == 0)) for number in range(PROCESSES)]
        askers = [await Asker.to(port) for port in ports]
        await asyncio.sleep(2)  # the views are loaded
        for trial in range(1, trials + 1):
            token = tokens.of(trial)
            asked = request("GET", "/authz", token)
            here, *others = askers[trial % PROCESSES :] + askers[: trial % PROCESSES]
            assert [await asker.ask(asked) for asker in askers] == [200] * PROCESSES
            assert await here.ask(request("POST", "/logout", token)) == 200
            acknowledged = time.perf_counter()
            refused = [_refused(asker, asked) for asker in others]
            assert await here.ask(asked) == 401, "accepted where the session was ended"
            times += [at - acknowledged for at in await asyncio.gather(*refused)]
        for asker in askers:
            asker.close()
    ordered = sorted(1000 * took for took in times)
    return {
        "end_to_refusal_p50_ms": statistics.median(ordered),
        "end_to_refusal_p99_ms": ordered[int(0.99 * (len(ordered) - 1))],
        "end_to_refusal_max_ms": ordered[-1],
        "end_trials": trials,
    }


async def _refused(asker: Asker, asked: bytes) -> float:
    """When the server first answered 401."""
    while await asker.ask(asked) == 200:
        pass
    return time.perf_counter()


@dataclass(frozen=True, slots=True)
class Size:
    """How long and how often each part is measured."""

    seconds: int
    rounds: int
    trials: int
    beside_seconds: int
    beside_rounds: int

    @property
    def families(self) -> int:
        """Sessions of the first part are ended; the followers' part refreshes others."""
        return self.trials + 1000


async def measure(url: str, size: Size) -> dict[str, float]:
    tokens = Tokens()
    figures = jwt_check_us(tokens)
    figures |= await speed(url, tokens, size.families, size.seconds, size.rounds)
    figures |= await count_statements(url, tokens, size.families)
    figures |= await end_everywhere(url, tokens, size.trials)
    return figures


async def beside_streams(url: str, size: Size) -> dict[str, float]:
    """
    What followers cost, with a database in which nothing has ended yet.

    On a machine that is too slow for so many the other figures stand; `benchmarks.streams` by itself fails then.
    """
    try:
        return await streams.measure(url, REFRESHED, size.beside_seconds, size.beside_rounds)
    except (AssertionError, TimeoutError, OSError, ValueError) as broken:
        print(f"no figures beside the streams: {type(broken).__name__} {broken}", file=sys.stderr)
        return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute, 200 ends, one round")
    parser.add_argument("--trials", type=int, help="ends to be followed")
    parser.add_argument("--json", metavar="PATH", help="write the figures as a JSON object")
    options = parser.parse_args()
    size = Size(2, 1, 200, 4, 1) if options.quick else Size(6, 3, 10_000, 15, 5)
    if options.trials:
        size = replace(size, trials=options.trials)
    with rig.database() as url:
        other = rig.another_database(url, "streams")
        rig.psql(url, FILL.format(agent=rig.AGENT, families=size.families), "VACUUM ANALYZE families")
        rig.psql(other, FILL.format(agent=rig.AGENT, families=REFRESHED), "VACUUM ANALYZE families")
        figures = uvloop.run(measure(url, size))
        figures |= uvloop.run(beside_streams(other, size))
    rig.report(figures, options.json)


if __name__ == "__main__":
    main()
