"""
The administration of a big data set: finding by each filter and the most plausible pairs, the memory of an export,
and a bulk end beside refreshes.

    python -m benchmarks.admin [--quick] [--rows N] [--json PATH] [--only PART]

Builds the data set of `benchmarks.admin_data` twice, with N sessions (10,000,000) and with 100,000. A question goes
through the service, as the API asks it: the page is found, its users are named, and that somebody asked is committed as
an event. `query_p95_ms.<filter>` is the worst of four: first and hundredth page, newest and oldest first.
`growth.<filter>` is that against the small data set, which is asked in turn with the big one, so that noise meets both.
The bulk end is that of `benchmarks.admin_bulk`. It comes last, for it ends a tenth of the sessions.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

import uvloop
from pydantic import SecretStr

from app.container import Container
from app.domain.errors import RotaError
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.families import EndReason, SessionState
from app.domain.session_filters import AddressScope, SessionFilter, SessionSort
from app.domain.users import Role
from app.observability.logs import configure_logs
from app.services.session_search import FoundSessions
from app.settings import Settings
from benchmarks import admin_bulk, rig
from benchmarks.admin_data import ADMINS, DataSet, build

PARTS = ("queries", "export", "bulk")
PAGE, HUNDREDTH = 50, 99 * 50
PASSWORD = "correct horse battery staple"  # noqa: S105 - of a database that is thrown away
FOLLOWED = 200  # pages that are gone through at most to reach the hundredth where matches are few


@dataclass(frozen=True, slots=True)
class Extent:
    rows: int
    small: int
    draws: int


FULL, QUICK = Extent(10_000_000, 100_000, 40), Extent(50_000, 10_000, 1)


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


# --- queries ---

Draw = Callable[[random.Random, DataSet], SessionFilter]


def _user(lots: random.Random, data: DataSet) -> SessionFilter:
    return SessionFilter(user_id=data.user_id(data.user_of(1 + lots.randrange(data.rows))))


def _username(lots: random.Random, data: DataSet) -> SessionFilter:
    return SessionFilter(username=data.username(data.user_of(1 + lots.randrange(data.rows))))


def _prefix(lots: random.Random, data: DataSet) -> SessionFilter:
    return SessionFilter(username_prefix=data.username(lots.randrange(data.users))[:-1])


def _state(lots: random.Random, _: DataSet) -> SessionFilter:
    return SessionFilter(state=lots.choice([SessionState.ACTIVE, SessionState.ENDED]))


def _client(lots: random.Random, _: DataSet) -> SessionFilter:
    return SessionFilter(
        client_id=lots.choice(["first-party", "mobile-app", "web-console", "partner", "cli", "legacy"])
    )


def _role(lots: random.Random, _: DataSet) -> SessionFilter:
    return SessionFilter(role=lots.choice(list(Role)))


def _ip(lots: random.Random, data: DataSet) -> SessionFilter:
    home = 2654435761 * data.user_of(1 + lots.randrange(data.rows)) % 16_777_216
    return SessionFilter(
        network=ip_network(lots.choice([ip_address("10.0.0.0") + home, f"198.18.0.{lots.randrange(9)}"]))
    )


def _cidr(lots: random.Random, _: DataSet) -> SessionFilter:
    network = lots.choice([f"10.{lots.randrange(256)}.0.0/16", f"10.{lots.randrange(256)}.{lots.randrange(256)}.0/24"])
    return SessionFilter(network=ip_network(network))


def _used_from(lots: random.Random, _: DataSet) -> SessionFilter:
    return SessionFilter(network=ip_network(f"203.0.113.{lots.randrange(256)}"), scope=AddressScope.ANY)


def _device(lots: random.Random, _: DataSet) -> SessionFilter:
    return SessionFilter(device=lots.choice(["iPhone", "iPad", "Mac", "Samsung SM-C917", "Nokia 3310"]))


def _browser(lots: random.Random, _: DataSet) -> SessionFilter:
    return SessionFilter(
        browser=lots.choice(["Chrome", "Chrome 125", "Mobile Safari 17", "Firefox", "Opera", "Edge 130"])
    )


def _os(lots: random.Random, _: DataSet) -> SessionFilter:
    return SessionFilter(os=lots.choice(["Windows", "Windows 11", "iOS", "Android 13", "Ubuntu", "Mac OS X"]))


def _created(lots: random.Random, data: DataSet) -> SessionFilter:
    since = data.created_at(1 + lots.randrange(data.rows))
    return SessionFilter(created_from=since, created_to=since + timedelta(hours=lots.choice([1, 24, 24 * 7])))


def _used(lots: random.Random, data: DataSet) -> SessionFilter:
    since = data.end - timedelta(days=7 * lots.random())
    return SessionFilter(last_used_from=since, last_used_to=since + timedelta(hours=6))


def _reason(lots: random.Random, _: DataSet) -> SessionFilter:
    return SessionFilter(end_reason=lots.choice(list(EndReason)))


def _ended_by(lots: random.Random, data: DataSet) -> SessionFilter:
    return SessionFilter(ended_by=data.user_id(lots.randrange(ADMINS)))


def _both(one: Draw, other: Draw) -> Draw:
    """What both restrict: no field is in both."""

    def draw(lots: random.Random, data: DataSet) -> SessionFilter:
        first, second = one(lots, data), other(lots, data)
        fields = SessionFilter.__dataclass_fields__
        set_by_it = {name: getattr(second, name) for name in fields if getattr(second, name) != fields[name].default}
        return replace(first, **set_by_it)

    return draw


def _lapsed(_: random.Random, __: DataSet) -> SessionFilter:
    return SessionFilter(state=SessionState.LAPSED)


def _active(_: random.Random, __: DataSet) -> SessionFilter:
    return SessionFilter(state=SessionState.ACTIVE)


CASES: dict[str, Draw] = {
    "none": lambda _lots, _data: SessionFilter(),
    "state": _state,
    "lapsed": _lapsed,
    "user": _user,
    "username": _username,
    "username_prefix": _prefix,
    "client": _client,
    "role": _role,
    "ip": _ip,
    "cidr": _cidr,
    "ip_any": _used_from,
    "device": _device,
    "browser": _browser,
    "os": _os,
    "created": _created,
    "last_used": _used,
    "end_reason": _reason,
    "ended_by": _ended_by,
    "state_user": _both(_state, _user),
    "state_client": _both(_state, _client),
    "state_role": _both(_state, _role),
    "state_ip": _both(_state, _ip),
    "state_browser": _both(_state, _browser),
    "state_os": _both(_state, _os),
    "state_created": _both(_active, _created),
    "user_created": _both(_user, _created),
    "ip_created": _both(_ip, _created),
    "device_os": _both(_device, _os),
    "end_reason_created": _both(_reason, _created),
    "end_reason_ended_by": _both(_reason, _ended_by),
}
BY_LAST_USE: dict[str, Draw] = {"user_by_last_used": _user, "ip_by_last_used": _ip}


@dataclass(slots=True)
class Asked:
    """Latencies in seconds by page and order; how many pages were refused, and how many cut short."""

    runs: dict[str, rig.Run] = field(default_factory=dict)
    refused: int = 0
    cut_short: int = 0

    @property
    def p95_ms(self) -> float:
        return max((run.quantile_ms(0.95) for run in self.runs.values()), default=0.0)


@dataclass(frozen=True, slots=True)
class Question:
    wanted: SessionFilter
    sort: SessionSort
    newest_first: bool

    @property
    def order(self) -> str:
        return "newest" if self.newest_first else "oldest"


class Subject:
    """A data set and the services that ask it."""

    def __init__(self, url: str, data: DataSet) -> None:
        self.data = data
        self.services = Container.build(Settings(database_url=SecretStr(url), secrets=SecretStr(rig.SECRET)))

    async def ask(self, question: Question, asked: Asked) -> None:
        """The first page and the hundredth, if there is one."""
        try:
            await self._page(question)  # what it needs is in memory then, as at a second look
            following = await self._timed(question, None, asked, f"first {question.order}")
            if following is not None and (cursor := await self._hundredth(question)) is not None:
                await self._timed(question, cursor, asked, f"hundredth {question.order}")
        except RotaError:
            asked.refused += 1

    async def _timed(self, question: Question, cursor: str | None, asked: Asked, kind: str) -> str | None:
        started = time.perf_counter()
        page = await self._page(question, cursor)
        asked.runs.setdefault(kind, rig.Run()).latencies.append(time.perf_counter() - started)
        asked.cut_short += page.cut_short
        return page.next

    async def _hundredth(self, question: Question) -> str | None:
        """The cursor of the hundredth page: that of pages which together are as long as the ninety-nine before it."""
        cursor, found = None, 0
        for _ in range(FOLLOWED):
            page = await self._page(question, cursor, HUNDREDTH - found)
            cursor, found = page.next, found + len(page.families)
            if cursor is None or found == HUNDREDTH:
                return cursor
        return None

    async def _page(self, question: Question, cursor: str | None = None, limit: int = PAGE) -> FoundSessions:
        return await self.services.session_search.search(
            question.wanted,
            sort=question.sort,
            newest_first=question.newest_first,
            cursor=cursor,
            limit=limit,
            actor=SYSTEM,
            client=NO_CLIENT,
        )


async def measure_queries(big: Subject, small: Subject, draws: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    cases = [(name, draw, SessionSort.CREATED) for name, draw in CASES.items()]
    cases += [(name, draw, SessionSort.LAST_USED) for name, draw in BY_LAST_USE.items()]
    for name, draw, sort in cases:
        of_big, of_small, lots = Asked(), Asked(), random.Random(name)
        for _ in range(draws):
            for newest_first in (True, False):
                await small.ask(Question(draw(lots, small.data), sort, newest_first), of_small)
                await big.ask(Question(draw(lots, big.data), sort, newest_first), of_big)
        figures[f"query_p95_ms.{name}"] = of_big.p95_ms
        figures[f"growth.{name}"] = of_big.p95_ms / of_small.p95_ms if of_small.p95_ms else 1.0
        kinds = ", ".join(f"{kind} {run.quantile_ms(0.95):.1f}" for kind, run in of_big.runs.items())
        others = f"{of_big.refused} refused, {of_big.cut_short} cut short"
        say(f"  {name}: p95 ms {kinds}; small {of_small.p95_ms:.1f}; {others}")
    return figures


async def queries(big_url: str, big: DataSet, small_url: str, small: DataSet, draws: int) -> dict[str, float]:
    subjects = Subject(big_url, big), Subject(small_url, small)
    try:
        return await measure_queries(*subjects, draws)
    finally:
        for subject in subjects:
            await subject.services.close()


# --- export ---


def measure_export(url: str) -> dict[str, float]:
    """All sessions as CSV: by `rota sessions export`, whose memory counts whole; over HTTP, what the server grew."""
    settings = {"ROTA_DATABASE_URL": url, "ROTA_SECRETS": rig.SECRET}
    words = [sys.executable, "-c", rig.TELLS_ITS_PEAK, "sessions", "export", "--format", "csv"]
    done = subprocess.run(
        words,
        check=True,
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = int(done.stderr.split()[-1]) * 1024 / 1e6
    say(f"  by the command line: {peak:.0f} MB at most")
    uvloop.run(_make_auditor(url))
    with rig.rota(url, seals=False) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        form = urllib.parse.urlencode({"username": "auditor", "password": PASSWORD})
        connection.request("POST", "/token", form, {"Content-Type": "application/x-www-form-urlencoded"})
        token = json.loads(connection.getresponse().read())["access_token"]
        before, started = _peak_mb(), time.perf_counter()
        connection.request("GET", "/admin/sessions/export?format=csv", headers={"Authorization": f"Bearer {token}"})
        answer, rows = connection.getresponse(), -1
        while piece := answer.read(1 << 16):
            rows += piece.count(b"\n")
        seconds, after = time.perf_counter() - started, _peak_mb()
        connection.close()
    say(f"  by the server: {rows:,} sessions in {seconds:.0f} s; {before:.0f} MB before, {after:.0f} MB at most")
    return {
        "export_peak_mb": peak,
        "export_server_growth_mb": after - before,
        "export_rows_per_s": rows / seconds,
    }


async def _make_auditor(url: str) -> None:
    services = Container.build(Settings(database_url=SecretStr(url), secrets=SecretStr(rig.SECRET)))
    await services.users.create("auditor", PASSWORD, role=Role.AUDITOR, actor=SYSTEM, client=NO_CLIENT)
    await services.close()


def _peak_mb() -> float:
    """The most memory that any server process of ours has had resident, in megabytes."""
    peaks, parents = [0.0], [os.getpid()]
    for parent in parents:  # grows while it is walked
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{parent}/task").iterdir():
                parents += map(int, (thread / "children").read_text(encoding="ascii").split())
            if b"serve" in Path(f"/proc/{parent}/cmdline").read_bytes():
                status = Path(f"/proc/{parent}/status").read_text(encoding="ascii")
                peaks.append(int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6)
    return max(peaks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute or so, on 50,000 sessions")
    parser.add_argument("--rows", type=int, metavar="N", help="sessions of the big data set")
    parser.add_argument("--json", metavar="PATH", help="write the figures as a JSON object")
    parser.add_argument("--only", choices=PARTS, help="measure only this part")
    options = parser.parse_args()
    extent = QUICK if options.quick else FULL
    extent = replace(extent, rows=options.rows or extent.rows)
    parts = (options.only,) if options.only else PARTS
    configure_logs("console")
    figures: dict[str, float] = {}
    try:
        with rig.database() as url:
            began = time.perf_counter()
            say(f"building {extent.rows:,} sessions")
            big = build(url, extent.rows, say)
            figures["build_s"] = time.perf_counter() - began
            if "queries" in parts:
                say(f"building {extent.small:,} sessions")
                small_url = rig.another_database(url, "small")
                small = build(small_url, extent.small)
                say("asking")
                figures |= uvloop.run(queries(url, big, small_url, small, extent.draws))
            if "export" in parts:
                say("exporting")
                figures |= measure_export(url)
            if "bulk" in parts:
                say("ending")
                figures |= admin_bulk.figures(url, big, quick=options.quick)
    finally:
        rig.report(figures, options.json)  # what a run that was broken off has found


if __name__ == "__main__":
    main()
