"""A connection that the server has ended, found out at every moment of its end."""

import asyncio
import contextlib

import asyncpg
import pytest

from app.container import Container
from app.domain.errors import Unavailable
from tests.conftest import Person

END_ALL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ANY($1)"


async def pids_of(services: Container) -> list[int]:
    """Those of one connection of the lane and one of the pool, kept at hand."""
    database = services.refresh._database
    row = await database.fetch_one("SELECT pg_backend_pid() AS pid")
    async with database.begin() as db:
        other = (await db._db.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one()
    return [row["pid"], other]


async def settled(services: Container) -> int:
    """Ask until what was ended has been thrown away."""
    while True:
        with contextlib.suppress(Unavailable):
            async with services.refresh._database.begin() as db:
                await db.now()
            return len(await services.refresh._database.fetch_one("SELECT 1"))


@pytest.mark.parametrize("turns", [*range(12), 20, 50])
async def test_an_ended_connection_is_trouble_that_passes(
    services: Container, person: Person, sql: asyncpg.Connection, turns: int
) -> None:
    """Whether its last word has been read, its socket been closed, or neither: an answer or `Unavailable`."""
    database = services.refresh._database
    issued = await person.sign_in()
    for _ in range(10):
        await sql.fetch(END_ALL, await pids_of(services))
        for _ in range(turns):
            await asyncio.sleep(0)
        for _ in range(2):
            with contextlib.suppress(Unavailable):
                await services.refresh._rotations.find_liveness(person.user.id, issued.session_id)
            with contextlib.suppress(Unavailable):
                async with database.begin() as db:
                    await db.users.find(person.user.id)
        assert await settled(services) == 1
