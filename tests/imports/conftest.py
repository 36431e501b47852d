"""Files of users, and `rota users` over a database of the test's own."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from app.cli.exits import Exit
from app.container import Container
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.user_imports import ImportFormat
from app.services.user_imports import Brought
from tests.cli.test_cli import ROTA, environment
from tests.conftest import SECRET, MakeServices, OwnDatabase

# Of "correct horse battery staple", by passlib.
BCRYPT = "$2b$04$q3rBhp3u4fVn0Vq0uJ1qVOlSeF9N7wzDPMgv6f9fMZtqGZQ6Pp5Uy"
HASH = "$pbkdf2-sha256$1000$c2FsdHNhbHRzYWx0$0Zl5uUGHdRc4tSKg9dcyjY4a5uJ1gIZ0sHNQKkqB8oM"

Rota = Callable[..., Any]
Bring = Callable[..., Any]


def settings_of(own: OwnDatabase) -> dict[str, str]:
    return environment(ROTA_DATABASE_URL=own.app, ROTA_MAINTENANCE_DATABASE_URL=own.maintenance, ROTA_SECRETS=SECRET)


@pytest.fixture
def rota(own: OwnDatabase) -> Rota:
    """Run `rota users …`; its process, or what it prints as JSON."""

    async def run(*words: str | Path, code: Exit = Exit.OK) -> Any:
        done = await asyncio.to_thread(
            subprocess.run,
            [ROTA, "users", *map(str, words)],
            env=settings_of(own),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout) if "--json" in words else done

    return run


@pytest_asyncio.fixture
async def services_of_own(own: OwnDatabase, make_services: MakeServices) -> AsyncIterator[Container]:
    yield make_services(url=own.app)


@pytest.fixture
def bring(services_of_own: Container) -> Bring:
    """Import a file by the service itself."""

    async def run(file: Path, services: Container = services_of_own, **options: Any) -> Brought:
        form: ImportFormat | None = options.pop("form", None)
        return await services.user_imports.bring(file, form, actor=SYSTEM, client=NO_CLIENT, **options)

    return run


def faults_of(brought: Brought) -> list[tuple[int, str, str]]:
    assert brought.checked is not None
    return [(fault.line, fault.field.value, fault.reason.value) for fault in brought.checked.faults]


def csv_of(path: Path, rows: Sequence[Sequence[str]], heading: str = "username,password_hash,role,disabled") -> Path:
    path.write_text("".join(f"{line}\r\n" for line in (heading, *(",".join(row) for row in rows))), newline="")
    return path


def many(path: Path, count: int, *, prefix: str = "person") -> Path:
    """A file of so many users; every tenth is disabled, every hundredth an administrator."""
    rows = [
        [f"{prefix}-{n}", HASH, "admin" if n % 100 == 0 else "user", "true" if n % 10 == 0 else "false"]
        for n in range(1, count + 1)
    ]
    return csv_of(path, rows)


async def count_users(sql: asyncpg.Connection) -> int:
    found: int = await sql.fetchval("SELECT count(*) FROM users")
    return found
