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


async def test_one_dear_hash_does_not_speak_for_the_next() -> None:
    """A kind that somebody brought along may take seconds; newcomers are not sent away for it."""
    work = Work()
    with hasher_at(work, threads=1) as hasher:
        hasher._seconds = 0.02
        hasher._learn(4.0)
        assert hasher._seconds < 0.03
        for _ in range(50):
            hasher._learn(1.0)
        assert hasher._seconds > 0.9


async def test_a_client_that_leaves_is_not_hashed_for() -> None:
    """Out of the queue at once, which makes room; of those with a turn, who runs already runs to the end."""
    work, clients = Work(), [Asker() for _ in range(7)]
    with hasher_at(work, threads=1, queue_limit=6) as hasher:

        async def ask(client: Asker) -> bool:
            asker.set(client)
            return await hasher.verify(PASSWORD, None)

        tasks = [asyncio.create_task(ask(client)) for client in clients]
        await settle()
        with pytest.raises(TooBusy):
            await hasher.verify(PASSWORD, None)
        for client in clients[:6]:  # one runs, two have turns, three wait for theirs
            client.leave()
        await until(lambda: hasher.waiting == 3)
        late = verify_many(hasher, 3)
        await settle()
        assert not any(task.done() for task in late)
        work.may_end.set()
        await asyncio.gather(*late)
        assert (await outcomes(tasks)).count("TooBusy") == 5
        assert work.done == 5  # the one that ran, the one that stayed, the three that came
        assert all(not client._told for client in clients)
        await until(lambda: hasher._turns == 0)


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
    """Cancelled in the queue, or in its turn, it leaves; the cancellation stays one."""
    work = Work()
    with hasher_at(work, threads=1) as hasher:
        tasks = verify_many(hasher, 6)
        await settle()
        for number in (1, 4):
            tasks[number].cancel()
        await until(lambda: hasher.waiting == 3)
        assert tasks[1].cancelled()
        assert tasks[4].cancelled()
        work.may_end.set()
        await asyncio.gather(*(tasks[number] for number in (0, 2, 3, 5)))
        assert work.done == 4
        await until(lambda: hasher._turns == 0)


async def test_cancelled_as_its_turn_comes() -> None:
    """The turn goes to the next one."""
    work = Work()
    work.may_end.set()
    with hasher_at(work, threads=1) as hasher:
        held = [asyncio.Event() for _ in range(3)]

        async def hold(until_then: asyncio.Event) -> None:
            async with hasher.turn():
                await until_then.wait()

        holding = [asyncio.create_task(hold(event)) for event in held]
        await settle()
        waiting = verify_many(hasher, 2)
        await settle()
        held[0].set()
        while hasher._queue and len(hasher._queue) == 2:
            await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait_for(waiting[1], 30)
        assert waiting[0].cancelled()
        for event in held:
            event.set()
        await asyncio.gather(*holding)
        await until(lambda: hasher._turns == 0)


async def test_a_turn_ends_beside_cancellations() -> None:
    """All in one pass of the loop, as at a deadline: nobody gets another error, and the place is handed on."""
    work = Work()
    work.may_end.set()
    with hasher_at(work, threads=1) as hasher:

        async def hold() -> None:
            async with hasher.turn():
                await asyncio.sleep(60)

        holding = [asyncio.create_task(hold()) for _ in range(3)]
        client = Asker()

        async def ask() -> bool:
            asker.set(client)
            return await hasher.verify(PASSWORD, None)

        await settle()
        waiting = [*verify_many(hasher, 1), asyncio.create_task(ask()), *verify_many(hasher, 1)]
        await settle()
        for task in (*holding[:2], *waiting[:2]):
            task.cancel()
        client.leave()
        done = await asyncio.gather(*holding[:2], *waiting[:2], return_exceptions=True)
        assert [type(one) for one in done] == [asyncio.CancelledError] * 4
        await asyncio.wait_for(waiting[2], 30)
        holding[2].cancel()
        await until(lambda: hasher._turns == 0 and not hasher._queue)


async def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """503 as long as that lasts, and no turn is lost."""
    work = Work()
    work.may_end.set()
    with hasher_at(work, threads=1) as hasher:

        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            assert await outcomes(verify_many(hasher, 5)) == ["TooBusy"] * 5
        assert (hasher._turns, hasher._pending) == (0, 0)
        await hasher.verify(PASSWORD, None)


async def test_a_thread_that_is_busy_for_nobody() -> None:
    """Whoever was cancelled while being hashed for keeps their turn until the thread is done."""
    work = Work()
    with hasher_at(work, threads=1) as hasher:
        first = verify_many(hasher, 1)
        await until(lambda: hasher.running == 1)
        first[0].cancel()
        await settle()
        assert (first[0].cancelled(), hasher._turns) == (True, 1)
        work.may_end.set()
        await until(lambda: hasher._turns == hasher._pending == 0)


async def test_whoever_waits_in_vain() -> None:
    """The guess of the wait was wrong: refused after twice what it may be, though no thread ever became free."""
    work = Work()
    with hasher_at(work, threads=1, patience=0.05) as hasher:
        tasks = verify_many(hasher, 6)
        assert await outcomes(tasks[3:]) == ["TooBusy"] * 3
        assert not any(task.done() for task in tasks[:3])  # they have their turns
        work.may_end.set()
        await asyncio.gather(*tasks[:3])
        await until(lambda: hasher._pending == 0)
        assert work.done == 3


async def test_a_turn() -> None:
    """Counts against newcomers before it is used, serves one hash after another, and is given back in any case."""
    work = Work()
    with hasher_at(work, threads=1, queue_limit=1) as hasher:

        async def slow(first: asyncio.Event) -> None:
            async with hasher.turn():
                await first.wait()
                await hasher.verify(PASSWORD, None)
                await hasher.verify(PASSWORD, None)

        found = asyncio.Event()
        tasks = [asyncio.create_task(slow(found)) for _ in range(2)]
        await settle()
        with pytest.raises(TooBusy):
            async with hasher.turn():
                pytest.fail("there was none")
        with pytest.raises(TooBusy):
            hasher.admit()
        with pytest.raises(TooBusy):
            await hasher.verify(PASSWORD, None)
        found.set()
        await settle()
        assert hasher._pending == 2
        work.may_end.set()
        await asyncio.gather(*tasks)
        await until(lambda: hasher._pending == 0)
        with pytest.raises(KeyError):
            async with hasher.turn():
                raise KeyError
        assert (hasher._turns, work.done) == (0, 4)


async def test_few_have_a_turn() -> None:
    """Of twenty, three for the one thread; each hash that is done begins another turn, in the order of coming."""
    work = Work()
    with hasher_at(work, threads=1) as hasher:
        begun: list[int] = []

        async def sign_in(number: int) -> None:
            async with hasher.turn():
                begun.append(number)
                await hasher.verify(PASSWORD, None)

        tasks = [asyncio.create_task(sign_in(number)) for number in range(20)]
        await settle()
        assert begun == [0, 1, 2]
        work.may_end.set()
        await asyncio.gather(*tasks)
        assert begun == list(range(20))


async def test_whoever_was_verified_is_not_refused() -> None:
    """The hash that is to be renewed with the same sign-in finds no queue to be sent away from."""
    work = Work()
    with hasher_at(work, threads=1, queue_limit=2) as hasher:
        verified = asyncio.Event()

        async def renew() -> None:
            async with hasher.turn():
                await hasher.verify(PASSWORD, None)
                verified.set()
                await asyncio.sleep(0)
                await hasher.verify(PASSWORD, None)

        work.may_end.set()
        renewing = asyncio.create_task(renew())
        await asyncio.wait_for(verified.wait(), 30)
        work.may_end.clear()
        others = verify_many(hasher, 2)
        await settle()
        with pytest.raises(TooBusy):
            hasher.admit()
        work.may_end.set()
        await renewing
        await asyncio.gather(*others)
        assert work.done == 4


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
async def test_the_threads_give_way(make_services: MakeServices) -> None:
    """Theirs is a lower priority than the event loop's, in whose process they are."""
    hasher = make_services().hasher
    niceness = await hasher._run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    assert niceness == os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) + NICENESS == NICENESS


async def test_nothing_is_looked_up_for_those_who_find_no_place(
    make_services: MakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred at once: those beyond the queue are refused, and those in it wait, before any statement."""
    services = make_services()
    work = Work()
    with hasher_at(work, threads=1, queue_limit=9) as hasher:
        monkeypatch.setattr(services.sign_in, "_hasher", hasher)
        looked_up: list[str] = []
        fetch_one = services.database.fetch_one

        async def counted(statement: str, *arguments: object) -> Any:
            looked_up.append(statement)
            return await fetch_one(statement, *arguments)

        monkeypatch.setattr(services.database, "fetch_one", counted)
        tasks = [
            asyncio.create_task(services.sign_in.with_password(USER, PASSWORD, client=client_at())) for _ in range(100)
        ]
        await until(lambda: hasher.waiting == 9)
        assert sum(task.done() for task in tasks) == 90
        assert len(looked_up) == 3  # of those whose turn it is
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
