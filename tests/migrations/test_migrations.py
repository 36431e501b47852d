"""Up, down, up, with data; the models are what the migrations make."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest_asyncio

from app.container import Container
from tests.conftest import PASSWORD, client_at, make_settings
from tests.postgresql import make_database

ROOT = Path(__file__).parents[2]


def alembic(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The plain command, with the plain configuration."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
    return subprocess.run(
        [str(Path(sys.executable).with_name("alembic")), *words],
        cwd=ROOT,
        env={**environment, **({"ROTA_DATABASE_URL": url} if url else {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest_asyncio.fixture
async def fresh_url(server_url: str) -> str:
    return await make_database(server_url, f"rota_migrations_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}")


async def run(url: str, *words: str) -> str:
    done = await asyncio.to_thread(alembic, url, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def use(url: str) -> None:
    """Live a little on a schema: register, sign in, refresh, log out."""
    services = Container.build(make_settings(url))
    try:
        await services.users.register("somebody", PASSWORD, client=client_at())
        issued = await services.sign_in.with_password("somebody", PASSWORD, client=client_at())
        issued = await services.refresh.rotate(issued.refresh_token, idempotency_key=None, client=client_at())
        await services.sessions.log_out_with_refresh_token(issued.refresh_token, client=client_at())
    finally:
        await services.close()


async def test_up_check_down_up_with_data(fresh_url: str) -> None:
    """Each revision goes up, down and up again; the schema serves; the way down leaves nothing behind."""
    await run(fresh_url, "upgrade", "head")
    await run(fresh_url, "check")
    await use(fresh_url)
    revisions = [line.split()[0] for line in (await run(fresh_url, "history", "-r", "base:head")).splitlines() if line]
    for _ in revisions:
        await run(fresh_url, "downgrade", "-1")
    connection = await asyncpg.connect(fresh_url)
    left = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r','p','S','i')"
        " AND relname NOT LIKE 'alembic%'"
    )
    functions = await connection.fetch("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
    await connection.close()
    assert (left, functions) == ([], [])
    for _ in revisions:
        await run(fresh_url, "upgrade", "+1")
    await run(fresh_url, "check")
    await use(fresh_url)


async def test_stairway(fresh_url: str) -> None:
    """Every single step: up, down, up."""
    heads = (await run(fresh_url, "heads")).split()
    assert heads[1:] == ["(head)"], "there is one head"
    revisions = [line for line in (await run(fresh_url, "history", "-r", "base:head")).splitlines() if line]
    for _ in revisions:
        await run(fresh_url, "upgrade", "+1")
        await run(fresh_url, "downgrade", "-1")
        await run(fresh_url, "upgrade", "+1")


async def test_the_statements_can_be_printed_and_used(fresh_url: str) -> None:
    """`--sql` connects to nothing, and what it prints makes the schema that serves."""
    printed = await run("", "upgrade", "head", "--sql")
    connection = await asyncpg.connect(fresh_url)
    await connection.execute(printed)
    await connection.close()
    await run(fresh_url, "check")
    await use(fresh_url)


async def test_without_a_database_it_says_what_is_missing() -> None:
    """One line that names the variable."""
    done = await asyncio.to_thread(alembic, "", "upgrade", "head")
    assert done.returncode != 0
    assert "ROTA_DATABASE_URL" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


async def test_partitions_reach_ninety_days_ahead(sql: asyncpg.Connection) -> None:
    """The first migration already made them."""
    bound = await sql.fetchval(
        "SELECT max(pg_get_expr(relpartbound, oid)) FROM pg_class WHERE relname LIKE 'audit_events_2%'"
    )
    ahead = await sql.fetchval("SELECT to_char(statement_timestamp() + interval '90 days', 'YYYY-MM')")
    assert bound.split("TO ('")[1] > ahead
    assert await sql.fetchval("SELECT count(*) FROM pg_partitioned_table WHERE partdefid <> 0") == 0
