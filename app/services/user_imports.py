"""Bringing users along: a file is checked as a whole, then written batch by batch, each of which is one transaction."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from uuid_utils.compat import uuid7

from app.domain.canonical_json import JsonValue
from app.domain.clients import ClientContext
from app.domain.errors import ImportAltered, ImportRunning, Unavailable, UsernameTaken
from app.domain.events import Action, Actor, Event
from app.domain.import_lines import LineFaulty, read_csv, read_entry, read_object
from app.domain.user_imports import BATCH, SKIPPED_TOLD, Entry, Field, ImportFormat, Reason, UserImport
from app.domain.users import Role, User
from app.observability.logs import get_logger
from app.repositories.database import Database, UnitOfWork
from app.repositories.holds import Holds
from app.security.hash_kinds import HashRefused
from app.security.password_hashes import read_hash
from app.services.import_checks import FaultLog, NameSpill
from app.services.import_files import ImportFile, RawBatch, decoded

log = get_logger()

ATTEMPTS: Final = 8  # at a batch: names taken meanwhile, and trouble of the database that passes
FIRST_PAUSE_SECONDS: Final = 0.1  # doubled each time

Told = Callable[[str, int, int], None]


@dataclass(slots=True)
class Checked:
    """
    What a file holds, and what is wrong with it.

    Args:
        digests: Of the file up to the end of each batch: what is written must be what was checked.
    """

    digest: bytes
    total: int = 0
    admins: int = 0
    disabled: int = 0
    without_password: int = 0
    faults: FaultLog = field(default_factory=FaultLog)
    digests: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Brought:
    """
    How it went. With faults nothing was written; without `done`, neither: it was only looked at.

    Args:
        done: How far the import has come; finished, unless this is a look at one that was broken off.
        before: How many users an earlier run of it had made; all, if it was finished before.
    """

    checked: Checked | None
    done: UserImport | None
    before: int = 0

    @property
    def was_done(self) -> bool:
        return self.checked is None


@dataclass(frozen=True, slots=True)
class _Batch:
    entries: list[tuple[int, Entry]]
    faults: list[tuple[int, LineFaulty]]
    raw: RawBatch


@dataclass(frozen=True, slots=True)
class _Order:
    """What one run of an import goes by."""

    file: ImportFile
    columns: tuple[str, ...]
    size: int
    actor: Actor
    client: ClientContext
    told: Told


class UserImports:
    def __init__(self, database: Database, holds: Holds) -> None:
        self._database = database
        self._holds = holds

    async def bring(
        self,
        path: Path,
        form: ImportFormat | None,
        *,
        actor: Actor,
        client: ClientContext,
        dry_run: bool = False,
        size: int = BATCH,
        told: Told = lambda _what, _done, _total: None,
    ) -> Brought:
        """
        Import the users of a file: all of it is checked first, and nothing is written if any line is faulty.

        Broken off at any point, the same file goes on exactly where it was; once finished, it is not imported again. A
        name that somebody takes between check and batch is left out, and its line told.

        Args:
            told: Is told what is being done, how much of it is done, and of how much.
        Raises:
            InputInvalid: the file cannot be read.
            ImportRunning: another process has it in hand.
            ImportAltered: it was altered since its import began.
            Unavailable: the database is; what is committed stays, and the same call goes on.
        """
        with ImportFile(path, form) as file:
            digest = await asyncio.to_thread(file.digest)
            async with self._holds.hold(f"import {digest.hex()}") as held:
                if not held:
                    raise ImportRunning
                former = await self._find(digest, file.place)
                if former is not None and former.finished_at is not None:
                    return Brought(None, former, former.users)
                try:
                    order = _Order(file, await asyncio.to_thread(file.columns), size, actor, client, told)
                except LineFaulty as faulty:
                    checked = Checked(digest)
                    _note(checked.faults, file.heading, faulty)
                    return Brought(checked, former)
                checked = await self._check(order, digest, former)
                if dry_run or checked.faults:
                    return Brought(checked, former, former.users if former else 0)
                begun = former or await self._begin(order, checked)
                return Brought(checked, await self._write(order, begun, checked), begun.users)

    async def _find(self, digest: bytes, place: bytes) -> UserImport | None:
        async with self._database.begin() as db:
            found = await db.user_imports.find(digest)
            if found is None and await db.user_imports.find_broken_off(place) is not None:
                raise ImportAltered(why="put back the file as it was, or import this one from another place")
        return found

    async def _check(self, order: _Order, digest: bytes, former: UserImport | None) -> Checked:
        """
        Look at every line that is not done. Of an import that had begun, names that are taken are no fault any more.

        Raises:
            ImportAltered: the file changes while it is read.
        """
        checked = Checked(digest)
        names = NameSpill()
        try:
            parsed = self._parsed(order, former.lines_done if former else 0, check_hash=_hash_reason)
            async with aclosing(parsed) as batches:
                async for batch in batches:
                    taken = await self._find_taken(batch) if former is None else set()
                    _look_at(batch, taken, checked, names)
                    order.told("checking", batch.raw.position, order.file.size)
            if checked.digests[-1] != digest:
                raise ImportAltered(why="it changes while it is read")
            for line, first_line in names.duplicates():
                checked.faults.add(line, Field.USERNAME, Reason.DUPLICATE, first_line)
        finally:
            names.close()
        return checked

    async def _begin(self, order: _Order, checked: Checked) -> UserImport:
        async with self._database.begin() as db:
            now = await db.now()
            begun = UserImport(
                id=uuid7(),
                digest=checked.digest,
                place=order.file.place,
                size=order.file.size,
                form=order.file.form,
                total=checked.total,
                lines_done=0,
                users=0,
                admins=0,
                disabled=0,
                skipped=0,
                skipped_lines=(),
                started_at=now,
                worked_at=now,
                finished_at=None,
            )
            await db.user_imports.add(begun, order.actor)
            detail: dict[str, JsonValue] = {
                "digest": begun.digest.hex(),
                "format": begun.form,
                "import": str(begun.id),
                "users": begun.total,
            }
            client = replace(order.client, request_id=begun.id)
            await db.audit.add(Event(Action.IMPORT_STARTED, order.actor, client, detail=detail), at=now)
            await db.commit()
        log.info(Action.IMPORT_STARTED, id=str(begun.id), users=begun.total)
        return begun

    async def _write(self, order: _Order, begun: UserImport, checked: Checked) -> UserImport:
        """
        All batches that are not done.

        Raises:
            ImportAltered: a line is not what it was when it was checked; the batches before it stay.
        """
        done = begun
        digests = iter(checked.digests)
        async with aclosing(self._parsed(order, begun.lines_done, check_hash=_unchecked)) as batches:
            async for batch in batches:
                if batch.raw.digest != next(digests, None):
                    raise ImportAltered(why="it changes while it is read")
                last = batch.raw.position >= order.file.size
                done = await self._write_batch(order, done, batch, last=last)
                order.told("importing", done.users + done.skipped, done.total)
        log.info(Action.IMPORT_FINISHED, id=str(done.id), users=done.users, skipped=done.skipped)
        return done

    async def _write_batch(self, order: _Order, former: UserImport, batch: _Batch, *, last: bool) -> UserImport:
        """Write it once, however often that must be tried: the row says whether a commit without an answer counted."""
        pause = FIRST_PAUSE_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._write_once(order, former, batch, last=last)
            except UsernameTaken:
                if attempt == ATTEMPTS:
                    raise
            except Unavailable:
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(pause)
                pause *= 2
                if (found := await self._find_written(former, batch)) is not None:
                    return found
        raise AssertionError

    async def _find_written(self, former: UserImport, batch: _Batch) -> UserImport | None:
        """The row, if the batch stands in it: nobody else holds the file, so it was our commit."""
        try:
            async with self._database.begin() as db:
                found = await db.user_imports.find(former.digest)
        except Unavailable:
            return None
        written = found is not None and found.lines_done == batch.raw.last and found != former
        return found if written else None

    async def _write_once(self, order: _Order, former: UserImport, batch: _Batch, *, last: bool) -> UserImport:
        async with self._database.begin() as db:
            now = await db.now()
            taken = await db.user_imports.find_taken([entry.key for _, entry in batch.entries])
            entries = [entry for _, entry in batch.entries if entry.key not in taken]
            skipped = [line for line, entry in batch.entries if entry.key in taken]
            done = replace(
                former,
                lines_done=batch.raw.last,
                users=former.users + len(entries),
                admins=former.admins + sum(entry.role is Role.ADMIN for entry in entries),
                disabled=former.disabled + sum(entry.disabled for entry in entries),
                skipped=former.skipped + len(skipped),
                skipped_lines=(*former.skipped_lines, *skipped)[:SKIPPED_TOLD],
                worked_at=now,
                finished_at=now if last else None,
            )
            await _add(db, order, entries, done)
            if not await db.user_imports.advance(done, former=former):
                raise ImportRunning
            await db.commit()
        return done

    async def _find_taken(self, batch: _Batch) -> set[str]:
        async with self._database.begin() as db:
            return await db.user_imports.find_taken([entry.key for _, entry in batch.entries])

    async def _parsed(
        self, order: _Order, after: int, *, check_hash: Callable[[str], Reason | None]
    ) -> AsyncGenerator[_Batch]:
        """Each batch is read in a thread while the database works on the one before it."""
        async with self._database.begin() as db:
            now = await db.now()
        raws = order.file.batches(after=after, size=order.size)

        def parse() -> _Batch | None:
            raw = next(raws, None)
            return None if raw is None else _parse(raw, order, check_hash, now)

        coming = asyncio.create_task(asyncio.to_thread(parse))
        try:
            while (batch := await coming) is not None:
                coming = asyncio.create_task(asyncio.to_thread(parse))
                yield batch
        finally:
            # The thread reads the file, which is closed next.
            await asyncio.wait([coming])


def _look_at(batch: _Batch, taken: set[str], checked: Checked, names: NameSpill) -> None:
    for line, faulty in batch.faults:
        _note(checked.faults, line, faulty)
    for line, entry in batch.entries:
        if entry.key in taken:
            checked.faults.add(line, Field.USERNAME, Reason.TAKEN)
        names.add(entry.key, line)
        checked.admins += entry.role is Role.ADMIN
        checked.disabled += entry.disabled
        checked.without_password += entry.password_hash is None
    checked.total += len(batch.entries) + len(batch.faults)
    checked.digests.append(batch.raw.digest)


def _parse(raw: RawBatch, order: _Order, check_hash: Callable[[str], Reason | None], now: Any) -> _Batch:
    batch = _Batch([], [], raw)
    is_csv = order.file.form is ImportFormat.CSV
    for number, line in raw.lines:
        try:
            if line is None:
                raise LineFaulty((Field.LINE, Reason.LINE_TOO_LONG))  # noqa: TRY301 - one row of the table of faults
            text = decoded(line)
            row = read_csv(text, order.columns) if is_csv else read_object(text)
            batch.entries.append((number, read_entry(row, check_hash=check_hash, now=now)))
        except LineFaulty as faulty:
            batch.faults.append((number, faulty))
    return batch


async def _add(db: UnitOfWork, order: _Order, entries: Sequence[Entry], done: UserImport) -> None:
    """The users of a batch, and what the trail says of them."""
    now = done.worked_at
    client = replace(order.client, request_id=done.id)
    users = [
        User(
            id=uuid7(),
            username=entry.username,
            password_hash=entry.password_hash,
            role=entry.role,
            disabled_at=now if entry.disabled else None,
            created_at=entry.created_at or now,
            password_changed_at=now,
        )
        for entry in entries
    ]
    await db.users.copy(users, [entry.key for entry in entries])
    for role in Role:
        created = Event(Action.USER_CREATED, order.actor, client, detail={"role": role.value})
        await db.audit.copy(created, [user.id for user in users if user.role is role], at=now)
    disabled = Event(Action.USER_DISABLED, order.actor, client)
    await db.audit.copy(disabled, [user.id for user in users if user.disabled_at is not None], at=now)
    if done.finished_at is not None:
        detail: dict[str, JsonValue] = {
            "admins": done.admins,
            "disabled": done.disabled,
            "import": str(done.id),
            "skipped": done.skipped,
            "users": done.users,
        }
        await db.audit.add(Event(Action.IMPORT_FINISHED, order.actor, client, detail=detail), at=now)


def _note(faults: FaultLog, line: int, faulty: LineFaulty) -> None:
    for where, reason in faulty.found:
        faults.add(line, where, reason)
    faults.add_unknown(faulty.unknown)


def _hash_reason(text: str) -> Reason | None:
    try:
        read_hash(text)
    except HashRefused as refused:
        return refused.reason
    return None


def _unchecked(_text: str) -> None:
    """The line was checked, and its digest says that it is the same."""
