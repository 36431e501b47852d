"""
Sign-ins a second, against what the processors can hash; and a storm of 500 at once, with refreshes beside it.

    python -m benchmarks.sign_in [--quick] [--json PATH]

What can be hashed is measured in the same run, round by round, by as many threads of the same kind and nothing beside
them. Everything shares this machine's cores, so the ratios count, not the rates.

In the storm 500 clients of another process sign in, each over and over; whoever is refused comes again after what
`Retry-After` says. Refreshes come at a steady rate: with nothing beside them; beside another process that does nothing
but hash with as many threads of the same low priority, which shows what hashing alone costs them on this machine; and
beside the storm.
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import uvloop

from app.security.passwords import MEMORY_KIB, PasswordHasher
from benchmarks import rig
from benchmarks.refresh import FILL, Tokens

PASSWORD: Final = "correct horse battery staple"  # noqa: S105 - of users that are thrown away
USERS: Final = 400  # so many that none comes to the limit of sessions, where each sign-in ends another
STORM: Final = 500
REFRESHING: Final = 16  # clients
FAMILIES: Final = 20_000

USERS_FILL = """
INSERT INTO users (id, username, username_key, password_hash, role, created_at, password_changed_at)
SELECT ('019b0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'user' || n, 'user' || n, '{hashed}', 'user',
       now(), now()
  FROM generate_series(1, {users}) AS n
"""


@dataclass(frozen=True, slots=True)
class Size:
    seconds: float  # of one measurement
    rounds: int
    refreshes_per_s: int


@dataclass(slots=True)
class Storm:
    """What its clients have seen."""

    opened: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def add(self, more: "Storm") -> None:
        self.opened += more.opened
        self.refused += more.refused
        self.other += more.other


class People:
    """Users who sign in in turn, each on a device that is known from the second time on."""

    def __init__(self) -> None:
        self._numbers = count()
        self._devices: dict[int, str] = {}

    def next(self) -> tuple[int, bytes]:
        """Who signs in, and by what request."""
        number = next(self._numbers) % USERS + 1
        fields = {"username": f"user{number}", "password": PASSWORD}
        if number in self._devices:
            fields["device_token"] = self._devices[number]
        return number, rig.form_request("/token", fields)

    def note(self, number: int, answer: bytes) -> None:
        if found := re.search(rb'"device_token":"([^"]+)"', answer):
            self._devices[number] = found.group(1).decode()

    def client(self) -> Callable[[bytes | None], bytes]:
        last = 0

        def next_request(answer: bytes | None) -> bytes:
            nonlocal last
            if answer is not None:
                self.note(last, answer)
            last, request = self.next()
            return request

        return next_request


def hashes_per_s(threads: int, seconds: float) -> float:
    """In a process of its own, which does nothing else."""
    return float(subprocess.run(hashing(threads, seconds), check=True, capture_output=True, text=True).stdout)


def hashing(threads: int, seconds: float) -> list[str]:
    return [sys.executable, "-m", "benchmarks.sign_in", "--hash", str(seconds), "--threads", str(threads)]


async def hash_for(seconds: float, threads: int) -> float:
    hasher = PasswordHasher(threads=threads)
    stored = await hasher.hash(PASSWORD)
    done = 0

    async def verify_always(until: float) -> None:
        nonlocal done
        while time.perf_counter() < until:
            assert await hasher.verify(PASSWORD, stored)
            done += 1

    await asyncio.gather(*(verify_always(time.perf_counter() + 0.5) for _ in range(2 * threads)))  # warm
    done, began = 0, time.perf_counter()
    await asyncio.gather(*(verify_always(began + seconds) for _ in range(2 * threads)))
    rate = done / (time.perf_counter() - began)
    hasher.close()
    return rate


async def storm_for(port: int, seconds: float) -> Storm:
    people, seen, until = People(), Storm(), time.perf_counter() + seconds
    await asyncio.gather(*(storm_client(port, until, people, seen) for _ in range(STORM)))
    return seen


async def gather_clients(port: int, seconds: float) -> Process:
    """In a process of their own: what they do beside each other is not taken for the server's doing."""
    words = [sys.executable, "-m", "benchmarks.sign_in", "--storm", str(seconds), "--port", str(port)]
    pipe = subprocess.PIPE
    clients = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, limit=2**24)
    assert clients.stdout is not None
    await clients.stdout.readline()  # they are there, and have not begun
    return clients


async def let_storm(clients: Process) -> Storm:
    said, _ = await clients.communicate(b"begin\n")
    assert clients.returncode == 0
    return Storm(**json.loads(said))


async def storm_client(port: int, until: float, people: People, seen: Storm) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (began := time.perf_counter()) < until:
        number, request = people.next()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))
        took = time.perf_counter() - began
        if head.startswith(b"HTTP/1.1 200"):
            seen.opened.append(took)
            people.note(number, body)
        elif head.startswith(b"HTTP/1.1 503"):
            seen.refused.append(took)
            await asyncio.sleep(int(re.findall(rb"retry-after: (\d+)", head)[0]))
        else:
            seen.other.append(head[:20].decode())
            return
    writer.close()


def status_mb(pid: int, name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    assert found
    return int(found.group(1)) / 1024


async def logins(url: str, threads: int, size: Size) -> dict[str, float]:
    """As many at once as keep the processors busy, and no more than fit into the queue."""
    ratios, rates, hashed, took, people = [], [], [], [], People()
    with rig.rota(url, seals=False) as port:
        clients = [people.client() for _ in range(4 * threads)]
        await rig.closed_loop(port, size.seconds, clients)  # warm; the devices become known
        for _ in range(size.rounds):
            alone = await asyncio.to_thread(hashes_per_s, threads, size.seconds)
            run = await rig.closed_loop(port, size.seconds, clients)
            assert run.errors == 0, run.first_error
            ratios.append(run.rate / alone)
            rates.append(run.rate)
            hashed.append(alone)
            took.append(run.quantile_ms(0.50))
    return {
        "logins_ratio_to_hashing": rig.median(ratios),
        "logins_per_s": rig.median(rates),
        "hashes_per_s": rig.median(hashed),
        "login_p50_ms": rig.median(took),
        "hash_threads": threads,
    }


async def storm(url: str, threads: int, size: Size) -> dict[str, float]:
    tokens, seen = Tokens(FAMILIES), Storm()
    mine = [tokens.client(i, REFRESHING) for i in range(REFRESHING)]
    before, hashed, beside, factors, medians, floors = [], [], [], [], [], []
    with rig.rota(url, seals=False) as port:
        pid = rig.pids[port]
        await rig.closed_loop(port, 3, mine, rate=size.refreshes_per_s)  # warm; the jobs of the start pass
        idle_mb = status_mb(pid, "VmRSS")
        for _ in range(size.rounds):
            quiet = await rig.closed_loop(port, size.seconds, mine, rate=size.refreshes_per_s)
            beside_hashes = await asyncio.create_subprocess_exec(
                *hashing(threads, size.seconds + 2), stdout=subprocess.DEVNULL
            )
            await asyncio.sleep(1.5)  # until it has begun
            slowed = await rig.closed_loop(port, size.seconds, mine, rate=size.refreshes_per_s)
            await beside_hashes.wait()
            clients = await gather_clients(port, size.seconds + 0.5)
            storming = asyncio.create_task(let_storm(clients))
            busy = await rig.closed_loop(port, size.seconds, mine, rate=size.refreshes_per_s)
            seen.add(await storming)
            assert quiet.errors == slowed.errors == busy.errors == 0, busy.first_error
            before.append(quiet.quantile_ms(0.99))
            hashed.append(slowed.quantile_ms(0.99))
            floors.append(hashed[-1] / before[-1])
            beside.append(busy.quantile_ms(0.99))
            factors.append(beside[-1] / before[-1])
            medians.append(busy.quantile_ms(0.50) / quiet.quantile_ms(0.50))
        peak_mb = status_mb(pid, "VmHWM")
    assert not seen.other, seen.other[:3]
    opened, refused = sorted(seen.opened), sorted(seen.refused)
    cap_mb = threads * MEMORY_KIB / 1024
    return {
        "refresh_p99_factor_beside_storm": rig.median(factors),
        "refresh_p99_factor_beside_hashing": rig.median(floors),
        "refresh_p50_factor_beside_storm": rig.median(medians),
        "refresh_p99_ms": rig.median(before),
        "refresh_p99_ms_beside_hashing": rig.median(hashed),
        "refresh_p99_ms_beside_storm": rig.median(beside),
        "storm_logins": len(opened),
        "storm_login_p50_ms": 1000 * rig.median(opened),
        "storm_login_max_ms": 1000 * opened[-1],
        "refused_503": len(refused),
        "refused_p50_ms": 1000 * rig.median(refused),
        "refused_p99_ms": 1000 * refused[int(0.99 * len(refused))],
        "refused_p99_to_login_p50": refused[int(0.99 * len(refused))] / rig.median(opened),
        "storm_growth_mb": peak_mb - idle_mb,
        "hash_cap_mb": cap_mb,
        "storm_peak_mb": peak_mb - idle_mb - cap_mb,
    }


async def measure(url: str, size: Size) -> dict[str, float]:
    hasher = PasswordHasher()
    hashed, threads = await hasher.hash(PASSWORD), hasher.threads
    hasher.close()
    rig.psql(url, FILL.format(agent=rig.AGENT, families=FAMILIES), USERS_FILL.format(hashed=hashed, users=USERS))
    rig.psql(url, "VACUUM ANALYZE")
    return await logins(url, threads, size) | await storm(url, threads, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute, one round")
    parser.add_argument("--json", metavar="PATH", help="write the figures as a JSON object")
    parser.add_argument("--hash", type=float, metavar="SECONDS", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--storm", type=float, metavar="SECONDS", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.storm:
        print("here", flush=True)
        sys.stdin.readline()
        print(json.dumps(asdict(uvloop.run(storm_for(options.port, options.storm)))))
        return
    if options.hash:
        print(uvloop.run(hash_for(options.hash, options.threads)))
        return
    size = Size(5, 1, 100) if options.quick else Size(10, 5, 100)
    with rig.database() as url:
        figures = uvloop.run(measure(url, size))
    rig.report(figures, options.json)


if __name__ == "__main__":
    main()
