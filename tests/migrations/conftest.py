"""Databases that tests migrate themselves, the runner as a process, and a tree with revisions of the tests' own."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import make_url

from app.services.migrations import read_revisions
from tests.postgresql import make_database

ROOT = Path(__file__).parents[2]

ROTA = "from app.cli import main; main()"
PGBOUNCER = Path("/usr/sbin/pgbouncer")

REVISION = '''"""
{title}

Why: a test.
Locks: as the test says.
How long: as long as the test wants.
Back: undoes it.
"""

from alembic import op

revision = "{id}"
down_revision = "{before}"
branch_labels = None
depends_on = None
phase = "{phase}"
oldest_release = "{oldest}"
rewrites = False


def upgrade() -> None:
    {up}


def downgrade() -> None:
    {down}
'''


@dataclass(frozen=True)
class Tree:
    """A copy of the sources whose migrations a test may add to."""

    path: Path
    head: str
    started: list[subprocess.Popen[str]]

    def add(
        self,
        name: str,
        up: str = "pass",
        *,
        before: str | None = None,
        down: str = "pass",
        phase: str = "expand",
        oldest: str = "0.1.0",
    ) -> None:
        file = self.path / "migrations" / "versions" / f"9999_{name}.py"
        made = {"id": name, "before": before or self.head, "up": up, "down": down, "phase": phase, "oldest": oldest}
        file.write_text(REVISION.format(title=f"The test's {name}.", **made))

    def set(self, file: str, former: str, new: str) -> None:
        """Change a constant, so that a test need not wait as long as an operator would."""
        source = (self.path / file).read_text()
        assert former in source
        (self.path / file).write_text(source.replace(former, new))

    def start(self, url: str, *words: str, program: str = ROTA, **environment: str) -> subprocess.Popen[str]:
        """`rota …` on these sources, as a process."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
        process = subprocess.Popen(
            [sys.executable, "-c", program, *words],
            cwd=self.path,
            env={**clean, "PYTHONPATH": str(self.path), "ROTA_DATABASE_URL": url, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    async def rota(self, url: str, *words: str, code: int = 0, **environment: str) -> str:
        """What it says, on both of its outputs; its exit code is as expected."""
        return await ended(self.start(url, *words, **environment), code)


async def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    out, err = await asyncio.to_thread(process.communicate, timeout=120)
    assert process.returncode == code, out + err
    assert "Traceback" not in err, err
    return out + err


@pytest.fixture(scope="session")
def head() -> str:
    return read_revisions()[-1].id


@pytest.fixture
def tree(tmp_path: Path, head: str) -> Iterator[Tree]:
    path = tmp_path / "tree"
    path.mkdir()
    for name in ("app", "migrations"):
        shutil.copytree(ROOT / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", path)
    made = Tree(path, head, [])
    yield made
    for process in made.started:  # those that a failed test has left
        process.kill()
        process.communicate()


@pytest_asyncio.fixture
async def fresh_url(server_url: str) -> str:
    """An empty database."""
    return await make_database(server_url, f"rota_migrations_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}")


@pytest_asyncio.fixture
async def migrated_url(server_url: str, template_url: str) -> str:
    """One that was migrated to the head, and has an empty trail."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    return await make_database(server_url, f"rota_migrated_{worker}", template=f"rota_template_{worker}")


@pytest_asyncio.fixture
async def look(migrated_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the migrated database."""
    connection = await asyncpg.connect(migrated_url)
    yield connection
    await connection.close()


async def until(question: Callable[[], Awaitable[bool]], what: str) -> None:
    """Poll another process's progress, for a minute at most."""
    for _ in range(1200):
        if await question():
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"waited in vain for {what}")


Pooled = Callable[[str, str], AbstractAsyncContextManager[str]]


@pytest.fixture
def pooled(tmp_path: Path) -> Pooled:
    """A PgBouncer before a database, in a mode; the URL through it."""

    @asynccontextmanager
    async def serve(url: str, mode: str) -> AsyncIterator[str]:
        target = make_url(url)
        host = str(target.query.get("host") or target.host)
        folder = tmp_path / mode
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = f"host={host} port={target.port or 5432} user={target.username}"
        if target.password:
            server += f" password={target.password}"
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = {server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
            f"unix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = 5\n"
        )
        owner = Path(host).owner() if host.startswith("/") else "nobody"  # it never runs as root
        rights = ["-u", owner] if os.geteuid() == 0 else []
        words = [str(PGBOUNCER), *rights, str(folder / "pgbouncer.ini")]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        async def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        try:
            await until(listens, "PgBouncer")
            yield f"postgresql://{target.username}@127.0.0.1:{port}/{target.database}"
        finally:
            process.terminate()
            process.wait(20)

    return serve
