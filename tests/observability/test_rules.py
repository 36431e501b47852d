"""The alert rules and the dashboard speak of metrics that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.jobs.schedule import JOBS
from app.main import create_app
from app.observability.metrics import DECLARED, Declared, Kind
from tests.architecture.test_architecture import routes_of
from tests.conftest import make_settings

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "rota.json"

FOREIGN = {"up"}  # Prometheus's own
ADDED = {"instance", "job", "le"}  # by Prometheus, or by the format
WORDS = {
    "sum", "max", "min", "by", "on", "and", "or", "rate", "increase", "abs", "count", "absent", "time", "offset",
    "histogram_quantile", "label_values",
}  # fmt: skip


def expressions_of_rules() -> Iterator[str]:
    """Those of the file, by a reading of just its form: an expression is on its line, or in the block below it."""
    lines = RULES.read_text().splitlines()
    for number, line in enumerate(lines):
        if not (found := re.match(r"( +)expr: (.*)", line)):
            continue
        indent, text = len(found.group(1)), found.group(2)
        if text == "|":
            below = lines[number + 1 :]
            end = next(n for n, each in enumerate(below) if len(each) - len(each.lstrip()) <= indent)
            text = " ".join(below[:end])
        yield text


def expressions_of_dashboard() -> Iterator[str]:
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
    yield from (variable["definition"] for variable in board["templating"]["list"] if variable["type"] == "query")


def declared_as(name: str) -> Declared | None:
    """What a name of an expression is of; a histogram shows as three."""
    if (declared := DECLARED.get(name)) and declared.kind is not Kind.HISTOGRAM:
        return declared
    stem, _, suffix = name.rpartition("_")
    declared = DECLARED.get(stem)
    return declared if declared and declared.kind is Kind.HISTOGRAM and suffix in {"bucket", "sum", "count"} else None


def faults(expression: str, values: dict[str, set[str]]) -> list[str]:
    """What an expression names that does not exist."""
    found = []
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"(?:by|on) \(([^)]*)\)", expression))))
    bare = re.sub(r"(?:by|on) \([^)]*\)", " ", expression)
    allowed = set(ADDED)
    for name, selector in re.findall(r"([a-z_:][a-z0-9_:]*)(?:\{([^}]*)\})?", re.sub(r'"[^"]*"(?![^{]*\})', " ", bare)):
        if name in WORDS | FOREIGN or re.fullmatch(r"[smhd]", name) or name == "instance":
            continue
        if (declared := declared_as(name)) is None:
            found.append(f"no metric {name}")
            continue
        allowed |= set(declared.label_names)
        for label, operator, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', selector):
            if label in ADDED:
                continue
            if label not in declared.label_names:
                found.append(f"{name} has no label {label}")
                continue
            known = next(set(each.values or values[label]) for each in declared.labels if each.name == label)
            wanted = value.split("|") if "~" in operator else [value]
            found += [f"{label} is never {one}" for one in wanted if one not in known]
    return found + [f"nothing has the label {label}" for label in sorted(grouped - allowed)]


@pytest.fixture(scope="module")
def values() -> Iterator[dict[str, set[str]]]:
    """What code names: routes and jobs."""
    app = create_app(make_settings("postgresql://nobody@127.0.0.1:1/nowhere"))
    yield {"route": {route.path_format for route in routes_of(app)}, "job_name": {job.name for job in JOBS}}
    app.state.container.hasher.close()


def test_rules_name_what_exists(values: dict[str, set[str]]) -> None:
    """Every metric, label and value of a label in the alert rules."""
    expressions = list(expressions_of_rules())
    assert len(expressions) == RULES.read_text().count("- alert:") >= 20
    assert {text: found for text in expressions if (found := faults(text, values))} == {}


def test_the_dashboard_names_what_exists(values: dict[str, set[str]]) -> None:
    """Every metric, label and value of a label in the dashboard; and each panel has a place of its own."""
    expressions = list(expressions_of_dashboard())
    assert len(expressions) >= 25
    assert {text: found for text in expressions if (found := faults(text, values))} == {}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    taken = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("rate(rota_refreshs_total[5m])", "no metric rota_refreshs_total"),
        ("rota_http_request_seconds", "no metric rota_http_request_seconds"),
        ('rota_refreshes_total{outcome="lost"}', "outcome is never lost"),
        ('rota_refreshes_total{outcome=~"reused|lost"}', "outcome is never lost"),
        ('rota_refreshes_total{user="x"}', "rota_refreshes_total has no label user"),
        ('rota_http_requests_total{route="/refrsh"}', "route is never /refrsh"),
        ("sum by (lane) (rota_ready)", "nothing has the label lane"),
    ],
)
def test_the_comparison_sees_faults(values: dict[str, set[str]], expression: str, fault: str) -> None:
    """Or the two tests above would prove nothing."""
    assert faults(expression, values) == [fault]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_reads_the_rules() -> None:
    """Prometheus itself finds nothing wrong."""
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False)  # noqa: S607
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
