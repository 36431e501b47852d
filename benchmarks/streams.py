"""
A thousand followers of the feed on one server process, and what they cost refreshes.

    python -m benchmarks.streams [--quick] [--json PATH] [--streams N]

Refreshes come at half of what the server can do, while sessions end all the time; by turns nobody follows, and a
thousand streams do, each of which gets every end. The followers are a process of its own, on the same cores.
"""

import argparse
import asyncio
import base64
import contextlib
import re
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import asyncpg
import uvloop

from app.container import Container
from app.domain.api_clients import ClientScope, NewClient
from app.domain.events import NO_CLIENT, SYSTEM
from app.settings import Settings
from benchmarks import rig
from benchmarks.refresh import FILL, Tokens

STREAMS = 1000
REFRESHERS = 16
ENDS_PER_SECOND = 2.0
CONNECTED_AT_ONCE = 50
ARRIVAL_SECONDS = 30

# Sessions that no refresh touches, to be ended.
ENDED = """
UPDATE families SET ended_at = clock_timestamp(), end_reason = 'admin', ended_xact = pg_current_xact_id(),
                    event_seq = event_seq + 1
 WHERE id = ('019a0000-0000-7000-8000-' || lpad(to_hex($1::int), 12, '0'))::uuid
"""


class _Stream(asyncio.Protocol):
    """One follower, which only counts."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.events = 0
        self.began = asyncio.get_running_loop().create_future()
        self.lost = False
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "write")
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.events += (self._tail + data).count(b"event: session-revoked")
        self._tail = data[-21:]
        if not self.began.done() and b": current" in data:
            self.began.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.lost = True


async def consume(port: int, streams: int, authorization: str) -> None:
    """
    Be so many followers; say when all are there, and what each has got when standard input has said how much it should
    be and that was there, or long enough awaited.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    request = (f"GET /revocations/stream HTTP/1.1\r\nHost: bench\r\nAuthorization: {authorization}\r\n\r\n").encode()
    loop = asyncio.get_running_loop()
    followers: list[_Stream] = []
    for start in range(0, streams, CONNECTED_AT_ONCE):
        batch = [_Stream(request) for _ in range(start, min(start + CONNECTED_AT_ONCE, streams))]
        for follower in batch:
            await loop.create_connection(lambda given=follower: given, "127.0.0.1", port)  # type: ignore[misc]
        async with asyncio.timeout(30):
            await asyncio.gather(*(follower.began for follower in batch))
        followers += batch
    for follower in followers:
        follower.events = 0
    print("ready", flush=True)
    expected = int(await asyncio.to_thread(sys.stdin.read) or 0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ARRIVAL_SECONDS):
            while min(follower.events for follower in followers) < expected:  # noqa: ASYNC110 - each counts for itself
                await asyncio.sleep(0.1)
    got = [follower.events for follower in followers]
    print(min(got), max(got), sum(follower.lost for follower in followers), flush=True)


@contextlib.asynccontextmanager
async def following(port: int, streams: int, authorization: str) -> AsyncIterator[list[int]]:
    """
    Followers in a process of their own. The body says how many events each should get; afterwards there stand the
    fewest and most events of one, and how many broke off.
    """
    words = [sys.executable, "-m", "benchmarks.streams", "--consume", str(port), "--streams", str(streams)]
    process = subprocess.Popen(  # noqa: ASYNC220 - a moment, before anything is measured
        [*words, "--authorization", authorization], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    result: list[int] = []
    try:
        assert (await asyncio.to_thread(process.stdout.readline)).strip() == "ready"
        yield result
        said, _ = await asyncio.to_thread(process.communicate, str(result.pop()))
        result += map(int, said.split())
    finally:
        if process.poll() is None:
            process.kill()


async def end_sessions(url: str, numbers: range, seconds: float) -> int:
    """End one session after the other, evenly; how many there were."""
    connection = await asyncpg.connect(url)
    try:
        started, ended = time.monotonic(), 0
        for number in numbers:
            due = started + ended / ENDS_PER_SECOND
            if due > started + seconds:
                break
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await connection.execute(ENDED, number)
            ended += 1
        return ended
    finally:
        await connection.close()


async def make_consumer(url: str) -> str:
    """An API client that may follow; its `Authorization` header."""
    services = Container.build(Settings(database_url=url, secrets=rig.SECRET))  # type: ignore[arg-type]
    try:
        new = NewClient("benchmark", scopes=frozenset({ClientScope.REVOCATIONS}))
        made = await services.api_clients.create(new, actor=SYSTEM, client=NO_CLIENT)
    finally:
        await services.close()
    return "Basic " + base64.b64encode(f"{made.client.client_id}:{made.secret}".encode()).decode()


async def measure(url: str, families: int, seconds: float, rounds: int, streams: int = STREAMS) -> dict[str, float]:
    """
    Refresh latencies with and without followers, by turns.

    Args:
        url: A migrated database with `families` of `benchmarks.refresh.FILL`; a thousand more are ended.
    """
    spare = 10_000  # how many ends there can be; made beyond those that refresh
    end_url = re.sub(r"^postgresql\+asyncpg", "postgresql", url)
    rig.psql(url, _spare_families(families, spare))
    authorization = await make_consumer(url)
    tokens = Tokens(families)
    next_end = families + 1
    alone: list[rig.Run] = []
    beside: list[rig.Run] = []
    with rig.rota(url, seals=False) as port:
        warm = await rig.closed_loop(port, 3, [tokens.client(i, REFRESHERS) for i in range(REFRESHERS)])
        rate = warm.rate / 2
        print(f"{rate:.0f} refreshes a second", file=sys.stderr)
        for _ in range(rounds):
            for runs, count in ((alone, 0), (beside, streams)):
                async with contextlib.AsyncExitStack() as followers:
                    got = await followers.enter_async_context(following(port, count, authorization)) if count else []
                    clients = [tokens.client(i, REFRESHERS) for i in range(REFRESHERS)]
                    run, ended = await asyncio.gather(
                        rig.closed_loop(port, seconds, clients, rate=rate),
                        end_sessions(end_url, range(next_end, families + spare), seconds),
                    )
                    next_end += ended
                    runs.append(run)
                    got.append(ended)
                if count:
                    assert got == [ended, ended, 0], f"{ended} ended, followers got {got}"
    assert not sum(run.errors for run in [*alone, *beside])
    figures = {
        "refresh_p99_ms.alone": rig.median([run.quantile_ms(0.99) for run in alone]),
        "refresh_p99_ms.beside_streams": rig.median([run.quantile_ms(0.99) for run in beside]),
        "refresh_p50_ms.alone": rig.median([run.quantile_ms(0.5) for run in alone]),
        "refresh_p50_ms.beside_streams": rig.median([run.quantile_ms(0.5) for run in beside]),
    }
    factor = figures["refresh_p99_ms.beside_streams"] / figures["refresh_p99_ms.alone"]
    return {f"refresh_p99_factor_beside_{streams}_streams": factor, **figures}


def _spare_families(families: int, spare: int) -> str:
    series = f"generate_series({families + 1}, {families + spare})"
    return FILL.replace("generate_series(1, {families})", series).format(agent=rig.AGENT, families=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute, fewer families, one round")
    parser.add_argument("--json", metavar="PATH", help="write the figures as a JSON object")
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--consume", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--authorization", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.consume:
        uvloop.run(consume(options.consume, options.streams, options.authorization))
        return
    families, seconds, rounds = (10_000, 6, 1) if options.quick else (100_000, 15, 5)
    with rig.database() as url:
        rig.psql(url, FILL.format(agent=rig.AGENT, families=families), "VACUUM ANALYZE families")
        figures = uvloop.run(measure(url, families, seconds, rounds, options.streams))
    rig.report(figures, options.json)


if __name__ == "__main__":
    main()
