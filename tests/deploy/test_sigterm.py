"""A server that is told to stop: in which order, that nobody notices, and that it ends whatever hangs."""

import asyncio
import contextlib
import os
import secrets
import signal

import asyncpg
import httpx2
import pytest

from app.container import Container
from app.domain.api_clients import ClientScope
from app.domain.jobs import Done
from app.domain.users import Role
from app.jobs import schedule
from app.jobs.schedule import Job, running_jobs
from tests.conftest import PASSWORD, OwnDatabase, client_at, make_settings
from tests.deploy.conftest import Connect, Serve, Served, form, get
from tests.feed.conftest import Credentials, connected, make_client
from tests.revocation.conftest import Wire

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])
TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.fixture
async def username(own: OwnDatabase) -> str:
    """Somebody who can sign in."""
    name = f"person-{secrets.token_hex(4)}"
    services = Container.build(make_settings(own.app))
    await services.users.create(name, PASSWORD, role=Role.USER, actor=None, client=client_at())
    await services.close()
    return name


@pytest.fixture
async def who(own: OwnDatabase) -> Credentials:
    """An API client that may follow the feed."""
    services = Container.build(make_settings(own.app))
    made = await make_client(services, ClientScope.REVOCATIONS)
    await services.close()
    return made


async def unready(served: Served, connect: Connect) -> tuple[int, str, bytes]:
    """The first answer of `/readyz` that is not 200, each asked on a connection of its own."""
    async with asyncio.timeout(10):
        while True:
            line = await connect(served.port)
            answer = await line.ask(get("/readyz"))
            await line.close()
            if answer[0] != 200:
                return answer


async def stops(sql: asyncpg.Connection) -> int:
    found: int = await sql.fetchval("SELECT count(*) FROM audit_events WHERE action = 'server.stopped'")
    return found


@pytest.mark.parametrize(("sig", "workers"), [(TERM, "1"), (INT, "1"), (TERM, "2")], ids=["TERM", "INT", "workers"])
async def test_the_order(
    own: OwnDatabase,
    own_sql: asyncpg.Connection,
    serve: Serve,
    connect: Connect,
    username: str,
    who: Credentials,
    sig: signal.Signals,
    workers: str,
) -> None:
    """
    Not ready while new connections are still taken; then none; running requests finish, idle connections are answered
    once more, streams end; the trail tells of the stop; exit code 0. So it is too if the whole group has the signal.
    """
    served = await serve(own.app, "--workers", workers)
    idle = [await connect(served.port) for _ in range(4)]
    for line in idle:
        _, head_of_answer, _ = await line.ask(get("/livez"))
        assert "connection: close" not in head_of_answer
    running = [await connect(served.port) for _ in range(4)]
    head, body = form("/token", username=username, password=PASSWORD)
    for line in running:
        line.say(head, body[:5])
    async with httpx2.AsyncClient(base_url=served.url, timeout=60) as http, connected(http, who) as stream:
        await stream.until(current=True)
        served.send(sig, group=workers != "1")
        status, head_of_answer, _ = await unready(served, connect)
        assert status == 503
        assert "connection: close" in head_of_answer
        said = ""
        while "connection: close" not in said:  # a worker hears of it a moment later than the other
            late = await connect(served.port)
            status, said, _ = await late.ask(get("/livez"))
            assert status == 200
        assert await late.end() == b""
        await served.until_it_refuses()
        for line in idle[:2]:
            status, head_of_answer, _ = await line.ask(get("/livez"))
            assert (status, "connection: close" in head_of_answer) == (200, True)
        for line in idle:
            assert await line.end() == b""
        await stream.until_the_end()
        assert len(stream.retries) == 2  # it was told when to come back
        for line in running:
            line.say(body[5:])
        for line in running:
            status, head_of_answer, answer = await line.hear()
            assert (status, "connection: close" in head_of_answer) == (200, True), answer
            assert await line.end() == b""
    assert await served.ended() == 0, served.log.read_text()
    assert "Traceback" not in served.log.read_text()
    assert await stops(own_sql) == int(workers)
    assert await own_sql.fetchval("SELECT count(*) FROM families WHERE ended_at IS NULL") == 4
    assert served.group == []


@WORKERS
async def test_who_connects_is_answered(
    own: OwnDatabase, serve: Serve, connect: Connect, username: str, workers: str
) -> None:
    """
    Connections at every moment of the stop, each with a request that a proxy may not repeat: it is refused before
    anything was sent, or answered. None is reset.
    """
    served = await serve(own.app, "--workers", workers)
    head, body = form("/refresh", refresh_token="nonsense")
    answered = 0

    async def knock() -> None:
        nonlocal answered
        while True:
            try:
                line = await connect(served.port)
            except ConnectionRefusedError:
                return
            status, _, _ = await line.ask(head, body)
            assert status == 401
            answered += 1
            await line.close()

    knocking = [asyncio.create_task(knock()) for _ in range(30)]
    while answered < 100:
        await asyncio.sleep(0.01)
    served.send(TERM)
    await asyncio.gather(*knocking)
    assert await served.ended() == 0, served.log.read_text()


@pytest.mark.parametrize(("sig", "workers"), [(TERM, "1"), (INT, "1"), (TERM, "2")], ids=["TERM", "INT", "workers"])
async def test_a_second_signal_hurries(
    own: OwnDatabase, own_sql: asyncpg.Connection, serve: Serve, connect: Connect, sig: signal.Signals, workers: str
) -> None:
    """A request that would keep it for ten seconds is cut off; the rest goes as in good order."""
    served = await serve(own.app, "--workers", workers)
    line = await connect(served.port)
    head, body = form("/token", username="nobody", password=PASSWORD)
    line.say(head, body[:5])
    served.send(TERM)
    await served.until_it_refuses()
    assert served.process.poll() is None
    loop = asyncio.get_running_loop()
    began = loop.time()
    served.send(sig)
    assert await served.ended() == 0, served.log.read_text()
    assert loop.time() - began < 6  # it would have waited for nine more
    assert b"200 OK" not in await line.end()
    assert await stops(own_sql) == int(workers)


async def test_one_signal_to_the_group_hurries_nobody(
    own: OwnDatabase, serve: Serve, connect: Connect, username: str
) -> None:
    """The supervisor's own word to its workers is no second signal: what runs is finished."""
    served = await serve(own.app, "--workers", "2")
    head, body = form("/token", username=username, password=PASSWORD)
    lines = [await connect(served.port) for _ in range(6)]
    for line in lines:
        line.say(head, body[:5])
    served.send(TERM, group=True)
    await served.until_it_refuses()
    for line in lines:
        line.say(body[5:])
        assert (await line.hear())[0] == 200
    assert await served.ended() == 0


@WORKERS
async def test_requests_that_do_not_end(
    own: OwnDatabase, own_sql: asyncpg.Connection, serve: Serve, connect: Connect, username: str, workers: str
) -> None:
    """They are cut off after ten seconds, and the process ends in good order within its twenty."""
    served = await serve(own.app, "--workers", workers)
    line = await connect(served.port)
    head, body = form("/token", username=username, password=PASSWORD)
    served.send(TERM)
    line.say(head, body[:5])
    await served.until_it_refuses()
    assert await served.ended() == 0, served.log.read_text()
    assert b" 200 " not in await line.end()
    assert await stops(own_sql) == int(workers)


@pytest.mark.parametrize(
    ("way", "workers"), [("silent", "1"), ("silent", "2"), ("cut", "1")], ids=["silent", "silent, workers", "cut"]
)
async def test_the_database_hangs(
    own: OwnDatabase, serve: Serve, connect: Connect, username: str, way: str, workers: str
) -> None:
    """All its connections fall silent, or break, amid the work: it ends within its time, with exit code 0."""
    wire = Wire(own.app)
    try:
        served = await serve(await wire.start(), "--workers", workers)
        head, body = form("/token", username=username, password=PASSWORD)
        line = await connect(served.port)
        assert (await line.ask(head, body))[0] == 200
        if way == "silent":
            wire.silence(b"")
        else:
            wire.cut()
        line.say(head, body)  # and is still at it when the signal comes
        hanging = [await connect(served.port) for _ in range(20)]
        for other in hanging:
            other.say(head, body)
        served.send(TERM)
        assert (await unready(served, connect))[0] == 503
        assert await served.ended() == 0, served.log.read_text()
        assert b" 200 " not in await line.end()
    finally:
        await wire.close()


async def test_the_database_hangs_at_the_start(own: OwnDatabase, serve: Serve) -> None:
    """It starts all the same, and stops when told."""
    wire = Wire(own.app)
    try:
        url = await wire.start()
        wire.silence(b"")
        served = await serve(url, ready=False)
        await served.until_logged("lifecycle.not_written")
        served.send(TERM)
        assert await served.ended() == 0, served.log.read_text()
    finally:
        await wire.close()


async def test_workers_are_replaced_and_never_orphaned(own: OwnDatabase, serve: Serve) -> None:
    """One that dies has a successor; when the supervisor is killed, all stop and the port is free for the next."""
    served = await serve(own.app, "--workers", "2")
    await served.until_logged("Application startup complete", 2)
    victim = next(pid for pid in served.group if b"spawn_main" in _command(pid))
    os.kill(victim, signal.SIGKILL)
    await served.until_logged("Application startup complete", 3)
    served.process.kill()
    served.process.wait(20)
    await served.until(lambda: not [pid for pid in served.group if b"spawn_main" in _command(pid)], "the workers' end")
    await serve(own.app, port=served.port)


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - /proc
        return file.read()
    return b""


async def test_a_server_that_cannot_start_says_so(own: OwnDatabase, serve: Serve) -> None:
    """A taken port is one sentence, and no success."""
    served = await serve(own.app)
    for workers in ("1", "2"):
        second = await serve(own.app, "--workers", workers, port=served.port, ready=False)
        assert await second.ended() == 1
        assert "Cannot listen on 127.0.0.1" in second.log.read_text()
        assert "Traceback" not in second.log.read_text()


async def test_jobs_stop_between_batches(services: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch at work comes to its end, and no other is begun."""
    batch, began, ended = asyncio.Event(), [], []

    async def work(_: Container) -> Done:
        began.append(1)
        await batch.wait()
        ended.append(1)
        return Done(1, more=True)

    job = Job("refusals", 0.01, work, entity="nothing", retention="none", reason="a test", pause_seconds=0)
    monkeypatch.setattr(schedule, "JOBS", (job,))
    async with running_jobs(services) as end:
        while not began:
            await asyncio.sleep(0.01)
        end()
        await asyncio.sleep(0)
        batch.set()
    assert (len(began), len(ended)) == (1, 1)


async def test_a_batch_that_hangs_is_cut_off(services: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time; the process must end."""
    batch, cut = asyncio.Event(), []

    async def work(_: Container) -> Done:
        try:
            await batch.wait()
        except asyncio.CancelledError:
            cut.append(1)
            raise
        return Done()

    job = Job("refusals", 0.01, work, entity="nothing", retention="none", reason="a test")
    monkeypatch.setattr(schedule, "JOBS", (job,))
    monkeypatch.setattr(schedule, "END_SECONDS", 0.05)
    async with running_jobs(services):
        await asyncio.sleep(0.01)
    assert cut == [1]
