"""The network takes our answer away: the same token again, and nobody is signed out."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import asyncpg
import pytest

from app.domain.errors import Unavailable
from tests.conftest import Events, MakePerson, MakeServices, client_at

KEY = "a-key-of-twenty-two-characters-or-more"


class Wire:
    """A proxy before the database that can be told to cut."""

    def __init__(self) -> None:
        self.cut_answers = False  # forward what is asked, answer nothing and hang up
        self.cut_questions = False  # hang up before anything is forwarded
        self.cuts = 0

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self.cut_answers if answers else self.cut_questions:
                    self.cuts += 1
                    break
                writer.write(data)
        writer.close()


@asynccontextmanager
async def wired(database_url: str) -> AsyncIterator[tuple[str, Wire]]:
    """The database's URL through a wire."""
    wire, tasks = Wire(), set[asyncio.Task[None]]()
    parts = urlsplit(database_url)
    folder = parse_qs(parts.query).get("host", [None])[0]

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if folder:
            there_reader, there_writer = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")
        else:
            there_reader, there_writer = await asyncio.open_connection(parts.hostname, parts.port or 5432)
        for one in (wire.pump(reader, there_writer, answers=False), wire.pump(there_reader, writer, answers=True)):
            task = asyncio.create_task(one)
            tasks.add(task)
            for end in (writer, there_writer):
                task.add_done_callback(lambda _, end=end: end.close())  # type: ignore[misc]

    with tempfile.TemporaryDirectory(prefix="rota-wire-") as place:
        path = Path(place) / ".s.PGSQL.5432"
        server = await asyncio.start_unix_server(connect, path)
        user = f"{parts.username or ''}{':' + parts.password if parts.password else ''}"
        try:
            yield f"postgresql://{user}@{parts.path}?host={place}", wire
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.case(10)
@pytest.mark.parametrize("key", [None, KEY], ids=["grace", "idempotency key"])
async def test_connection_cut_after_the_commit(
    make_services: MakeServices, make_person: MakePerson, database_url: str, events_of: Events, key: str | None
) -> None:
    """The rotation is stored, its answer lost: the retry gets the successor, and it is no reuse."""
    async with wired(database_url) as (url, wire):
        services = make_services(url=url)
        person = await make_person(services)
        issued = await person.sign_in()
        issued = await person.refresh(issued.refresh_token)  # so that the statement is prepared
        wire.cut_answers = True
        with pytest.raises(Unavailable):
            await person.refresh(issued.refresh_token, key)
        assert wire.cuts > 0
        wire.cut_answers = False
        await _until_refreshed(events_of, person.user.id, times=2)
        following = await person.refresh(issued.refresh_token, key)
        assert (await person.refresh(following.refresh_token)).session_id == issued.session_id
        actions = [event["action"] for event in await events_of(person.user.id)]
        assert actions.count("session.refreshed") == 3
        assert actions.count("session.replayed") == 1
        assert "refresh.reused" not in actions


@pytest.mark.case(11)
async def test_connection_cut_before_the_statement(
    make_services: MakeServices, make_person: MakePerson, database_url: str, events_of: Events, sql: asyncpg.Connection
) -> None:
    """Nothing reached the database: nothing changed, and the token still is the live one."""
    async with wired(database_url) as (url, wire):
        services = make_services(url=url)
        person = await make_person(services)
        issued = await person.sign_in()
        wire.cut_questions = True
        with pytest.raises(Unavailable):
            await person.refresh(issued.refresh_token)
        wire.cut_questions = False
        assert await sql.fetchval("SELECT generation FROM families WHERE id = $1", issued.session_id) == 0
        await person.refresh(issued.refresh_token)
        actions = [event["action"] for event in await events_of(person.user.id)]
        assert actions.count("session.refreshed") == 1


async def test_a_restarted_database_costs_nobody_an_error(
    make_services: MakeServices, make_person: MakePerson, sql: asyncpg.Connection
) -> None:
    """All pooled connections are dead: they are replaced before use, on the hot path too."""
    services = make_services()
    person = await make_person(services)
    issued = await person.sign_in()
    issued = await person.refresh(issued.refresh_token)
    await sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'rota' AND datname = current_database()"
    )
    await asyncio.sleep(0.2)
    issued = await person.refresh(issued.refresh_token)
    await person.sign_in()


async def test_a_client_that_leaves_amid_the_statement(
    make_services: MakeServices, make_person: MakePerson, database_url: str, sql: asyncpg.Connection
) -> None:
    """Cancelled while the row is locked by somebody: afterwards the token rotates once and no connection is lost."""
    services = make_services(database_pool_size=2)
    person = await make_person(services)
    issued = await person.sign_in()
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        await other.execute("SELECT 1 FROM families WHERE id = $1 FOR UPDATE", issued.session_id)
        tasks = [
            asyncio.create_task(services.refresh.rotate(issued.refresh_token, idempotency_key=None, client=client_at()))
            for _ in range(5)
        ]
        await asyncio.sleep(0.2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await other.close()
    following = await person.refresh(issued.refresh_token)
    assert (await person.refresh(following.refresh_token)).session_id == issued.session_id
    assert await sql.fetchval("SELECT generation FROM families WHERE id = $1", issued.session_id) == 2


async def _until_refreshed(events_of: Events, user_id: UUID, times: int) -> None:
    """Wait for the statement whose answer was lost."""
    for _ in range(100):
        if [event["action"] for event in await events_of(user_id)].count("session.refreshed") == times:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the lost rotation never came")
