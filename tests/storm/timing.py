"""
Whether the time of a refusal says who exists: unknown names against known ones, side by side.

    python -m tests.storm.timing [SAMPLES]

Pairs are taken one right after the other, in either order, so that whatever else the machine does concerns both alike.
"""

import asyncio
import json
import secrets
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from itertools import count
from random import Random

import asyncpg
from uuid_utils.compat import uuid7

from app.cli.schema import upgrade_schema
from app.container import Container
from app.domain.errors import InvalidCredentials
from app.observability.logs import configure_logs
from tests import postgresql
from tests.conftest import PASSWORD, client_at, make_settings

SAMPLES = 2000  # of each kind
APART = 0.05  # by which share the medians may differ
SIGNIFICANT = 0.01  # below this, Mann and Whitney would call them two
UNLIMITED = 1_000_000  # failures a minute, all together

Try = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`apart` is what part of the one median the other is off; `p` the chance of such a difference if there is none."""

    samples: int
    known_ms: float
    unknown_ms: float
    p: float

    @property
    def apart(self) -> float:
        return abs(self.unknown_ms / self.known_ms - 1)


async def compare(known: Try, unknown: Try, samples: int) -> Verdict:
    """Time both in pairs; the first tenth warms up and does not count."""
    times: dict[bool, list[float]] = {True: [], False: []}
    order = Random(samples)
    for number in range(samples + samples // 10):
        pair = [True, False]
        order.shuffle(pair)
        for is_known in pair:
            began = time.perf_counter()
            await (known if is_known else unknown)()
            if number >= samples // 10:
                times[is_known].append(time.perf_counter() - began)
    return Verdict(
        samples,
        1000 * statistics.median(times[True]),
        1000 * statistics.median(times[False]),
        mann_whitney(times[True], times[False]),
    )


def mann_whitney(one: list[float], other: list[float]) -> float:
    """The two-sided p of the rank test, by the normal approximation; among times to the nanosecond ties are rare."""
    ranked = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    ranks = sum(rank for rank, (_, which) in enumerate(ranked, 1) if which == 0)
    first, second = len(one), len(other)
    u = ranks - first * (first + 1) / 2
    deviation = (first * second * (first + second + 1) / 12) ** 0.5
    return 2 * (1 - statistics.NormalDist().cdf(abs(u - first * second / 2) / deviation))


def attempt(services: Container, username: Callable[[], str]) -> Try:
    addresses = count(int(ip_address("2001:db8::1")), 2**64)

    async def refused() -> None:
        client = client_at(str(ip_address(next(addresses))))
        try:
            await services.sign_in.with_password(username(), "wrong horse battery staple", client=client)
        except InvalidCredentials:
            return
        raise AssertionError("signed in by a wrong password")

    return refused


async def unknown_against_known(services: Container, owner_url: str, samples: int) -> Verdict:
    """
    Names that nobody has against as many that somebody has. Each is asked once, and each from an address of its own,
    so that no limit comes between; the limits are the same for both, and have tests of their own.
    """
    names = [f"timing-{secrets.token_hex(8)}" for _ in range(samples + samples // 10)]
    strangers = iter([f"timing-{secrets.token_hex(8)}" for _ in names])
    await add_users(owner_url, names, await services.hasher.hash(PASSWORD))
    known = iter(names)
    return await compare(attempt(services, lambda: next(known)), attempt(services, lambda: next(strangers)), samples)


async def add_users(owner_url: str, names: list[str], password_hash: str) -> None:
    connection = await asyncpg.connect(owner_url)
    try:
        await connection.executemany(
            "INSERT INTO users (id, username, username_key, password_hash, role, created_at, password_changed_at)"
            " VALUES ($1, $2, $2, $3, 'user', now(), now())",
            [(uuid7(), name, password_hash) for name in names],
        )
        await connection.execute("ANALYZE users")
    finally:
        await connection.close()


async def main(samples: int) -> None:
    with postgresql.server() as server_url:
        url = await postgresql.make_database(server_url, "rota_timing")
        await asyncio.to_thread(upgrade_schema, url)
        services = Container.build(make_settings(url, failed_logins_per_minute=UNLIMITED))
        try:
            found = await unknown_against_known(services, url, samples)
        finally:
            await services.close()
    sys.stdout.write(json.dumps(asdict(found) | {"apart": found.apart}) + "\n")
    if found.apart > APART:
        sys.exit(f"the medians are {100 * found.apart:.1f} % apart")


if __name__ == "__main__":
    configure_logs("json")
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES))
