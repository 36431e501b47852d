"""The command line as its users see it: processes, output, exit codes; and the README's commands."""

import asyncio
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest

from app.cli.exits import Exit
from app.settings import Settings, variable
from tests.conftest import SECRET, MakePerson, MakeServices

ROOT = Path(__file__).parents[2]
ROTA = str(Path(sys.executable).with_name("rota"))
README = (ROOT / "README.md").read_text()


def environment(**more: str) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}, **more}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(words: list[str], port: int, log: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that serves on the port, its output in the log."""
    with log.open("wb") as output:
        process = subprocess.Popen(words, env=environment(**more), stdout=output, stderr=output, cwd=ROOT)
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
                    break
                except (urllib.error.URLError, ConnectionError):
                    assert process.poll() is None, log.read_text()
                    time.sleep(0.1)
            else:
                pytest.fail(log.read_text())
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(20)


def shell(script: str) -> str:
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)  # noqa: S607
    return done.stdout


def block(language: str) -> str:
    """A code block of the README."""
    found = re.search(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found, language
    return found.group(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dev")


def test_dev_from_nothing_and_again(folder: Path) -> None:
    """Database, admin, three curl commands that work as printed, a clean end; the second start keeps it all."""
    log, data, port = folder / "log", folder / "data", free_port()
    words = [ROTA, "dev", "--port", str(port), "--data-dir", str(data)]
    for start in range(2):
        with running(words, port, log) as process:
            said = log.read_text()
            assert ("First admin: admin" in said) == (start == 0)
            assert f"http://127.0.0.1:{port}/docs" in said
            log_in, refresh, log_out = (
                json.loads(shell(line)) for line in said.splitlines() if line.startswith("curl")
            )
            assert log_in["refresh_token"] != refresh["refresh_token"]
            assert log_out["ended"] is True
            if start == 0:
                _walk_through(port)
                _prove_it(data, folder)
            process.send_signal(signal.SIGINT if start == 0 else signal.SIGTERM)
            process.wait(20)
        assert process.returncode in {0, 128 + signal.SIGTERM}
        assert not (data / "postgresql" / "postmaster.pid").exists()
        assert "Traceback" not in log.read_text()
    for name in ("secrets", "admin-password", "tokens.json"):
        assert (data / name).stat().st_mode & 0o077 == 0


def _walk_through(port: int) -> None:
    """The README's walkthrough and its verification snippet, on this server."""
    lines = shell(block("sh walkthrough").replace("127.0.0.1:8000", f"127.0.0.1:{port}")).splitlines()
    registered, thief, owner, dead, events, logout = map(json.loads, lines)
    assert registered["username"] == "ada"
    assert (thief["code"], owner["code"]) == ("refresh_token_rejected", "refresh_token_rejected")
    assert dead["code"] == "access_token_rejected"
    by_action = {event["action"]: event for event in events["items"]}  # the oldest of a kind stays
    assert by_action["refresh.reused"]["user_agent"] == "thief"
    assert by_action["refresh.reused"]["detail"]["rotation_event"] == by_action["session.refreshed"]["id"]
    assert logout["message"] == "Logged out successfully"
    password = "password=correct horse battery staple"
    tokens = shell(f"curl -sS 127.0.0.1:{port}/token -d username=ada --data-urlencode '{password}'")
    space: dict[str, Any] = {}
    snippet = block("python verification").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    exec(snippet, space)  # noqa: S102 - our own README
    assert space["verify"](json.loads(tokens)["access_token"])["roles"] == ["user"]
    with pytest.raises(jwt.InvalidTokenError):
        space["verify"](json.loads(tokens)["access_token"][:-8] + "AAAAAAAA")


def _prove_it(data: Path, folder: Path) -> None:
    """The README's part for auditors, as printed."""
    script = block("sh audit").replace(".rota/", f"{data}/")
    for name in ("event.tlog-proof", "bundle"):
        script = re.sub(rf"(?<![\w/-]){re.escape(name)}(?![\w-])", str(folder / name), script)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = ["bash", "-euo", "pipefail", "-c", script]
    for _ in range(20):  # what is a moment old may not be signed yet
        done = subprocess.run(words, env=environment(PATH=path), cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != Exit.TRY_AGAIN:
            break
        time.sleep(0.5)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("verified") == 3
    assert "0 differences" in done.stdout


def test_dev_says_so_when_the_port_is_taken(folder: Path) -> None:
    """One sentence, no traceback, nothing left running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = [ROTA, "dev", "--port", str(taken.getsockname()[1]), "--data-dir", str(folder / "data")]
        done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Cannot listen" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "data" / "postgresql" / "postmaster.pid").exists()


@pytest.mark.parametrize(
    ("words", "more", "code", "says"),
    [
        pytest.param(["serve"], {"ROTA_DATABASE_URL": "postgresql://x/y"}, 2, "ROTA_SECRETS", id="no secret"),
        pytest.param(["serve"], {"ROTA_SECRETS": SECRET}, 2, "ROTA_DATABASE_URL", id="no database"),
        pytest.param(["serve"], {"ROTA_SECRET": SECRET}, 2, "ROTA_SECRETS", id="misspelt"),
        pytest.param(["serve", "--workers", "0"], {}, 2, "--workers", id="no workers"),
        pytest.param(["nonsense"], {}, 2, "nonsense", id="no such command"),
        pytest.param(
            ["users", "disable", "x"],
            {"ROTA_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x", "ROTA_SECRETS": SECRET},
            75,
            "try again",
            id="database away",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words: list[str], more: dict[str, str], code: int, says: str) -> None:
    """And an exit code that says of what kind it is."""
    done = subprocess.run(
        [ROTA, *words], env=environment(**more), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert done.stdout == ""
    assert SECRET not in done.stderr
    assert "Traceback" not in done.stderr


async def test_serve_with_two_workers(
    database_url: str, tmp_path: Path, make_services: MakeServices, make_person: MakePerson
) -> None:
    """One token, many times at once, through two processes: one successor; JSON lines, nothing secret on them."""
    person = await make_person(make_services())
    issued = await person.sign_in()
    port, log = free_port(), tmp_path / "log"
    words = [ROTA, "serve", "--port", str(port), "--workers", "2"]
    settings = {"ROTA_DATABASE_URL": database_url, "ROTA_SECRETS": SECRET}

    def refresh(_: int) -> str:
        body = f"refresh_token={issued.refresh_token}".encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/refresh", body, timeout=20) as answer:
            token: str = json.load(answer)["refresh_token"]
            return token

    def storm() -> set[str]:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - beside its only use

        with running(words, port, log, **settings), ThreadPoolExecutor(32) as threads:
            return set(threads.map(refresh, range(64)))

    successors = await asyncio.to_thread(storm)
    assert len(successors) == 1
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(line["event"] == "session.refreshed" and line["request_id"] for line in lines)
    for secret in (issued.refresh_token, *successors, SECRET):
        assert secret not in log.read_text()


def test_users(database_url: str) -> None:
    """Create, disable, enable; data on standard output, and the exit codes."""
    settings = environment(ROTA_DATABASE_URL=database_url, ROTA_SECRETS=SECRET)

    def rota(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROTA, "users", *words], env=settings, capture_output=True, text=True, timeout=60, check=False
        )

    name = f"cli-{secrets.token_hex(6)}"
    created = rota("create", name, "--role", "auditor", "--json")
    assert created.returncode == 0, created.stderr
    assert json.loads(created.stdout)["role"] == "auditor"
    assert json.loads(created.stdout)["one_time_password"] not in created.stderr
    assert rota("create", name).returncode == 4
    disabled = json.loads(rota("disable", name, "--json").stdout)
    assert (disabled["username"], disabled["changed"], disabled["sessions_ended"]) == (name, True, 0)
    assert "is enabled" in rota("enable", name).stdout
    assert "was not disabled" in rota("enable", name).stdout
    assert rota("disable", f"{name}-2").returncode == 3


def test_the_readme_lists_the_settings() -> None:
    """Each setting with its default, and no other."""
    rows = [line.split("|")[1:3] for line in README.splitlines() if line.startswith("| `ROTA_")]
    listed = {
        name: default.strip(" `")
        for names, defaults in rows
        for name, default in zip(re.findall(r"ROTA_\w+", names), defaults.split(","), strict=True)
    }
    fields = {
        variable(name): "" if field.is_required() or name == "secrets" else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert listed == fields


def test_the_readme_lists_the_tasks() -> None:
    """`make help` knows every task that the README names."""
    known = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S607
    for task in re.findall(r"`?make (\w+)`?", README):
        if task != "help":
            assert f"make {task}" in known
