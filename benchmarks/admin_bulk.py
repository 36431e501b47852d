"""
Ending a million sessions beside refreshes, and refreshes on ten million sessions.

    python -m benchmarks.admin_bulk [--rows N] [--quick] [--sealing] [--json PATH]

One server process has the refreshes and the job of the bulk end; the load comes from this process, and all of it
shares the machine's cores with PostgreSQL. The load refreshes sessions of the first-party client that the bulk end
leaves alone. Sealing is left out, as in `benchmarks.refresh`: what a backlog costs is in `benchmarks.audit`;
`--sealing` leaves it in.
A load asks for the live generation of its sessions when it begins, so it never presents what a former one has spent.
"""

import argparse
import asyncio
import random
import re
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import UUID

import asyncpg
import uvloop

from app.container import Container
from app.domain import refresh_token
from app.domain.events import NO_CLIENT
from app.domain.families import FIRST_PARTY_CLIENT
from app.domain.revocations import Order, Revocation
from app.domain.session_filters import SessionFilter
from app.observability.logs import configure_logs
from app.security.keys import Keyring
from app.settings import Settings
from benchmarks import rig
from benchmarks.admin_data import DataSet, build

CLIENTS = 16
SMALL = 300_000
TO_END = 0.875  # of all sessions those that began before this part: a tenth of them is active
FOR_LOAD = 0.9  # and those of the load began after this one
LOAD_FAMILIES = 200_000

FOR_THE_LOAD = """
SELECT user_id, id, generation FROM families
 WHERE id > $1 AND client_id = $2 AND ended_at IS NULL AND idle_expires_at > now() + interval '2 hours'
   AND expires_at > now() + interval '2 hours'
 ORDER BY md5(id::text) LIMIT $3
"""
LIVE = "SELECT f.user_id, f.id, f.generation FROM families AS f JOIN unnest($1::uuid[]) AS given(id) ON f.id = given.id"


@dataclass(slots=True)
class Load:
    """Sessions of a data set to refresh, each with its live generation, as far as this load has come."""

    url: str
    data: DataSet
    families: list[tuple[UUID, UUID]] = field(default_factory=list)
    errors: int = 0
    _live: dict[UUID, str | int] = field(default_factory=dict)
    _keys: refresh_token.TokenKeys = field(default_factory=lambda: Keyring([rig.SECRET.encode()]).minting)

    async def prepare(self) -> None:
        """Begin anew: what the database has is where each session stands."""
        db = await asyncpg.connect(self.url)
        try:
            if not self.families:
                first = self.data.family_id(int(self.data.rows * FOR_LOAD))
                rows = await db.fetch(FOR_THE_LOAD, first, FIRST_PARTY_CLIENT, LOAD_FAMILIES)
                self.families = [(row["user_id"], row["id"]) for row in rows]
            else:
                rows = await db.fetch(LIVE, [family for _, family in self.families])
            self._live = {row["id"]: row["generation"] for row in rows}
        finally:
            await db.close()

    async def run(self, port: int, seconds: float, *, rate: float | None = None) -> rig.Run:
        """One closed loop; what it had to be refused is counted."""
        await self.prepare()
        clients = [self._client(number) for number in range(CLIENTS)]
        run = await rig.closed_loop(port, seconds, clients, rate=rate)
        self.errors += run.errors
        if run.errors:
            print(f"{run.errors} refused, the first with {run.first_error}", file=sys.stderr, flush=True)
        return run

    def _client(self, index: int) -> Callable[[bytes | None], bytes]:
        mine = random.Random(index)
        last: UUID | None = None

        def next_request(answer: bytes | None) -> bytes:
            nonlocal last
            found = re.search(rb'"refresh_token":"([^"]+)"', answer) if answer is not None else None
            if last is not None and found:
                self._live[last] = found.group(1).decode()
            number = mine.randrange((len(self.families) - index) // CLIENTS) * CLIENTS + index
            user, last = self.families[number]
            return rig.form_request("/refresh", {"refresh_token": self._token(user, last)})

        return next_request

    def _token(self, user: UUID, family: UUID) -> str:
        live = self._live[family]
        if isinstance(live, str):
            return live
        number = family.int & (1 << 60) - 1
        seed = sha256(f"seed{number}".encode()).digest()
        return refresh_token.build(self._keys, user_id=user, family_id=family, generation=live, seed=seed)


@dataclass(slots=True)
class Ended:
    """One bulk end: how long it took, and what refreshes saw of it."""

    revocation: Revocation
    seconds: float
    latencies: list[float]

    @property
    def p99_ms(self) -> float:
        return rig.Run(1, self.latencies).quantile_ms(0.99)


async def compare(big: Load, small: Load, ports: tuple[int, int], seconds: float, rounds: int) -> dict[str, float]:
    """Refreshes a second, turn by turn."""
    rates: dict[str, list[float]] = {"big": [], "small": []}
    for load, port in zip((big, small), ports, strict=True):
        await load.run(port, seconds)  # warm
    rig.psql(big.url, "SELECT pg_stat_reset()")
    for _ in range(rounds):
        for name, load, port in zip(rates, (big, small), ports, strict=True):
            rates[name].append((await load.run(port, seconds)).rate)
    await asyncio.sleep(1)  # the server's counters come late
    hot = "SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'families'"
    same_page, every = map(int, rig.psql(big.url, hot)[0].split("|"))
    return {
        "refresh_ratio_big_small": rig.median(rates["big"]) / rig.median(rates["small"]),
        "refreshes_per_s.big": rig.median(rates["big"]),
        "refreshes_per_s.small": rig.median(rates["small"]),
        "hot_update_ratio.big": same_page / max(every, 1),
    }


async def end_beside(load: Load, port: int, rate: float, seconds: float, services: Container) -> Ended:
    """Order a bulk end, which the server does, and refresh until it is done."""
    order = Order(SessionFilter(created_to=load.data.created_at(int(load.data.rows * TO_END))))
    seen = await services.revocations.preview(order, caller=None, client=NO_CLIENT)
    await load.prepare()
    started = time.perf_counter()
    ordered = await services.revocations.start_seen(order, seen, why="benchmark", client=NO_CLIENT)

    async def watch() -> float:
        found = ordered
        while found.is_open:
            await asyncio.sleep(0.2)
            found = await services.revocations.follow(ordered.id)
        return time.perf_counter() - started

    watching = asyncio.create_task(watch())
    latencies: list[float] = []
    while not watching.done():
        latencies += (await load.run(port, seconds, rate=rate)).latencies
    return Ended(await services.revocations.follow(ordered.id), await watching, latencies)


async def measure(
    big: str, data: DataSet, small: str, small_data: DataSet, *, seconds: float, rounds: int, seals: bool = False
) -> dict[str, float]:
    """All figures of this part; both databases are filled."""
    services = Container.build(Settings(database_url=big, secrets=rig.SECRET))  # type: ignore[arg-type]
    load, small_load = Load(big, data), Load(small, small_data)
    with ExitStack() as servers:
        ports = [await asyncio.to_thread(servers.enter_context, rig.rota(url, seals=seals)) for url in (big, small)]
        compared = await compare(load, small_load, (ports[0], ports[1]), seconds, rounds)
        rate = compared["refreshes_per_s.big"] / 2
        alone = [(await load.run(ports[0], seconds, rate=rate)).quantile_ms(0.99) for _ in range(rounds)]
        ended = await end_beside(load, ports[0], rate, seconds, services)
        await asyncio.to_thread(servers.close)
    await services.close()
    return {
        **compared,
        "bulk_end_1m_s": ended.seconds * 1_000_000 / max(ended.revocation.ended, 1),
        "bulk_end_sessions": float(ended.revocation.ended),
        "refresh_p99_factor_beside_bulk": ended.p99_ms / rig.median(alone),
        "refresh_p99_ms.alone": rig.median(alone),
        "refresh_p99_ms.beside_bulk": ended.p99_ms,
        "refresh_errors": float(load.errors + small_load.errors),
    }


def figures(big: str, data: DataSet, *, quick: bool = False, seals: bool = False) -> dict[str, float]:
    """
    All figures of this part, for a run that has its big data set already; the small one is made here.

    Ends a tenth of the sessions: what needs them active comes before.
    """
    small = rig.another_database(big, "small_for_bulk")
    small_data = build(small, min(SMALL, data.rows // 5 if quick else data.rows))
    seconds, rounds = (2, 1) if quick else (8, 3)
    return uvloop.run(measure(big, data, small, small_data, seconds=seconds, rounds=rounds, seals=seals))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, metavar="N", help="sessions of the big data set")
    parser.add_argument("--quick", action="store_true", help="200,000 sessions, one short round")
    parser.add_argument("--sealing", action="store_true", help="the server also seals the trail")
    parser.add_argument("--json", metavar="PATH", help="write the figures as a JSON object")
    options = parser.parse_args()
    rows = min(options.rows, 200_000) if options.quick else options.rows
    configure_logs("json")

    def say(words: str) -> None:
        print(words, file=sys.stderr, flush=True)

    with rig.database() as big:
        measured = figures(big, build(big, rows, say), quick=options.quick, seals=options.sealing)
    rig.report(measured, options.json)


if __name__ == "__main__":
    main()
