"""The queue before the hashing threads: bounded by time, and left by those who have no use for the answer any more."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from app.domain.errors import TooBusy
from app.security.asker import Asker, asker
from app.security.passwords import NICENESS, PasswordHasher
from tests.conftest import PASSWORD, MakeServices, client_at

USER = "nobody-of-the-storm"


class Work:
    """In the place of hashing: counts, and takes until it is told."""

    def __init__(self) -> None:
        self.done = 0
        self.may_end = threading.Event()

    def __call__(self, *_: object) -> bool:
        self.may_end.wait(60)
        self.done += 1
        return True


@contextmanager
def hasher_at(work: Work, **options: Any) -> Iterator[PasswordHasher]:
    made = PasswordHasher(**options)
    honest: Any = made._context
    made._context = cast("Any", Hashing(work))
    made._seconds = 0.1
    try:
        yield made
    finally:
        work.may_end.set()
        made.close()
        made._context = honest


class Hashing:
    """A context whose verifications are `Work`."""

    def __init__(self, work: Work) -> None:
        self.verify = work


async def settle() -> None:
    """Let tasks that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.005)


async def outcomes(tasks: list[asyncio.Task[bool]]) -> list[str]:
    return [
        "TooBusy" if isinstance(one, TooBusy) else str(one)
        for one in await asyncio.gather(*tasks, return_exceptions=True)
    ]


def verify_many(hasher: PasswordHasher, number: int) -> list[asyncio.Task[bool]]:
    return [asyncio.create_task(hasher.verify(PASSWORD, None)) for _ in range(number)]


@pytest.mark.parametrize(
    ("threads", "seconds", "let_in"),
    [
        pytest.param(1, 0.1, 21, id="one thread: one at once, twenty in two seconds"),
        pytest.param(4, 0.1, 84, id="four threads"),
        pytest.param(1, 1.0, 3, id="slow hashes"),
        pytest.param(2, 30.0, 2, id="so slow that nobody may wait"),
        pytest.param(2, 0.0001, 2 + 1024, id="so fast that only the number counts"),
    ],
)
async def test_nobody_waits_longer_than_two_seconds(threads: int, seconds: float, let_in: int) -> None:
    """By what hashes have taken lately; whoever would is refused at once, while the others still wait."""
    work = Work()
    with hasher_at(work, threads=threads) as hasher:
        hasher._seconds = seconds
        tasks = verify_many(hasher, let_in + 50)
        await settle()
        refused = [task for task in tasks if task.done()]
        assert len(refused) == 50
        assert refused == tasks[let_in:]
        assert set(await outcomes(refused)) == {"TooBusy"}
        assert (hasher.running, hasher.waiting) == (threads, let_in - threads)
        work.may_end.set()
        await asyncio.gather(*tasks[:let_in])
        assert work.done == let_in


async def test_the_queue_learns_how_long_hashes_take() -> None:
    """Each hash moves the measure; a queue that was too slow for anybody to wait takes people in again."""
    work = Work()
    work.may_end.set()
    with hasher_at(work, threads=1) as hasher:
        hasher._seconds = 100.0
        for _ in range(80):
            await hasher.verify(PASSWORD, None)
        assert hasher._seconds < 0.1


async def test_a_client_that_leaves_is_not_hashed_for() -> None:
    """Out of the queue at once, which makes room; what runs already runs to its end."""
    work, clients = Work(), [Asker() for _ in range(5)]
    with hasher_at(work, threads=1, queue_limit=4) as hasher:

        async def ask(client: Asker) -> bool:
            asker.set(client)
            return await hasher.verify(PASSWORD, None)

        tasks = [asyncio.create_task(ask(client)) for client in clients]
        await settle()
        with pytest.raises(TooBusy):
            await hasher.verify(PASSWORD, None)
        for client in clients[:4]:
            client.leave()
        await until(lambda: hasher.waiting == 1)
        late = verify_many(hasher, 3)
        await settle()
        assert not any(task.done() for task in late)
        work.may_end.set()
        await asyncio.gather(*late)
        assert (await outcomes(tasks)).count("TooBusy") == 3
        assert work.done == 5  # the one that ran, the one that stayed, the three that came
        assert all(not client._told for client in clients)


async def test_a_client_that_has_left_already() -> None:
    """While its name was looked up, say: nothing is hashed."""
    work, client = Work(), Asker()
    with hasher_at(work, threads=1) as hasher:
        first = verify_many(hasher, 1)
        await settle()
        client.leave()
        asker.set(client)
        with pytest.raises(TooBusy):
            await hasher.verify(PASSWORD, None)
        work.may_end.set()
        await asyncio.gather(*first)
        assert work.done == 1


async def test_a_request_past_its_deadline_is_not_hashed() -> None:
    """Cancelled in the queue, it leaves it; the cancellation stays one."""
    work = Work()
    with hasher_at(work, threads=1) as hasher:
        tasks = verify_many(hasher, 3)
        await settle()
        tasks[1].cancel()
        await until(lambda: hasher.waiting == 1)
        assert tasks[1].cancelled()
        work.may_end.set()
        await asyncio.gather(tasks[0], tasks[2])
        assert work.done == 2


async def test_whoever_waits_in_vain() -> None:
    """The guess of the wait was wrong: refused after twice what it may be, though no thread ever became free."""
    work = Work()
    with hasher_at(work, threads=1, patience=0.05) as hasher:
        tasks = verify_many(hasher, 4)
        assert await outcomes(tasks[1:]) == ["TooBusy"] * 3
        assert not tasks[0].done()
        work.may_end.set()
        await tasks[0]
        await until(lambda: hasher._pending == 0)
        assert work.done == 1


async def test_a_kept_place() -> None:
    """Counts against newcomers before it is used, serves one hash after another, and is given back in any case."""
    work = Work()
    with hasher_at(work, threads=1, queue_limit=1) as hasher:

        async def slow(first: asyncio.Event) -> None:
            with hasher.place():
                await first.wait()
                await hasher.verify(PASSWORD, None)
                await hasher.verify(PASSWORD, None)

        found = asyncio.Event()
        tasks = [asyncio.create_task(slow(found)) for _ in range(2)]
        await settle()
        with pytest.raises(TooBusy), hasher.place():
            pytest.fail("there was none")
        with pytest.raises(TooBusy):
            await hasher.verify(PASSWORD, None)
        found.set()
        await settle()
        assert hasher._pending == 2
        work.may_end.set()
        await asyncio.gather(*tasks)
        await until(lambda: hasher._pending == 0)
        with pytest.raises(KeyError), hasher.place():
            raise KeyError
        assert (hasher._kept, work.done) == (0, 4)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
async def test_the_threads_give_way(make_services: MakeServices) -> None:
    """Theirs is a lower priority than the event loop's, in whose process they are."""
    hasher = make_services().hasher
    niceness = await hasher._run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    assert niceness == os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) + NICENESS == NICENESS


async def test_nothing_is_looked_up_for_those_who_find_no_place(
    make_services: MakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred at once: those beyond the queue are refused before any statement."""
    services = make_services()
    work = Work()
    with hasher_at(work, threads=1, queue_limit=9) as hasher:
        monkeypatch.setattr(services.sign_in, "_hasher", hasher)
        statements: list[str] = []
        begin = services.database.begin

        def counted() -> Any:
            statements.append("")
            return begin()

        monkeypatch.setattr(services.database, "begin", counted)
        monkeypatch.setattr(services.database, "fetch_one", counted)
        tasks = [
            asyncio.create_task(services.sign_in.with_password(USER, PASSWORD, client=client_at())) for _ in range(100)
        ]
        await until(lambda: hasher.waiting == 9)
        assert sum(task.done() for task in tasks) == 90
        assert len(statements) == 10
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
