"""
What the audit trail costs and how fast it answers: sealing, its lag, a backlog, verification, queries.

    python -m benchmarks.audit [--quick] [--json PATH] [--plans PATH] [--only PART]

Sealing is switched off by holding the sealer's own lock in another session. Half of the maximum rate is what the same
run has just measured. Verification reads an exported bundle from the page cache, in one process. Queries go through
the repository, to a server with its default buffers.
"""

import argparse
import asyncio
import contextlib
import functools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import md5
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import uvloop
from pydantic import SecretStr
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.verify import BundleFolder
from app.container import Container
from app.domain.clock import Clock
from app.domain.errors import TookTooLong
from app.domain.event_filters import EventFilter, read_actions
from app.domain.events import Outcome
from app.domain.verification import Verifier
from app.observability.logs import configure_logs
from app.repositories.database import Database
from app.repositories.engine import make_engine
from app.security.notes import NoteSigner, new_key, open_note
from app.settings import Settings
from benchmarks import rig
from benchmarks.refresh import FILL, Tokens

CLIENTS = 16
PARTS = ("verify", "sealing", "queries")
QUERIES, WARM_UP, PAGE = 200, 20, 51
USERS, FAMILIES, ADMINS, DAYS = 100_000, 200_000, 20, 30
LIFE = 30  # events of a session in the bundle

COLUMNS = """(id, occurred_at, action, version, outcome, reason, actor_kind, actor_id, subject_id, family_id,
  family_seq, generation, ip, user_agent, request_id, detail)"""

SEALER = "import os; os.sched_setaffinity(0, {cores}); from app.cli import main; main()"
LOCK = "hashtext('rota job audit.seal')"

# As uuid7() would have made them for event `n` at `at`; PostgreSQL's own random ids take longer than the rest of a row.
TIMED_ID = (
    "(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')"
    " || '7' || overlay(substr(md5('event' || n), 1, 19) placing '{variant}' from 4))::uuid"
)
EVENT_ID, REQUEST_ID = TIMED_ID.format(variant=8), TIMED_ID.format(variant=9)
FAMILY_ID = "('019a0000-0000-7000-8000-' || lpad(to_hex(family), 12, '0'))::uuid"
CREATED = """'{{"amr":["pwd"],"client_id":"first-party","scope":""}}'"""

BACKLOG = f"""
INSERT INTO audit_events {COLUMNS}
SELECT {EVENT_ID}, at, 'session.refreshed', 1, 'success', NULL, 'user', user_id, user_id,
       {FAMILY_ID}, 2, 1,
       '10.0.0.0'::inet + family, '{rig.AGENT}', {REQUEST_ID}, NULL
  FROM (SELECT n, statement_timestamp() - ({{events}} - n) * interval '100 microseconds' AS at,
               1 + n % {{families}} AS family, md5('user' || 1 + n % {{families}})::uuid AS user_id
          FROM generate_series(1, {{events}}) AS n) AS told
"""

LAG = """
SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM b.sealed_at - e.occurred_at)::float8) AS lag,
       count(*) AS events
  FROM audit_batches AS b
 CROSS JOIN LATERAL (
   SELECT occurred_at FROM audit_events
    WHERE (epoch, xact_id, seq) > (b.from_epoch, b.from_xact, b.from_seq)
      AND (epoch, xact_id, seq) <= (b.to_epoch, b.to_xact, b.to_seq)) AS e
 WHERE b.last_at >= $1 AND e.occurred_at BETWEEN $1 AND $2
"""

# Sessions that begin one after the other and each go on in step; every second one ends with a logout.
LIVES = f"""
INSERT INTO audit_events {COLUMNS}
SELECT {EVENT_ID}, at, action, 1, 'success', CASE action WHEN 'session.ended' THEN 'logout' END,
       'user', user_id, user_id, {FAMILY_ID}, k + 1,
       CASE action WHEN 'session.ended' THEN k - 1 ELSE k END, '10.0.0.0'::inet + family, '{rig.AGENT}',
       {REQUEST_ID},
       CASE k WHEN 0 THEN {CREATED} END
  FROM (SELECT family, k, family * {LIFE} + k AS n, md5('user' || family % (1 + {{sessions}} / 2))::uuid AS user_id,
               statement_timestamp() - interval '50 minutes' + interval '15 minutes' * family / {{sessions}}
               + interval '1 minute' * k AS at,
               CASE WHEN k = 0 THEN 'session.created' WHEN k = {LIFE - 1} AND family % 2 = 0 THEN 'session.ended'
                    ELSE 'session.refreshed' END AS action
          FROM generate_series(1, {{sessions}}) AS family, generate_series(0, {LIFE - 1}) AS k) AS told
 ORDER BY at
"""

# Some families are far busier than others, as people are. A user's families share an address of 10.0.0.0/12.
BUSY = f"""
INSERT INTO audit_events {COLUMNS}
SELECT {EVENT_ID}, at, action, 1,
       CASE WHEN action IN ('login.failed', 'refresh.reused') THEN 'failure' ELSE 'success' END,
       CASE action WHEN 'login.failed' THEN 'wrong_password' WHEN 'session.ended' THEN 'logout'
                   WHEN 'refresh.reused' THEN 'reuse' END,
       CASE WHEN by_admin THEN 'admin' WHEN action = 'login.failed' THEN 'anonymous' ELSE 'user' END,
       CASE WHEN by_admin THEN md5('user' || n % {ADMINS})::uuid WHEN action <> 'login.failed' THEN user_id END,
       CASE action WHEN 'audit.queried' THEN '00000000-0000-0000-0000-000000000000' ELSE user_id END,
       CASE WHEN in_life THEN {FAMILY_ID} END,
       CASE WHEN in_life THEN 1 + n / {FAMILIES} END, CASE WHEN in_life THEN n / {FAMILIES} END,
       '10.0.0.0'::inet + family % {USERS} * 2654435761 % 1048576, '{rig.AGENT}', {REQUEST_ID},
       CASE action WHEN 'session.created' THEN {CREATED} END
  FROM (SELECT *, action IN ('audit.queried', 'user.enabled', 'user.disabled') AS by_admin,
               action ~ '^(session|refresh)' AS in_life, md5('user' || family % {USERS})::uuid AS user_id
          FROM (SELECT n, timestamptz '{{start}}' + n * interval '{{gap}} seconds' AS at,
                       1 + floor({FAMILIES} * random() ^ 2)::bigint AS family,
                       CASE WHEN lot < 0.97 THEN 'session.refreshed' WHEN lot < 0.985 THEN 'session.created'
                            WHEN lot < 0.993 THEN 'session.ended' WHEN lot < 0.998 THEN 'login.failed'
                            WHEN lot < 0.9985 THEN 'audit.queried' WHEN lot < 0.9990 THEN 'user.enabled'
                            WHEN lot < 0.9995 THEN 'refresh.reused' ELSE 'user.disabled' END AS action
                  FROM (SELECT n, random() AS lot FROM generate_series({{first}}, {{last}}) AS n) AS lots) AS drawn
       ) AS told
"""

# As they stand in the schema; the primary key first.
INDEXES = """
SELECT 'ALTER TABLE audit_events ADD CONSTRAINT pk_audit_events ' || pg_get_constraintdef(oid)
  FROM pg_constraint WHERE conrelid = 'audit_events'::regclass AND contype = 'p'
 UNION ALL
(SELECT replace(indexdef, ' ON ONLY ', ' ON ') FROM pg_indexes
  WHERE tablename = 'audit_events' AND indexname <> 'pk_audit_events' ORDER BY indexname)
"""

REQUEST_IDS = f"""
SELECT found.request_id
  FROM (SELECT timestamptz '{{start}}' + {DAYS - 1} * random() * interval '1 day' AS at
          FROM generate_series(1, {QUERIES})) AS drawn
 CROSS JOIN LATERAL (
   SELECT request_id FROM audit_events WHERE occurred_at >= drawn.at ORDER BY occurred_at LIMIT 1) AS found
"""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    families: int
    seconds: int
    rounds: int
    lag_seconds: int
    backlog: int
    sessions: int
    events: int


FULL = Extent(100_000, 5, 9, 24, 1_000_000, 10_000, 20_000_000)
QUICK = Extent(30_000, 2, 2, 6, 50_000, 1000, 300_000)


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


# --- sealing ---


@dataclass(frozen=True, slots=True)
class Bench:
    """A server under load, and a session that sees how far the sealing has come."""

    db: asyncpg.Connection
    port: int
    tokens: Tokens

    async def load(self, seconds: float, rate: float | None = None) -> float:
        """Refreshes a second."""
        clients = [self.tokens.client(i, CLIENTS) for i in range(CLIENTS)]
        run = await rig.closed_loop(self.port, seconds, clients, rate=rate)
        assert run.errors == 0, f"{run.errors} requests failed"
        return run.rate

    @contextlib.asynccontextmanager
    async def loaded(self, rate: float) -> AsyncIterator[None]:
        """Load at that rate while the body runs."""
        done = asyncio.Event()

        async def go_on() -> None:
            while not done.is_set():
                await self.load(1, rate)

        async with asyncio.TaskGroup() as group:
            group.create_task(go_on())
            yield
            done.set()

    @contextlib.asynccontextmanager
    async def unsealed(self) -> AsyncIterator[None]:
        """While the body runs, sealers find that another one is at work."""
        await self.db.execute(f"SELECT pg_advisory_lock({LOCK})")
        try:
            yield
        finally:
            await self.db.execute(f"SELECT pg_advisory_unlock({LOCK})")

    async def count(self) -> int:
        counted: int = await self.db.fetchval("SELECT count(*) FROM audit_events")
        return counted

    async def size(self) -> int:
        size: int = await self.db.fetchval("SELECT coalesce(max(tree_size), 0) FROM audit_logs")
        return size

    async def sealed(self, size: int | None = None) -> None:
        """Wait until all that is here now is sealed, or so much."""
        wanted = await self.count() if size is None else size
        async with asyncio.timeout(600):
            while await self.size() < wanted:  # noqa: ASYNC110 - another process's work
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def bench(url: str, port: int, tokens: Tokens) -> AsyncIterator[Bench]:
    db = await asyncpg.connect(url)
    try:
        made = Bench(db, port, tokens)
        await made.load(2)  # warm
        yield made
    finally:
        await db.close()


async def sealing_cost(made: Bench, extent: Extent) -> float:
    """The share of the rate that sealing takes: the median of pairs, of which each second one begins with it."""
    shares = []
    for number in range(extent.rounds):
        rates = {}
        for sealing in (number % 2 == 1, number % 2 == 0):
            await made.sealed()
            async with contextlib.nullcontext() if sealing else made.unsealed():
                rates[sealing] = await made.load(extent.seconds)
                left = await made.count() - await made.size()
            if sealing:
                say(f"  sealing was {left} events behind at the end")
        shares.append(1 - rates[True] / rates[False])
        say(f"  {rates[False]:.0f} refreshes/s without sealing, {rates[True]:.0f} with it")
    return rig.median(shares)


async def seal_lag(made: Bench, seconds: float, rate: float) -> float:
    await made.sealed()
    async with made.loaded(rate):
        await asyncio.sleep(1)
        start = await made.db.fetchval("SELECT clock_timestamp()")
        await asyncio.sleep(seconds)
        end = await made.db.fetchval("SELECT clock_timestamp()")
    await made.sealed()
    row = await made.db.fetchrow(LAG, start, end)
    assert row is not None
    say(f"  {row['events']} events at {rate:.0f}/s")
    return float(row["lag"])


async def drain(made: Bench, extent: Extent, rate: float) -> float:
    """Seconds for a backlog, under load, by the sealer that had been kept from it."""
    async with made.unsealed():
        await made.db.execute(BACKLOG.format(events=extent.backlog, families=extent.families))
        size = await made.count()
    started = time.perf_counter()
    async with made.loaded(rate):
        await made.sealed(size)
        return time.perf_counter() - started


async def measure_beside(url: str, tokens: Tokens, extent: Extent, signing: dict[str, str]) -> dict[str, float]:
    """With the sealer inside `rota serve`, where it competes with everything."""
    with rig.rota(url, seals=True, **signing) as port:
        async with bench(url, port, tokens) as made:
            figures = {"sealing_cost.shared_core": await sealing_cost(made, extent)}
            await made.sealed()
            maximum = await made.load(extent.seconds)
            figures["seal_lag_p99_s"] = await seal_lag(made, extent.lag_seconds, maximum / 2)
            seconds = await drain(made, extent, maximum / 2)
    scale = 1_000_000 // extent.backlog
    if scale > 1:
        say(f"  {extent.backlog:,} events in {seconds:.1f} s, reported times {scale}")
    return {**figures, "drain_1m_s.inside_serve": seconds * scale}


async def measure_apart(url: str, tokens: Tokens, extent: Extent, signing: dict[str, str]) -> dict[str, float]:
    """With the sealer in a process and on a core of its own; everything else shares the other cores."""
    if not hasattr(os, "sched_setaffinity") or len(cores := sorted(os.sched_getaffinity(0))) < 2:
        say("  there is no second core to pin the sealer to: not measured")
        return {}
    settings = {"ROTA_DATABASE_URL": url, "ROTA_SECRETS": rig.SECRET, **signing}
    with pinned(url, set(cores[:-1])), rig.rota(url, seals=False, **signing) as port, sealer({cores[-1]}, settings):
        async with bench(url, port, tokens) as made:
            figures = {"sealing_cost.own_core": await sealing_cost(made, extent)}
    with rig.rota(url, seals=False, **signing) as port, sealer(set(cores), settings):
        async with bench(url, port, tokens) as made:
            await made.sealed()
            maximum = await made.load(extent.seconds)
            seconds = await drain(made, extent, maximum / 2)
    return {**figures, "drain_1m_s": seconds * (1_000_000 // extent.backlog)}


@contextlib.contextmanager
def pinned(url: str, cores: set[int]) -> Iterator[None]:
    """Keep PostgreSQL, this process and those it starts on some cores."""
    before = os.sched_getaffinity(0)
    (data,) = rig.psql(url, "SHOW data_directory")
    postmaster = Path(data, "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0]

    def pin(wanted: set[int]) -> None:
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text(encoding="ascii").split()
        for pid in (0, int(postmaster), *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(pid, wanted)

    pin(cores)
    try:
        yield
    finally:
        pin(before)


@contextlib.contextmanager
def sealer(cores: set[int], settings: dict[str, str]) -> Iterator[None]:
    """`rota audit seal --watch`, on a core of its own."""
    words = [sys.executable, "-c", SEALER.format(cores=cores), "audit", "seal", "--watch"]
    process = subprocess.Popen(words, env={**os.environ, **settings}, stderr=subprocess.DEVNULL)
    try:
        yield
        assert process.poll() is None, "the sealer has ended"
    finally:
        process.terminate()
        process.wait(20)


def measure_sealing(url: str, extent: Extent, sink: Path) -> dict[str, float]:
    sink.mkdir()
    signing = {"ROTA_AUDIT_SIGNING_KEY": new_key(), "ROTA_AUDIT_SINK": str(sink)}
    rig.psql(url, FILL.format(agent=rig.AGENT, families=extent.families), "VACUUM ANALYZE families")
    tokens = Tokens(extent.families)
    say("sealing on a core of its own")
    apart = uvloop.run(measure_apart(url, tokens, extent, signing))
    say("sealing inside rota serve")
    return {**apart, **uvloop.run(measure_beside(url, tokens, extent, signing))}


# --- verification ---


async def export(settings: Settings, target: Path) -> str:
    """Seal, sign batch by batch, and export all; the log's name."""
    services = Container.build(settings)
    try:
        assert services.publishing is not None
        more = True
        while more:
            more = bool(await services.sealing.seal())
            await services.publishing.publish()
        span = await services.exports.span(None, None)
        await services.exports.write_bundle(
            target, span, since=None, until=None, personal=True, progress=lambda _done, _total: None
        )
        return span.head.origin
    finally:
        await services.close()


def measure_verification(url: str, sessions: int, folder: Path) -> dict[str, float]:
    say(f"verifying {sessions * LIFE:,} events")
    folder.mkdir()
    separate = rig.another_database(url, "verified")
    rig.psql(separate, LIVES.format(sessions=sessions), "VACUUM ANALYZE audit_events")
    key = new_key()
    settings = Settings(
        database_url=SecretStr(separate),
        secrets=SecretStr(rig.SECRET),
        audit_signing_key=SecretStr(key),
        audit_sink=str(folder),
    )
    origin = uvloop.run(export(settings, folder / "bundle"))
    trusted = [NoteSigner(key).key(origin)]
    verifier = Verifier(BundleFolder(folder / "bundle"), functools.partial(open_note, keys=trusted))
    started = time.perf_counter()
    report = verifier.run()
    seconds = time.perf_counter() - started
    assert report.exit_code == 0, report.findings[:5]
    assert (report.entries, report.sessions, report.erased) == (sessions * LIFE, sessions, 0), report
    return {"verify_events_per_s": report.entries / seconds}


# --- queries ---


class Draw:
    """Random values to ask for, as busy as they are in the trail."""

    def __init__(self, start: datetime, request_ids: list[UUID]) -> None:
        self._lots = random.Random(1)
        self._start = start
        self._request_ids = request_ids

    def filters(self) -> dict[str, Callable[[], EventFilter]]:
        rare = ("user.disabled", "refresh.reused", "audit.queried")
        return {
            "action": lambda: EventFilter(actions=read_actions([self._lots.choice(rare)])),
            "action_prefix": lambda: EventFilter(actions=read_actions(["session.*"])),
            "outcome": lambda: EventFilter(outcome=Outcome.FAILURE),
            "actor": lambda: EventFilter(actor_id=_user(self._lots.randrange(ADMINS))),
            "subject": lambda: EventFilter(subject_id=_user(self._family())),
            "session": lambda: EventFilter(family_id=UUID(f"019a0000-0000-7000-8000-{self._family():012x}")),
            "ip": lambda: EventFilter(network=ip_network(self._address())),
            "cidr": lambda: EventFilter(network=ip_network(f"{self._address()}/24", strict=False)),
            "request_id": lambda: EventFilter(request_id=self._lots.choice(self._request_ids)),
            "time": lambda: self._during(timedelta(hours=1)),
            "none": EventFilter,
            "subject_time": lambda: self._during(timedelta(days=1), subject_id=_user(self._family())),
            "ip_time": lambda: self._during(timedelta(days=1), network=ip_network(self._address())),
        }

    def _family(self) -> int:
        return 1 + int(FAMILIES * self._lots.random() ** 2)

    def _address(self) -> str:
        return str(ip_address("10.0.0.0") + self._family() % USERS * 2654435761 % 1048576)

    def _during(self, length: timedelta, **others: Any) -> EventFilter:
        since = self._start + self._lots.random() * (timedelta(days=DAYS) - length)
        return EventFilter(since=since, until=since + length, **others)


def _user(number: int) -> UUID:
    return UUID(md5(f"user{number % USERS}".encode(), usedforsecurity=False).hexdigest())


class Asked:
    """Questions through the repository; what the slowest one sent is kept."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._database = Database(engine, Clock(), hot_connections=1)
        self._sent: tuple[str, Any] = ("", ())
        event.listen(engine.sync_engine, "before_cursor_execute", self._remember)

    def _remember(self, _db: Any, _cursor: Any, statement: str, values: Any, _context: Any, _many: bool) -> None:  # noqa: FBT001 - SQLAlchemy's signature
        self._sent = statement, values

    async def ask(self, draw: Callable[[], EventFilter]) -> tuple[rig.Run, tuple[str, Any]]:
        """The run without its warm-up, and the slowest statement with its values."""
        run = rig.Run()
        slowest = self._sent
        for number in range(WARM_UP + QUERIES):
            wanted, started = draw(), time.perf_counter()
            with contextlib.suppress(TookTooLong):
                async with self._database.begin() as db:
                    await db.trail.search(wanted, newest_first=True, after=None, limit=PAGE)
            if number >= WARM_UP:
                run.latencies.append(time.perf_counter() - started)
                slowest = self._sent if run.latencies[-1] == max(run.latencies) else slowest
        return run, slowest

    async def explain(self, statement: str, values: Any, *, again: bool) -> str:
        """Its plan; as it went, if it may be run again."""
        words = "EXPLAIN (ANALYZE, BUFFERS)" if again else "EXPLAIN"
        async with self._engine.connect() as db:
            rows = await db.exec_driver_sql(f"{words} {statement}", values)
            return "\n".join(rows.scalars())


async def ask_all(url: str, draw: Draw, plans: Path | None) -> dict[str, float]:
    engine = make_engine(url, pool_size=1)
    asked, figures, found = Asked(engine), {}, []
    for name, filters in draw.filters().items():
        run, slowest = await asked.ask(filters)
        figures[f"query_p95_ms.{name}"] = run.quantile_ms(0.95)
        shown = ", ".join(f"p{share:.0%} {run.quantile_ms(share):.1f} ms".replace("%", "") for share in (0.5, 0.95, 1))
        say(f"  {name}: {shown}")
        if plans:
            plan = await asked.explain(*slowest, again=run.quantile_ms(1) < 2000)
            found.append(f"-- {name}: {shown}; the slowest, once more:\n{slowest[0]}\n\n{plan}\n")
    await engine.dispose()
    if plans:
        await asyncio.to_thread(plans.write_text, "\n\n".join(found), "utf-8")
    return figures


def fill_trail(url: str, events: int, start: datetime) -> None:
    """In order of time, or nearly: two sessions insert half a day each. Indexes built afterwards take half the time."""
    families = FILL.format(agent=rig.AGENT, families=FAMILIES).replace("'user' || n", f"'user' || n % {USERS}")
    key, *indexes = rig.psql(url, INDEXES)
    names = [definition.split()[2] for definition in indexes]
    rig.psql(
        url, families, f"DROP INDEX {', '.join(names)}", "ALTER TABLE audit_events DROP CONSTRAINT pk_audit_events"
    )
    gap = DAYS * 86_400 / events
    chunk = events // (2 * DAYS)

    def insert(first: int) -> None:
        filled = BUSY.format(start=start.isoformat(), gap=f"{gap:.6f}", first=first, last=first + chunk - 1)
        rig.psql(url, "SET synchronous_commit = off", filled)

    def build(definition: str) -> None:
        rig.psql(url, "SET maintenance_work_mem = '512MB'", definition)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(insert, range(0, events, chunk)))
        say(f"  inserted; building {len(indexes) + 1} indexes")
        build(key)
        list(pool.map(build, indexes))
    rig.psql(url, "VACUUM ANALYZE audit_events", "VACUUM ANALYZE families")


def measure_queries(url: str, events: int, plans: Path | None) -> dict[str, float]:
    say(f"filling {events:,} events")
    separate = rig.another_database(url, "asked")
    start = datetime.now(UTC)
    began = time.perf_counter()
    fill_trail(separate, events, start)
    say(f"  in {time.perf_counter() - began:.0f} s; asking")
    request_ids = [UUID(line) for line in rig.psql(separate, REQUEST_IDS.format(start=start.isoformat()))]
    return uvloop.run(ask_all(separate, Draw(start, request_ids), plans))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under two minutes, far fewer events")
    parser.add_argument("--json", metavar="PATH", help="write the figures as a JSON object")
    parser.add_argument("--plans", metavar="PATH", type=Path, help="write the plan of each filter's slowest query")
    parser.add_argument("--only", choices=PARTS, help="measure only this part")
    options = parser.parse_args()
    extent = QUICK if options.quick else FULL
    parts = (options.only,) if options.only else PARTS
    configure_logs("console")
    figures: dict[str, float] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="rota-audit-") as folder, rig.database() as url:
            if "verify" in parts:
                figures |= measure_verification(url, extent.sessions, Path(folder, "verified"))
            if "sealing" in parts:
                figures |= measure_sealing(url, extent, Path(folder, "sealing"))
            if "queries" in parts:
                figures |= measure_queries(url, extent.events, options.plans)
    finally:
        rig.report(figures, options.json)  # what a run that was broken off has found


if __name__ == "__main__":
    main()
