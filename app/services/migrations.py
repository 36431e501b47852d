"""Bringing a database's schema to another revision, one runner at a time, and saying how a schema stands."""

import asyncio
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from app import __version__
from app.domain.clock import Clock
from app.domain.errors import RotaError
from app.domain.events import NO_CLIENT, SYSTEM, Action, Event
from app.domain.schema import (
    BASE,
    Applied,
    MigrationBlocked,
    MigrationFailed,
    MigrationLockLost,
    Phase,
    Revision,
    SchemaTooNew,
    SchemaUnsound,
    Verdict,
    judge,
    read_notes,
)
from app.observability.logs import get_logger
from app.repositories.database import Database
from app.repositories.engine import make_runner_engine
from app.repositories.migrations import Blocked, RunnerLock, Worker, reading
from app.repositories.schema import InvalidIndex, SchemaRepository

log = get_logger()

ATTEMPTS: Final = 11  # with their pauses longer than a reader that stays for twenty seconds
PAUSE_SECONDS: Final = (1.0, 3.0)
WAIT_SECONDS: Final = 300.0  # for another runner
STOP_SECONDS: Final = 10.0  # for our own work, when the lock is lost

_LEFTOVER: Final = re.compile(r"_cc(new|old)\d*$")  # of REINDEX CONCURRENTLY


@dataclass(frozen=True, slots=True)
class Step:
    revision: str
    upwards: bool


class Asked(Protocol):
    """What Alembic was asked for. Its methods do synchronous work on the connection that they are given."""

    @property
    def steps(self) -> Sequence[Step]: ...

    def plan(self, db: Any) -> None:
        """Find the steps from where the database is; creates Alembic's own table, and changes nothing else."""

    def take(self, number: int, db: Any) -> None:
        """Take one step, in a transaction of its own."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a run did."""

    before: str
    after: str
    steps: tuple[str, ...]
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Status:
    """How a database's schema stands to this release."""

    current: str
    verdict: Verdict
    invalid_indexes: tuple[str, ...]
    unvalidated: tuple[str, ...]

    @property
    def findings(self) -> list[str]:
        return [
            *(f"the index {name} is INVALID" for name in self.invalid_indexes),
            *(f"the constraint {name} is NOT VALID" for name in self.unvalidated),
        ]


def configuration() -> Path:
    """Alembic's configuration: packed into the wheel, or beside the sources."""
    here = Path(__file__).parents[1]
    packed = here / "_alembic" / "alembic.ini"
    return packed if packed.exists() else here.parent / "alembic.ini"


def read_revisions(path: Path | None = None) -> list[Revision]:
    """
    The revisions that this release knows, in order.

    Raises:
        ValueError: a file does not declare what it must.
    """
    from alembic.config import Config  # noqa: PLC0415 - half a second that most commands need not spend
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - likewise

    scripts = ScriptDirectory.from_config(Config(str(path or configuration())))
    return [_read(script) for script in reversed(list(scripts.walk_revisions()))]


def _read(script: Any) -> Revision:
    module, file = script.module, Path(script.path)
    try:
        return Revision(
            id=script.revision,
            before=script.down_revision or BASE,
            phase=Phase(module.phase),
            oldest_release=module.oldest_release,
            rewrites=bool(module.rewrites),
            notes=read_notes(module.__doc__ or ""),
            source=file.read_text(encoding="utf-8"),
        )
    except (AttributeError, ValueError) as wrong:
        raise ValueError(f"{file.name}: {wrong}") from None


class Runner:
    """
    Runs migrations as Alembic was asked to, whoever asked: `rota db upgrade` and `alembic upgrade` come here alike.

    Args:
        url: Leads to the database itself, by a login that may change it.
        wait_seconds: For another runner.
    """

    def __init__(self, url: str, revisions: Sequence[Revision], *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._url = url
        self._revisions = revisions
        self._wait_seconds = wait_seconds
        self._before = BASE

    async def run(self, asked: Asked, *, phase: str) -> Moved:
        """
        Take all steps, then examine what they left and write one audit event.

        Killed at any moment, the same run can be made again. Each step is a transaction and gets ten further attempts
        for its locks.

        Raises:
            MigrationRunning, PoolerInTheWay, Unavailable: nothing was begun.
            MigrationBlocked, MigrationFailed, MigrationLockLost: steps before are done, the step at hand is not.
            SchemaTooNew: the database has revisions that this release does not know.
            SchemaUnsound: all is done, and the schema has something that no revision means to leave.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with RunnerLock(self._url, wait_seconds=self._wait_seconds) as lock:
            await self._while_held(lock, asked)
            duration_ms = round(1000 * (loop.time() - began))
            moved = await self._tell(asked, phase, duration_ms)
            async with reading(self._url) as schema:
                await self._examine(schema, asked)
        return moved

    async def _while_held(self, lock: RunnerLock, asked: Asked) -> None:
        """Work until done, or until the lock is lost: then stop at once, before somebody else begins."""
        work = asyncio.create_task(self._move(lock, asked))
        lost = asyncio.create_task(lock.lost())
        try:
            await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise MigrationLockLost
            await work
        finally:
            work.cancel()
            lost.cancel()
            await asyncio.wait({work, lost}, timeout=STOP_SECONDS)
            if work.done() and not work.cancelled():
                work.exception()  # said already, or of no interest beside the lost lock

    async def _move(self, lock: RunnerLock, asked: Asked) -> None:
        planned, taken, attempt = False, 0, 1
        while True:
            try:
                async with Worker(self._url, lock, wait_seconds=self._wait_seconds) as worker:
                    if not planned:
                        await self._prepare(worker)
                        await worker.run(asked.plan)
                        planned = True
                    while taken < len(asked.steps):
                        await worker.run(partial(asked.take, taken))
                        log.info("migration.done", revision=asked.steps[taken].revision, up=asked.steps[taken].upwards)
                        taken, attempt = taken + 1, 1
                    return
            except (Blocked, MigrationFailed) as error:
                revision = asked.steps[taken].revision if planned else "the preparation"
                if isinstance(error, MigrationFailed):
                    raise MigrationFailed(
                        f"Revision {revision} failed and was rolled back: {error.message}."
                    ) from error
                if attempt == ATTEMPTS:
                    who = await lock.name_those_in_the_way()
                    raise MigrationBlocked(
                        f"Revision {revision} did not get its locks in {ATTEMPTS} attempts and was rolled back "
                        f"({error.message}; now in the way: {who}). Run it again when they are done."
                    ) from error
                log.warning("migration.blocked", revision=revision, attempt=attempt, why=error.message)
                await asyncio.sleep(random.uniform(*PAUSE_SECONDS))  # noqa: S311 - not in step with the others
                attempt += 1

    async def _prepare(self, worker: Worker) -> None:
        """Refuse what this release does not know; clear away what an interrupted concurrent build has left."""
        heads = await worker.schema.list_heads()
        known = [revision.id for revision in self._revisions]
        if unknown := sorted(set(heads) - set(known)):
            raise SchemaTooNew(
                f"The database's schema is at {', '.join(unknown)}, which Rota {__version__} does not know: "
                "migrate it with the release that does."
            )
        self._before = ", ".join(heads) or BASE
        done = 1 + max((known.index(head) for head in heads), default=-1)
        applied = "".join(revision.source for revision in self._revisions[:done])
        pending = "".join(revision.source for revision in self._revisions[done:])
        for index in await worker.schema.list_invalid_indexes():
            if (statement := _mending(index, applied, pending)) is not None:
                log.warning("migration.invalid_index", index=index.name, doing=statement)
                await worker.alone(statement)

    async def _tell(self, asked: Asked, phase: str, duration_ms: int) -> Moved:
        """One event for all applied revisions that none tells of yet, in the transaction that marks them."""
        database = Database(make_runner_engine(self._url), Clock(), hot_connections=1)
        try:
            async with database.begin() as db:
                trail = await db.schema.has_trail()
                after = ", ".join(await db.schema.list_heads()) or BASE
                untold = set(await db.schema.list_untold())
                first = next((revision.before for revision in self._revisions if revision.id in untold), self._before)
                if trail and first == BASE:  # the table is new, and its first rows are of before it
                    first = await db.schema.find_last_told() or BASE
                detail: dict[str, Any] = {
                    "from": first,
                    "to": after,
                    "phase": phase if all(step.upwards for step in asked.steps) else "down",
                    "duration_ms": duration_ms,
                    "version": __version__,
                }
                if (untold or asked.steps) and trail:
                    now = await db.now()
                    await db.audit.add(Event(Action.SCHEMA_MIGRATED, SYSTEM, NO_CLIENT, detail=detail), at=now)
                    if untold:
                        await db.schema.mark_told(sorted(untold), at=now)
                await db.commit()
        finally:
            await database.close()
        return Moved(self._before, after, tuple(step.revision for step in asked.steps), duration_ms)

    async def _examine(self, schema: SchemaRepository, asked: Asked) -> None:
        """
        Raises:
            SchemaUnsound: see there.
        """
        status = await look_at(schema, self._revisions)
        pending = "".join(revision.source for revision in status.verdict.pending)
        left = [f"the index {name} is INVALID" for name in status.invalid_indexes]
        left += [f"the constraint {name} is NOT VALID" for name in status.unvalidated if name not in pending]
        if asked.steps and asked.steps[-1].upwards and status.current != asked.steps[-1].revision:
            left.append(f"it is at {status.current}, not at {asked.steps[-1].revision}")
        if left:
            raise SchemaUnsound(f"The migration is done, but something is wrong with the schema: {'; '.join(left)}.")


def _mending(index: InvalidIndex, applied: str, pending: str) -> str | None:
    """What to do about an INVALID index; `None`: it belongs to no revision, or is only a catalogue entry."""
    quoted = '"' + index.name.replace('"', '""') + '"'
    named = re.compile(rf"\b{re.escape(index.name)}\b")
    if not index.of_one_table:
        return None
    if named.search(applied):
        return f"REINDEX INDEX CONCURRENTLY {quoted}"
    if named.search(pending) or _LEFTOVER.search(index.name):
        return f"DROP INDEX CONCURRENTLY IF EXISTS {quoted}"  # the revision builds it again
    return None


async def look_at(schema: SchemaRepository, revisions: Sequence[Revision]) -> Status:
    """How the schema stands to a release that knows these revisions."""
    current, verdict = await judge_at(schema, revisions)
    invalid = tuple(index.name for index in await schema.list_invalid_indexes())
    return Status(current, verdict, invalid, tuple(await schema.list_unvalidated()))


async def judge_at(schema: SchemaRepository, revisions: Sequence[Revision]) -> tuple[str, Verdict]:
    """The part of it that can be asked again and again: where the schema is, and whether it can be served."""
    heads = await schema.list_heads()
    applied = {one.id: one for one in await schema.list_applied()}
    known = [revision.id for revision in revisions]
    reached = 1 + max((known.index(head) for head in heads if head in known), default=-1)
    for revision in revisions[:reached]:  # of the time before the table, or of a login that may not read it
        applied.setdefault(revision.id, Applied(revision.id, revision.oldest_release))
    verdict = judge(revisions, list(applied.values()), __version__)
    return ", ".join(heads) or next((name for name in reversed(known) if name in applied), BASE), verdict


async def look(url: str, revisions: Sequence[Revision]) -> Status:
    """
    How the schema of a database stands, seen with the login's own rights and the server's.

    Raises:
        Unavailable: the database does not answer.
    """
    async with reading(url) as schema:
        await schema.see_as_server()
        return await look_at(schema, revisions)


async def wait_until_served(url: str, revisions: Sequence[Revision], *, seconds: float) -> None:
    """
    Return when this release can serve the schema.

    Raises:
        SchemaTooNew: waiting would not help.
        SchemaTooOld, Unavailable: not in that time.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while True:
        try:
            refusal: RotaError | None = (await look(url, revisions)).verdict.refusal
        except RotaError as error:
            refusal = error
        if refusal is None:
            return
        if isinstance(refusal, SchemaTooNew) or loop.time() >= until:
            raise refusal
        await asyncio.sleep(min(1.0, max(0.0, until - loop.time())))
