"""
Refreshes a second: closed loop, one server process, against an empty form endpoint and pgbench in the same run.

    python -m benchmarks.refresh [--quick] [--json PATH]

The load comes from a process of its own. All of it shares this machine's cores, so the ratios count, not the rates.
Sealing is left out here, so that statements and WAL are a refresh's own; what it costs is in `benchmarks.audit`.
"""

import argparse
import asyncio
import contextlib
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from hashlib import md5, sha256
from uuid import UUID

import uvloop

from app.domain import refresh_token
from app.domain.families import FIRST_PARTY_CLIENT
from app.repositories.rotations import ROTATE
from app.security.keys import Keyring
from benchmarks import rig

CLIENTS = (1, 16, 64)

# Family n is a function of n, so that the load can make its first token without asking.
FILL = """
INSERT INTO families (user_id, id, seed, generation, event_seq, client_id, scope, role, authenticated_at, amr,
                      created_at, idle_expires_at, expires_at, created_ip, last_ip, user_agent)
SELECT md5('user' || n)::uuid, ('019a0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
       sha256(('seed' || n)::bytea), 0, 1, 'first-party', '', 'user', now(), 'pwd', now(), now() + interval '7 days',
       now() + interval '30 days', '127.0.0.1', '127.0.0.1', '{agent}'
  FROM generate_series(1, {families}) AS n
"""


class Tokens:
    """The live token of each family, as far as this run has come."""

    def __init__(self, families: int) -> None:
        self._families = families
        self._keys = Keyring([rig.SECRET.encode()]).minting
        self._live: dict[int, str] = {}

    def client(self, index: int, of: int) -> Callable[[bytes | None], bytes]:
        """A client that refreshes families of its own in random order."""
        mine = random.Random(index)
        last = 0

        def next_request(answer: bytes | None) -> bytes:
            nonlocal last
            if answer is not None and (found := re.search(rb'"refresh_token":"([^"]+)"', answer)):
                self._live[last] = found.group(1).decode()
            last = mine.randrange((self._families - index) // of) * of + index + 1
            return rig.form_request("/refresh", {"refresh_token": self._live.get(last) or self._first(last)})

        return next_request

    def _first(self, n: int) -> str:
        return refresh_token.build(
            self._keys,
            user_id=UUID(md5(f"user{n}".encode(), usedforsecurity=False).hexdigest()),
            family_id=UUID(f"019a0000-0000-7000-8000-{n:012x}"),
            generation=0,
            seed=sha256(f"seed{n}".encode()).digest(),
        )


def empty_client(token: str) -> Callable[[bytes | None], bytes]:
    request = rig.form_request("/empty", {"refresh_token": token})
    return lambda _: request


def pgbench(url: str, families: int, clients: int, seconds: int) -> float:
    """The rotation statement by pgbench, prepared; transactions a second."""
    values = {
        "$1": "NULL::timestamptz",
        "$2": "'7 days'",
        "$3": "'127.0.0.1'::inet",
        "$4": "NULL::bytea",
        "$5": "md5('user' || :n)::uuid",
        "$6": "('019a0000-0000-7000-8000-' || lpad(to_hex(:n::int), 12, '0'))::uuid",
        "$7": "generation",  # whichever is live: pgbench remembers none
        "$8": r"'\x00'",
        "$9": r"sha256(sha256(seed || '\x00'::bytea))",
        "$10": "gen_random_uuid()",
        "$11": f"'{rig.AGENT}'",
        "$12": "gen_random_uuid()",
        "$13": f"'{FIRST_PARTY_CLIENT}'",
        "$14": "''",
    }
    statement = re.sub(r"\$\d+", lambda found: values[found.group()], ROTATE)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(f"\\set n random(1, {families})\n{' '.join(statement.split())};\n")
        script.flush()
        words = [rig.postgres_program("pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j", "2"]
        words += ["-T", str(seconds), "-f", script.name, "-d", url]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found.group(1))


def wal_bytes(url: str, start: str, end: str) -> tuple[int, int]:
    """WAL records between two places: their bytes without, and those of, full-page images."""
    (data,) = rig.psql(url, "SHOW data_directory")
    words = [rig.postgres_program("pg_waldump"), "--stats", "-p", f"{data}/pg_wal", "-s", start, "-e", end]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found = re.search(r"Total\s+\d+\s+(\d+) \[[^]]*\]\s+(\d+)", done.stdout)
    assert found, done.stdout
    return int(found.group(1)), int(found.group(2))


def disk_bytes(url: str) -> int:
    (size,) = rig.psql(
        url,
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
        " WHERE relkind = 'r' AND (relname = 'families' OR relname LIKE 'audit_events_%')",
    )
    return int(size)


@contextlib.asynccontextmanager
async def counting_proxy(url: str, *, but: bytes = b"") -> AsyncIterator[tuple[str, dict[str, int]]]:
    """
    A Unix socket before the database's that counts executed statements and round trips.

    Args:
        but: Connections that introduce themselves with these bytes (an application name) are not counted.
    """
    target = str(re.search(r"host=([^&]+)", url).group(1)) + "/.s.PGSQL.5432"  # type: ignore[union-attr]
    counts = {"statements": 0, "round_trips": 0}
    pumps: list[asyncio.Task[None]] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            server_reader, server_writer = await asyncio.open_unix_connection(target)
            pumps.append(asyncio.create_task(_pump(server_reader, writer)))
            first, counted = True, 1
            while True:
                kind = b"" if first else await reader.readexactly(1)  # the first message has no kind
                first = False
                length = await reader.readexactly(4)
                rest = await reader.readexactly(int.from_bytes(length) - 4)
                if kind == b"" and but and but in rest:
                    counted = 0
                counts["statements"] += counted * (kind in {b"E", b"Q"})
                counts["round_trips"] += counted * (kind in {b"S", b"Q"})
                server_writer.write(kind + length + rest)

    with tempfile.TemporaryDirectory(prefix="rota-proxy-") as folder:
        listening = await asyncio.start_unix_server(forward, f"{folder}/.s.PGSQL.5432")
        async with listening:
            yield re.sub(r"host=[^&]+", f"host={folder}", url), counts


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


async def count_statements(url: str) -> dict[str, float]:
    """Statements and round trips of a refresh, counted on the wire."""
    small = await asyncio.to_thread(
        rig.another_database, url, "counted"
    )  # the jobs are done with it at once, and do not count
    rig.psql(small, FILL.format(agent=rig.AGENT, families=1000))
    tokens = Tokens(1000)
    async with counting_proxy(small) as (proxied, counts), off_the_loop(rig.rota(proxied, seals=False)) as port:
        client = tokens.client(0, 1)
        await rig.closed_loop(port, 2, [client])  # prepares, and lets the jobs of the start pass
        before = dict(counts)
        run = await rig.closed_loop(port, 1, [client])
        return {name: (counts[name] - before[name]) / len(run.latencies) for name in counts}


@contextlib.asynccontextmanager
async def off_the_loop(server: contextlib.AbstractContextManager[int]) -> AsyncIterator[int]:
    """Start and stop a server without blocking the loop that its database connections go through."""
    yield await asyncio.to_thread(server.__enter__)
    await asyncio.to_thread(server.__exit__, None, None, None)


async def measure(url: str, families: int, seconds: int, rounds: int) -> dict[str, float]:
    tokens = Tokens(families)
    runs: dict[str, list[rig.Run]] = {}
    empty_port = rig.free_port()
    words = [sys.executable, "-m", "uvicorn", "benchmarks.empty_app:app", "--port", str(empty_port), "--loop", "uvloop"]
    words += ["--http", "httptools", "--no-access-log", "--log-level", "warning"]
    start = before = 0
    with rig.rota(url, seals=False) as port, rig.server(words, empty_port):
        await rig.closed_loop(port, 2, [tokens.client(i, 16) for i in range(16)])  # warm
        await rig.closed_loop(empty_port, 1, [empty_client("x" * 112)] * 16)
        rig.psql(url, "CHECKPOINT", "SELECT pg_stat_reset()")
        before = disk_bytes(url)
        (start,) = rig.psql(url, "SELECT pg_current_wal_insert_lsn()")  # type: ignore[assignment]
        for _ in range(rounds):
            for clients in CLIENTS:
                empty = await rig.closed_loop(empty_port, seconds, [empty_client("x" * 112)] * clients)
                mine = [tokens.client(i, clients) for i in range(clients)]
                refresh = await rig.closed_loop(port, seconds, mine)
                runs.setdefault(f"empty.c{clients}", []).append(empty)
                runs.setdefault(f"refresh.c{clients}", []).append(refresh)
        await asyncio.sleep(1)  # the server's counters come late
        (end,) = rig.psql(url, "SELECT pg_current_wal_insert_lsn()")
        after = disk_bytes(url)
        (updates,) = rig.psql(url, "SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname='families'")
    hot, all_updates = map(int, updates.split("|"))
    records, images = wal_bytes(url, str(start), end)
    refreshes = sum(len(run.latencies) for name, kept in runs.items() if name.startswith("refresh") for run in kept)
    errors = sum(run.errors for kept in runs.values() for run in kept)
    assert errors == 0, f"{errors} requests failed"
    counted = await count_statements(url)
    statement_rate = rig.median([pgbench(url, families, 16, seconds) for _ in range(rounds)])
    figures = _rates(runs)
    figures["ratio_to_pgbench.c16"] = figures["refreshes_per_s.c16"] / statement_rate
    figures["pgbench_per_s.c16"] = statement_rate
    figures["wal_bytes"] = records / refreshes
    figures["wal_bytes_with_images"] = (records + images) / refreshes
    figures["disk_bytes"] = (after - before) / refreshes
    figures["hot_update_ratio"] = hot / all_updates
    return {**figures, **counted}


def _rates(runs: dict[str, list[rig.Run]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for clients in CLIENTS:
        empty, refresh = runs[f"empty.c{clients}"], runs[f"refresh.c{clients}"]
        ratios = [one.rate / base.rate for one, base in zip(refresh, empty, strict=True)]
        figures[f"ratio_to_empty.c{clients}"] = rig.median(ratios)
        figures[f"empty_per_s.c{clients}"] = rig.median([run.rate for run in empty])
        figures[f"refreshes_per_s.c{clients}"] = rig.median([run.rate for run in refresh])
        figures[f"p50_ms.c{clients}"] = rig.median([run.quantile_ms(0.50) for run in refresh])
        figures[f"p99_ms.c{clients}"] = rig.median([run.quantile_ms(0.99) for run in refresh])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute, fewer families, one round")
    parser.add_argument("--json", metavar="PATH", help="write the figures as a JSON object")
    options = parser.parse_args()
    families, seconds, rounds = (30_000, 3, 1) if options.quick else (300_000, 6, 3)
    with rig.database() as url:
        print(f"filling {families:,} families", file=sys.stderr)
        rig.psql(url, FILL.format(agent=rig.AGENT, families=families), "VACUUM ANALYZE families")
        print(f"{rounds} rounds of {seconds} s for {', '.join(map(str, CLIENTS))} clients", file=sys.stderr)
        figures = uvloop.run(measure(url, families, seconds, rounds))
    rig.report(figures, options.json)


if __name__ == "__main__":
    main()
