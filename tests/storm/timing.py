"""
Whether the time of a refusal says who exists: unknown names against known ones, side by side.

    python -m tests.storm.timing [SAMPLES]

Pairs are taken one right after the other, in either order, so that whatever else the machine does concerns both alike.
"""

import asyncio
import contextlib
import json
import secrets
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from app.cli.schema import upgrade_schema
from app.container import Container
from app.domain.errors import InvalidCredentials
from app.domain.users import Role
from tests import postgresql
from tests.conftest import PASSWORD, client_at, make_settings

SAMPLES = 2000  # of each kind
APART = 0.05  # by which share the medians may differ
SIGNIFICANT = 0.01  # below this, Mann and Whitney would call them two

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
    async def refused() -> None:
        with contextlib.suppress(InvalidCredentials):
            await services.sign_in.with_password(username(), "wrong horse battery staple", client=client_at())
            raise AssertionError("signed in by a wrong password")

    return refused


async def unknown_against_known(services: Container, samples: int) -> Verdict:
    """
    Names that nobody has against as many that somebody has; each is asked once, so that no limit comes between.

    The limits are the same for both, and have tests of their own.
    """
    names = [f"timing-{secrets.token_hex(8)}" for _ in range(samples + samples // 10)]
    password_hash = await services.hasher.hash(PASSWORD)
    made = await services.users.create(names[0], PASSWORD, role=Role.USER, actor=None, client=client_at())
    async with services.database.begin() as db:
        await copy_user(db, made.id, names[1:], password_hash)
    known, strangers = iter(names), iter([name[::-1] for name in names])
    return await compare(attempt(services, lambda: next(known)), attempt(services, lambda: next(strangers)), samples)
