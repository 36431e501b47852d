"""PgBouncer before the tests' database, and what can be seen of who acted behind it."""

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import make_url

PGBOUNCER = Path("/usr/sbin/pgbouncer")
needs_pgbouncer = pytest.mark.skipif(not PGBOUNCER.exists(), reason="needs Debian's pgbouncer")

CONFIGURATION = """
[databases]
* = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
{more}
"""

Pooled = Callable[..., AbstractAsyncContextManager[str]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until(holds: Callable[[], Awaitable[object]], what: str) -> None:
    """Wait for what somebody else is about to do."""
    for _ in range(1500):
        if await holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(what)


async def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture
def pooled(tmp_path: Path) -> Pooled:
    """A PgBouncer before a database; the URL through it."""

    @asynccontextmanager
    async def serve(url: str, *, mode: str = "transaction", size: int = 3, more: str = "") -> AsyncIterator[str]:
        target = make_url(url)
        host = str(target.query.get("host") or target.host)
        port = free_port()
        folder = tmp_path / f"pgbouncer-{port}"
        folder.mkdir()
        server = f"host={host} port={target.port or 5432} user={target.username}"
        if target.password:
            server += f" password={target.password}"
        file = folder / "pgbouncer.ini"
        file.write_text(CONFIGURATION.format(server=server, port=port, mode=mode, size=size, more=more))
        owner = Path(host).owner() if host.startswith("/") else "nobody"  # it never runs as root
        rights = ["-u", owner] if os.geteuid() == 0 else []
        process = subprocess.Popen(
            [str(PGBOUNCER), *rights, str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            await until(lambda: listens(port), "PgBouncer")
            yield f"postgresql://{target.username}@127.0.0.1:{port}/{target.database}"
        finally:
            process.terminate()
            process.wait(20)

    return serve


WITNESS = """
CREATE TABLE witnessed (at text, acting name, login name, isolation text, idle text, statement text);
GRANT INSERT ON witnessed TO PUBLIC;
CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO witnessed VALUES (TG_TABLE_NAME, current_user, session_user, current_setting('transaction_isolation'),
    current_setting('idle_in_transaction_session_timeout'), current_setting('statement_timeout'));
  RETURN NEW;
END
$$;
CREATE TRIGGER witnessed BEFORE INSERT OR UPDATE ON families FOR EACH ROW EXECUTE FUNCTION witness();
CREATE TRIGGER witnessed BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION witness();
CREATE TRIGGER witnessed BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION witness();
CREATE TRIGGER witnessed BEFORE INSERT OR UPDATE ON job_runs FOR EACH ROW EXECUTE FUNCTION witness();
"""


@pytest_asyncio.fixture
async def witnesses(own_sql: asyncpg.Connection) -> asyncpg.Connection:
    """Each write of the product is put down with who acted and what bounded it."""
    await own_sql.execute(WITNESS)
    return own_sql
