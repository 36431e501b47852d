"""What `/metrics` shows: all workers together, closed names and labels, and nothing of anybody."""

import asyncio
import os
import re
import signal
from collections import defaultdict
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from app import __version__
from app.jobs.schedule import JOBS
from app.observability.metrics import DECLARED, NO_ROUTE, Kind
from app.services import facts
from docs import generate_metrics
from tests.architecture.test_architecture import routes_of
from tests.conftest import PASSWORD
from tests.observability.conftest import AS_OPERATOR, OPERATOR, Serve

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: str) -> Samples:
    """All samples, by name and labels, read by the library's own parser."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum over all other labels."""
    return sum(value for (found, pairs), value in samples.items() if found == name and labels.items() <= set(pairs))


async def scrape(http: httpx2.AsyncClient) -> Samples:
    answer = await http.get("/metrics", headers=AS_OPERATOR)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return parse(answer.text)


def check_closed(samples: Samples, routes: set[str]) -> None:
    """Each name is declared, each label too, and each value is of its list or one that code names."""
    named = {
        "route": routes | {NO_ROUTE, "/openapi.json", "/docs", "/docs/oauth2-redirect"},
        "job_name": {job.name for job in JOBS},
        "version": {__version__},
    }
    for name, pairs in samples:
        stem = re.sub(r"_(bucket|count|sum)$", "", name)
        declared = DECLARED[stem if DECLARED.get(stem, DECLARED.get(name)) is DECLARED.get(stem) else name]
        labels = dict(pairs)
        if declared.kind is Kind.HISTOGRAM:
            labels.pop("le", None)
        assert set(labels) == set(declared.label_names), name
        for label in declared.labels:
            if label.name == "revision":
                assert re.fullmatch(r"\d{4}|base", labels["revision"])
            else:
                assert labels[label.name] in (label.values or named[label.name]), (name, labels)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {OPERATOR[:-1]}"},
        {"Authorization": f"Bearer {OPERATOR}x"},
        {"Authorization": f"Basic {OPERATOR}"},
        [("Authorization", f"Bearer {OPERATOR}"), ("Authorization", f"Bearer {OPERATOR}")],
        {"Authorization": "Bearer \u00e9".encode("latin-1")},
    ],
    ids=["none", "empty", "shorter", "longer", "another scheme", "twice", "not ASCII"],
)
async def test_only_the_operator_sees_metrics(asked: httpx2.AsyncClient, headers: httpx2.Headers) -> None:
    """401 with a challenge for everybody else, whatever they present."""
    answer = await asked.get("/metrics", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "rota_" not in answer.text


async def test_without_a_token_set_nobody_is_the_operator(http: httpx2.AsyncClient) -> None:
    """An empty token is not one that an empty header matches."""
    for headers in ({}, {"Authorization": "Bearer "}, AS_OPERATOR):
        assert (await http.get("/metrics", headers=headers)).status_code == 401
        assert (await http.get("/readyz", headers=headers)).json() == {"status": "ok"}


async def test_each_outcome_is_counted_once(asked: httpx2.AsyncClient, operated: FastAPI) -> None:
    """Sign-ins, refreshes and ends by what came of them; events as committed."""
    before = await scrape(asked)
    name = "person-who-is-counted"
    await asked.post("/register", json={"username": name, "password": PASSWORD})
    signed = await asked.post("/token", data={"username": name, "password": PASSWORD})
    await asked.post("/token", data={"username": name, "password": PASSWORD + "!"})
    await asked.post("/token", data={"username": "nobody-at-all", "password": PASSWORD})
    first = signed.json()["refresh_token"]
    second = (await asked.post("/refresh", json={"refresh_token": first})).json()["refresh_token"]
    await asked.post("/refresh", json={"refresh_token": first})  # within the grace
    third = (await asked.post("/refresh", json={"refresh_token": second})).json()["refresh_token"]
    assert (await asked.post("/refresh", json={"refresh_token": first})).status_code == 401
    assert (await asked.post("/refresh", json={"refresh_token": third})).status_code == 401
    await asked.post("/refresh", json={"refresh_token": "rota_rt_" + "A" * 134})
    await asked.get("/no/such/path/01a20000-0000-7000-8000-000000000000")
    after = await scrape(asked)

    def grown(metric: str, **labels: str) -> float:
        return total(after, metric, **labels) - total(before, metric, **labels)

    outcomes: tuple[str, ...] = ("rotated", "replayed", "reused", "ended", "noise")
    assert [grown("rota_refreshes_total", outcome=outcome) for outcome in outcomes] == [2, 1, 1, 1, 1]
    outcomes = ("opened", "wrong_password", "unknown_user")
    assert [grown("rota_sign_ins_total", outcome=outcome) for outcome in outcomes] == [1, 1, 1]
    assert grown("rota_sessions_ended_total", reason="reuse") == 1
    assert grown("rota_events_written_total", action="session.refreshed") == 2
    assert grown("rota_events_written_total", action="refresh.reused") == 1
    assert grown("rota_http_requests_total", method="POST", route="/refresh", status="2xx") == 3
    assert grown("rota_http_requests_total", method="POST", route="/refresh", status="4xx") == 3
    assert grown("rota_http_requests_total", method="GET", route="none", status="4xx") == 1
    assert grown("rota_http_request_seconds_count", route="/refresh") == 6
    assert grown("rota_password_hash_wait_seconds_count") == 4
    check_closed(after, {route.path_format for route in routes_of(operated)})


async def test_what_was_rolled_back_is_not_counted(asked: httpx2.AsyncClient, operated: FastAPI) -> None:
    """An event that never was is none."""
    before = await scrape(asked)
    await operated.state.container.housekeeping.check_writable()
    after = await scrape(asked)
    heartbeats = [total(s, "rota_events_written_total", action="audit.heartbeat") for s in (before, after)]
    assert heartbeats[0] == heartbeats[1]


async def test_a_database_that_is_away(asked: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics are there all the same: up is 0, not ready, and no old number is told as a new one."""
    monkeypatch.setattr(facts, "KEPT_SECONDS", 0.0)
    assert total(await scrape(asked), "rota_database_up") == 1

    async def away(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr("app.repositories.database.UnitOfWork.__aenter__", away)
    samples = await scrape(asked)
    assert total(samples, "rota_database_up") == 0
    assert "rota_sealing_lag_seconds" not in {name for name, _ in samples}
    assert total(samples, "rota_http_requests_total") > 0


async def test_two_workers_count_together(serve: Serve, tmp_path: Path, operated: FastAPI) -> None:
    """
    Whichever worker is asked, the answer is of both, and no id, name, address or token is in it.

    A worker that is killed takes its gauges with it, and not its counts. The directory is gone with the server.
    """
    routes = {route.path_format for route in routes_of(operated)}
    place = tmp_path / "counts"
    place.mkdir()
    left = place / "rota-metrics-left"  # by a server that was killed: nobody holds its lock
    left.mkdir()
    (left / "server.lock").touch()
    served = await serve(2, ROTA_METRICS_DIRECTORY=str(place))
    assert not left.exists()
    name = "person-of-two-workers"
    secrets: set[str] = {name, PASSWORD, "127.0.0.1", OPERATOR}

    async def visit(number: int) -> None:
        # A connection of its own each: the kernel gives them to either worker.
        async with httpx2.AsyncClient(base_url=served.url, timeout=60) as http:
            answer = await http.post("/token", data={"username": name, "password": PASSWORD})
            pair = answer.json()
            refreshed = await http.post("/refresh", json={"refresh_token": pair["refresh_token"]})
            secrets.update((pair["refresh_token"], pair["access_token"], refreshed.json()["refresh_token"]))
            sessions = await http.get("/sessions", headers={"Authorization": f"Bearer {pair['access_token']}"})
            secrets.update(session["id"] for session in sessions.json()["items"])
            await http.get(f"/sessions/{sessions.json()['items'][0]['id']}?probe={number}")

    async with httpx2.AsyncClient(base_url=served.url, timeout=60) as http:
        created = await http.post("/register", json={"username": name, "password": PASSWORD})
        secrets.add(created.json()["id"])
    await asyncio.gather(*(visit(number) for number in range(12)))
    seen: dict[str, set[float]] = defaultdict(set)
    for _ in range(8):
        async with httpx2.AsyncClient(base_url=served.url, timeout=60) as http:
            text = (await http.get("/metrics", headers=AS_OPERATOR)).text
        samples = parse(text)
        seen["opened"].add(total(samples, "rota_sign_ins_total", outcome="opened"))
        seen["rotated"].add(total(samples, "rota_refreshes_total", outcome="rotated"))
        seen["posts"].add(total(samples, "rota_http_requests_total", route="/refresh", status="2xx"))
        seen["buckets"].add(total(samples, "rota_http_request_seconds_bucket", route="/refresh", le="+Inf"))
        seen["processes"].add(total(samples, "rota_processes"))
        seen["limit"].add(total(samples, "rota_database_connections_limit", lane="units"))
        assert not [secret for secret in secrets if secret in text]
        assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", text)
        check_closed(samples, routes)
    assert seen == {
        "opened": {12}, "rotated": {12}, "posts": {12}, "buckets": {12}, "processes": {2}, "limit": {8},
    }  # fmt: skip
    files = {int(file.stem.rpartition("_")[2]) for file in place.glob("rota-metrics-*/counter_*.db")}
    assert len(files) == 2  # both have served, or started to
    os.kill(files.pop(), signal.SIGKILL)
    for _ in range(300):
        async with httpx2.AsyncClient(base_url=served.url, timeout=60) as http:
            samples = await scrape(http)
        if len(list(place.glob("rota-metrics-*/counter_*.db"))) == 3 and total(samples, "rota_processes") == 2:
            break
        await asyncio.sleep(0.1)
    assert total(samples, "rota_processes") == 2
    assert total(samples, "rota_sign_ins_total", outcome="opened") == 12
    served.stop()
    assert not list(place.glob("rota-metrics-*"))


def test_the_page_is_made_from_the_module() -> None:
    """`make docs` was run."""
    assert generate_metrics.TARGET.read_text() == generate_metrics.page()


def test_every_metric_is_counted_somewhere() -> None:
    """No declaration is dead."""
    source = Path("app/observability/metrics.py").read_text()
    names = re.findall(r"^([A-Z_]+): Final = (?:Counter|Gauge|Histogram|_fact)\(", source, re.MULTILINE)
    others = "".join(path.read_text() for path in Path("app").rglob("*.py") if path.name != "metrics.py")
    assert len(names) == len(DECLARED)
    assert [name for name in names if not re.search(rf"\b{name}\b", others)] == []
