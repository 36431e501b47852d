"""Server processes in process groups of their own, and connections on which a test says every byte itself."""

import asyncio
import contextlib
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import pytest

from app import __version__
from app.services.migrations import read_revisions
from tests.cli.test_cli import free_port
from tests.conftest import SECRET
from tests.migrations.conftest import Tree

ROOT = Path(__file__).parents[2]
ROTA = "from app.cli import main; main()"
EXAMPLE = ROOT / "deploy" / "nginx" / "nginx.conf"
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
NEXT = "99.0.0"  # a release that comes after this one
WHOLE_SECONDS = 20  # what a stop may take, whatever happens


@dataclass
class Served:
    """A `rota serve`, leader of its own process group."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, sig: signal.Signals, *, group: bool = False) -> None:
        if group:
            os.killpg(self.process.pid, sig)
        else:
            self.process.send_signal(sig)

    async def ended(self) -> int:
        """The exit code, which comes within the time that is promised."""
        return await asyncio.to_thread(self.process.wait, WHOLE_SECONDS)

    @property
    def group(self) -> list[int]:
        """The processes of its group that are alive."""
        found = []
        for file in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, group = file.read_text().rpartition(") ")[2].split()[:3]
                if int(group) == self.process.pid and state != "Z":
                    found.append(int(file.parent.name))
        return found

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        for _ in range(600):
            if condition():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"waited in vain for {what}: {self.log.read_text()}")

    async def until_logged(self, text: str, count: int = 1) -> None:
        await self.until(lambda: self.log.read_text().count(text) >= count, text)

    async def until_it_refuses(self) -> None:
        """Until nobody can connect any more."""
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == errno.ECONNREFUSED:
                    return
            await asyncio.sleep(0.02)
        raise AssertionError("it still listens")


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Start server processes, perhaps of another tree; what is left of them at the end of the test is killed."""
    started: list[Served] = []

    async def start(
        database_url: str,
        *words: str,
        port: int | None = None,
        tree: Path = ROOT,
        ready: bool = True,
        **settings: str,
    ) -> Served:
        port = port or free_port()
        log = tmp_path / f"log-{len(started)}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
        environment = {**clean, "PYTHONPATH": str(tree), "ROTA_DATABASE_URL": database_url, "ROTA_SECRETS": SECRET}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", ROTA, "serve", "--port", str(port), *words],
                env={**environment, **settings},
                stdout=output,
                stderr=output,
                cwd=tree,
                start_new_session=True,
            )
        served = Served(process, port, log)
        started.append(served)
        if ready:
            await until_ready(served)
        return served

    yield start
    for served in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(served.process.pid, signal.SIGKILL)
        served.process.wait(20)


async def until_ready(served: Served) -> None:
    async with httpx2.AsyncClient(base_url=served.url) as http:
        for _ in range(600):
            assert served.process.poll() is None, served.log.read_text()
            with contextlib.suppress(httpx2.TransportError):
                if (await http.get("/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)
    raise AssertionError(served.log.read_text())


@dataclass
class Line:
    """One connection to a server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def to(cls, port: int) -> "Line":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def say(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    async def hear(self) -> tuple[int, str, bytes]:
        """Status, head and body of the next answer."""
        async with asyncio.timeout(30):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = re.search(r"content-length: (\d+)", head)
            assert length is not None, head
            return int(head[9:12]), head, await self.reader.readexactly(int(length[1]))

    async def ask(self, head: bytes, body: bytes = b"") -> tuple[int, str, bytes]:
        self.say(head, body)
        return await self.hear()

    async def end(self) -> bytes:
        """What comes until the server closes it."""
        async with asyncio.timeout(30):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


Connect = Callable[[int], Awaitable[Line]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """A connection to a port of this machine; all of them are closed at the end of the test."""
    lines: list[Line] = []

    async def to(port: int) -> Line:
        lines.append(await Line.to(port))
        return lines[-1]

    yield to
    for line in lines:
        await line.close()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: rota\r\n\r\n".encode()


def form(path: str, **fields: str) -> tuple[bytes, bytes]:
    """Head and body of a form."""
    body = urlencode(fields).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: rota\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode(), body


@pytest.fixture
def release(tmp_path: Path) -> Iterator[Tree]:
    """
    The sources of a next release: another version, and to this one's schema a column and an index that it adds while
    this one still serves, and what it takes away afterwards.
    """
    path = tmp_path / "release"
    path.mkdir()
    for name in ("app", "migrations"):
        shutil.copytree(ROOT / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", path)
    tree = Tree(path, read_revisions()[-1].id, [])
    tree.set("app/__init__.py", f'__version__ = "{__version__}"', f'__version__ = "{NEXT}"')
    tree.add("column", 'op.execute("ALTER TABLE families ADD COLUMN note text")')
    index = "CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_families_device ON families (device)"
    tree.add("index", f'with op.get_context().autocommit_block():\n        op.execute("{index}")', before="column")
    drop = 'op.execute("ALTER TABLE families DROP COLUMN note")'
    tree.add("drop", drop, before="index", phase="contract", oldest=NEXT)
    yield tree
    for process in tree.started:  # those that a failed test has left
        process.kill()
        process.communicate()


@contextmanager
def nginx(ports: tuple[int, int], folder: Path) -> Iterator[int]:
    """The example of `deploy/nginx` before two servers, as a user without any rights; its port."""
    port = free_port()
    text = EXAMPLE.read_text()
    for old, new in ((8001, ports[0]), (8002, ports[1]), (8080, port)):
        assert text.count(f"127.0.0.1:{old}") == 1
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
    (folder / "nginx.conf").write_text(text)
    who: str | None = None
    if os.geteuid() == 0:
        who = "nobody"
        shutil.chown(folder, who)
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"], user=who)
    try:
        while not _listens(port):
            assert process.poll() is None, "nginx did not start"
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
