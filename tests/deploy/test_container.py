"""What the product does because it runs as a container: the health check, and signals to a first process."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from app.observability.alive import find_trouble

FIRST = "import sys; from app.cli import main; sys.argv[0] = 'rota'; main()"


class Answering(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/livez" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def server(status: int) -> Iterator[int]:
    """A server whose `/livez` answers with that status; its port."""
    with HTTPServer(("127.0.0.1", 0), type("Handler", (Answering,), {"status": status})) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield listening.server_port
        finally:
            listening.shutdown()
            thread.join()


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - as the container sets it
def test_a_server_that_answers_is_healthy(host: str) -> None:
    """Also where it listens on all addresses, which is none to connect to."""
    with server(200) as port:
        assert find_trouble({"ROTA_HOST": host, "ROTA_PORT": str(port)}) is None


def test_a_server_that_answers_otherwise_or_not_at_all_is_not() -> None:
    """Each says what it is, and none is an exception: an engine keeps the line."""
    with server(503) as port:
        assert find_trouble({"ROTA_PORT": str(port)}) == f"127.0.0.1 port {port} answers 503"
    gone = closed_port()
    assert find_trouble({"ROTA_PORT": str(gone)}) == f"no answer from 127.0.0.1 port {gone} (ConnectionRefusedError)"
    assert find_trouble({"ROTA_PORT": "x"}) == "no answer from 127.0.0.1 port x (ValueError)"
    with socket.create_server(("127.0.0.1", 0)) as rude:
        port = rude.getsockname()[1]
        hanging_up = threading.Thread(target=hang_up, args=(rude,))
        hanging_up.start()
        assert (find_trouble({"ROTA_PORT": str(port)}) or "").startswith("no answer from")
        hanging_up.join()


def hang_up(listening: socket.socket) -> None:
    listening.accept()[0].close()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_check_is_a_program(status: int, code: int) -> None:
    """Exit code 0 or 1, as engines want it, without a setting but those two."""
    with server(status) as port:
        environment = {"ROTA_PORT": str(port), "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "app.observability.alive"]
        assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode == code


UNSHARE = shutil.which("unshare") or ""


def may_be_first() -> bool:
    command = [UNSHARE, "--pid", "--fork", "true"]
    return bool(UNSHARE) and subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not may_be_first(), reason="needs a process namespace of its own")
def test_a_first_process_ends_by_sigterm() -> None:
    """The kernel keeps signals without a handler from a container's first process; ours ends, and not as if done."""
    environment = {**os.environ, "ROTA_DATABASE_URL": f"postgresql://nobody@127.0.0.1:{closed_port()}/nowhere"}
    command = [UNSHARE, "--pid", "--fork", "--kill-child", sys.executable, "-c", FIRST]
    with subprocess.Popen([*command, "db", "wait", "--timeout", "60"], env=environment) as outer:
        try:
            first = find_handling(outer, signal.SIGTERM)
            os.kill(first, signal.SIGTERM)
            assert outer.wait(30) == 128 + signal.SIGTERM
        finally:
            outer.kill()


def find_handling(outer: subprocess.Popen[bytes], number: signal.Signals) -> int:
    """The only child of a process, once it has a handler for a signal."""
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    while outer.poll() is None:
        found = children.read_text().split()
        if found and handles(int(found[0]), number):
            return int(found[0])
        with contextlib.suppress(subprocess.TimeoutExpired):
            outer.wait(0.05)
    raise AssertionError(f"ended by itself with {outer.returncode}")


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(lines["SigCgt"], 16) >> (number - 1) & 1)
