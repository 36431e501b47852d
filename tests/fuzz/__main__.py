"""
Ask a real server whatever its OpenAPI document allows and forbids, as each kind of caller, and check every answer.

`python -m tests.fuzz CASES [--seed N] [--only IDENTITY]`. Exits with 1 if anything was found: an answer that the
document does not have, a server error, accepted nonsense, a route that never answered well.
"""

import argparse
import json
import logging
import random
import secrets
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from app.observability.logs import configure_logs
from app.security.notes import new_key
from benchmarks import rig
from tests.conftest import SECRET
from tests.fuzz.beyond import is_beyond
from tests.fuzz.requests import enliven, learn
from tests.fuzz.world import OPERATOR_TOKEN, World

LOG: Final = "server.log"
ROOT: Final = Path(__file__).parents[2]

# Who speaks, what they may call, and which part of the cases is theirs.
LET_IN: Final[dict[str, tuple[set[str], float]]] = {
    "none": ({"anyone"}, 0.15),
    "user": ({"signed in"}, 0.15),
    "auditor": ({"auditor"}, 0.25),
    "admin": ({"administrator", "auditor", "signed in"}, 0.25),
    "client": ({"API client"}, 0.15),
    "operator": ({"operator"}, 0.05),
}
# What they may call besides, which others try thoroughly.
MAY_ALSO: Final = {"auditor": {"signed in"}}
PHASES: Final = ("examples", "coverage", "fuzzing", "stateful")
# Routes that cannot answer 2xx here, each with its reason.
NEVER_WELL: Final[dict[str, str]] = {
    "GET /.well-known/oauth-authorization-server/{path}": "404 unless ROTA_ISSUER has a path, and it has none here",
}


@dataclass
class Report:
    cases: int = 0
    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    by_identity: Counter[str] = field(default_factory=Counter)
    found: defaultdict[tuple[str, str, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def take(self, identity: str, event: Any) -> None:
        if isinstance(event, events.ScenarioFinished):
            self._take_scenario(identity, event.recorder)
        elif isinstance(event, events.NonFatalError):
            self.found[event.label, "error", type(event.value).__name__].append(str(event.value))
        elif isinstance(event, events.FatalError):
            raise event.exception
        elif isinstance(event, events.EngineFinished):
            for failure in event.failures or ():
                self.found[str(failure.operation), "after the run", failure.title].append(failure.message)

    def _take_scenario(self, identity: str, recorder: Any) -> None:
        for case_id, interaction in recorder.interactions.items():
            label = recorder.cases[case_id].value.operation.label
            self.cases += 1
            self.by_identity[identity] += 1
            self.statuses[label][interaction.response.status_code if interaction.response else 0] += 1
        for case_id, checks in recorder.checks.items():
            for check in checks:
                if check.failure_info is not None:
                    label = recorder.cases[case_id].value.operation.label
                    failure = check.failure_info.failure
                    sample = f"{check.failure_info.code_sample}\n{_said(recorder, case_id)}"
                    self.found[label, check.name, failure.title].append(f"as {identity}: {failure.message}\n{sample}")

    def unreached(self) -> list[str]:
        return [
            label
            for label, statuses in sorted(self.statuses.items())
            if label not in NEVER_WELL and not any(200 <= status < 300 for status in statuses)
        ]

    def show(self) -> None:
        for label, statuses in sorted(self.statuses.items(), key=lambda item: item[0].split(" ")[::-1]):
            print(f"{label:62}", " ".join(f"{status}:{count}" for status, count in sorted(statuses.items())))
        for (label, check, title), samples in sorted(self.found.items()):
            print(f"\nFOUND {label} [{check}] {title} ({len(samples)} times)\n{samples[0]}")
        for label in self.unreached():
            print(f"\nFOUND {label} was never answered 2xx")


def _said(recorder: Any, case_id: str) -> str:
    interaction = recorder.interactions.get(case_id)
    if interaction is None or interaction.response is None:
        return "no answer"
    return f"{interaction.response.status_code} {interaction.response.content[:600].decode(errors='replace')}"


@contextmanager
def served(url: str, folder: Path) -> Iterator[str]:
    """A server process on the database; yields where it is."""
    port = rig.free_port()
    keeping_log = ["/bin/sh", "-c", 'exec "$0" "$@" 2>"$SERVER_LOG"']
    words = [*keeping_log, sys.executable, "-c", "from app.cli import main; main()", "serve", "--port", str(port)]
    environment = {
        "SERVER_LOG": str(folder / LOG),
        "ROTA_DATABASE_URL": url,
        "ROTA_SECRETS": SECRET,
        "ROTA_REGISTRATION": "open",
        "ROTA_OPERATOR_TOKEN": OPERATOR_TOKEN,
        "ROTA_AUDIT_SIGNING_KEY": new_key(),  # so that there is a sealed event to prove
        "ROTA_AUDIT_SINK": str(folder / "sink"),
    }
    (folder / "sink").mkdir()
    with rig.server(words, port, **environment):
        yield f"http://127.0.0.1:{port}"


def hooked(world: World) -> None:
    """Have each request speak as the identity, and each answer be learnt from."""

    @schemathesis.hook
    def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
        enliven(world, case)

    @schemathesis.hook
    def after_call(context: Any, case: Any, response: Any) -> None:
        if response.status_code == 401:
            world.refused(response.request.headers.get("Authorization"))
        try:
            answer = json.loads(response.content)
        except ValueError:
            return
        learn(world, case, response.status_code, answer)

    @schemathesis.hook
    def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
        return not (type(failure).__name__ == "RejectedPositiveData" and is_beyond(response.content))

    @schemathesis.auth(refresh_interval=None)
    class Speaking:
        def get(self, *_: Any) -> str | None:
            return world.header()

        def set(self, case: Any, data: str, *_: Any) -> None:
            if data is not None:
                case.headers["Authorization"] = data


def ask_as(identity: str, base: str, document: dict[str, Any], cases: int, seed: int, report: Report) -> None:
    """All phases, as one identity, on what it may call."""
    allowed, _ = LET_IN[identity]
    own = sum(each["x-access"] in allowed for path in document["paths"].values() for each in path.values())
    settings = tomllib.loads((ROOT / "schemathesis.toml").read_text())
    settings |= {"seed": seed, "base-url": base}
    settings["generation"] |= {"max-examples": max(1, cases // own // 2), "no-shrink": True}
    if identity in {"none", "client", "operator"}:
        settings["phases"]["stateful"] = {"enabled": False}  # nothing leads from one of these routes to another
    loaded = schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(settings))
    schema = loaded.exclude(lambda context: context.operation.definition.raw["x-access"] not in allowed)
    before = time.monotonic()
    count = report.cases
    for event in from_schema(schema).execute():
        report.take(identity, event)
    print(f"{identity}: {report.cases - count} cases in {time.monotonic() - before:.0f} s")


def trespass(identity: str, base: str, document: dict[str, Any], seed: int, report: Report) -> None:
    """What fits the document, on what the identity may not call: never a 2xx, and nothing but 401 or 403 first."""
    allowed = LET_IN[identity][0] | MAY_ALSO.get(identity, set()) | {"anyone"}
    settings = tomllib.loads((ROOT / "schemathesis.toml").read_text())
    settings |= {"seed": seed, "base-url": base}
    settings["generation"] |= {"max-examples": 1, "no-shrink": True, "mode": "positive"}
    settings["phases"] = {name: {"enabled": name == "fuzzing"} for name in PHASES}
    loaded = schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(settings))
    schema = loaded.exclude(lambda context: context.operation.definition.raw["x-access"] in allowed)
    seen = Report()
    for event in from_schema(schema).execute():
        seen.take(identity, event)
    for label, statuses in seen.statuses.items():
        for status in set(statuses) - {401, 403}:
            report.found[label, "trespass", f"answers {status} to {identity}"].append(f"as {identity}")
    report.found.update(seen.found)
    report.cases += seen.cases
    report.by_identity[f"{identity}, trespassing"] += seen.cases


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("cases", type=int)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", choices=LET_IN)
    options = parser.parse_args()
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    print(f"python -m tests.fuzz {options.cases} --seed {seed}")
    configure_logs("json", least=logging.CRITICAL)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="rota-fuzz-") as folder, rig.database() as url:
        world = World(url, random.Random(seed))
        hooked(world)
        with served(url, Path(folder)) as base:
            document = json.loads(urllib.request.urlopen(base + "/openapi.json").read())
            for identity, (_, share) in LET_IN.items():
                if options.only in {None, identity}:
                    world.identity = identity
                    ask_as(identity, base, document, int(options.cases * share), seed, report)
                    trespass(identity, base, document, seed, report)
        world.close()
        report.show()
        broke = [
            line
            for line in (Path(folder) / LOG).read_text().splitlines()
            if '"request.broke"' in line or '"request.failed"' in line
        ]
        for line in broke[:20]:
            print(line)
    print(f"{report.cases} cases {dict(report.by_identity)}, signed in anew {world.renewed} times, seed {seed}")
    print(f"{len(report.found)} kinds of findings")
    sys.exit(1 if report.found or report.unreached() or broke else 0)


if __name__ == "__main__":
    main()
