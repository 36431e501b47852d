"""The revision that makes the outbox: there and back with what is in use."""

import asyncpg
import pytest

from tests.migrations.conftest import fresh_url
from tests.migrations.test_migrations import run

__all__ = ["fresh_url"]

CLIENT = """
INSERT INTO api_clients (id, client_id, name, scopes, grants, session_scopes, first_party, public, created_at)
VALUES (gen_random_uuid(), 'mailer', 'the mailer', $1, '{client_credentials}', '{}', false, false, now())
"""


async def test_the_way_back_takes_the_scope_from_clients(fresh_url: str) -> None:
    """A client with other scopes keeps those; the former release would refuse to read the new one."""
    await run(fresh_url, "upgrade", "0016")
    sql = await asyncpg.connect(fresh_url)
    try:
        await sql.execute(CLIENT, ["revocations", "notifications"])
        await run(fresh_url, "downgrade", "0016-1")
        assert await sql.fetchval("SELECT scopes FROM api_clients") == ["revocations"]
        with pytest.raises(asyncpg.CheckViolationError):
            await sql.execute("UPDATE api_clients SET scopes = '{notifications}'")
        await run(fresh_url, "upgrade", "0016")
        await sql.execute("UPDATE api_clients SET scopes = '{revocations,notifications}'")
        assert await sql.fetchval("SELECT convalidated FROM pg_constraint WHERE conname = 'ck_api_clients_scopes'")
    finally:
        await sql.close()
