"""Bulk ends as they are ordered: look first, then order exactly that; follow it, stop it."""

import asyncio
import base64
import binascii
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from app.domain.canonical_json import JsonValue
from app.domain.clients import ClientContext
from app.domain.errors import FingerprintRefused, RevocationNotFound, TookTooLong
from app.domain.events import NOBODY, SYSTEM, Action, Actor, ActorKind, Event
from app.domain.families import Family
from app.domain.pages import Position, page_of
from app.domain.revocations import (
    DRY_RUN_LIFETIME,
    SAMPLE,
    DryRun,
    Order,
    Revocation,
    RevocationState,
    unpack_dry_run,
)
from app.observability.logs import get_logger
from app.repositories.bulk_ends import Target
from app.repositories.database import Database
from app.security.keys import Keyring
from app.services.admin_reads import AdminReads, Cursors
from app.services.authentication import Caller

log = get_logger()

FEW: Final = 10_000  # so many are found first and then put in order; of more, a walk meets some soon
COUNT_MILLISECONDS: Final = 2000
COUNT_SECONDS: Final = 10  # for the whole count; then what was counted so far is what there is at least
PART: Final = 20_000
PART_MINIMUM: Final = 100

_LIST: Final = b"revocations"  # what its cursors are bound to


@dataclass(frozen=True, slots=True)
class Seen:
    """
    What a dry run found.

    Args:
        at_least: Counting was broken off; there are more.
        own_session: Whether the session of whoever asks is among them.
        fingerprint: To be repeated by the order; `None` for the command line, which asks and orders in one.
    """

    dry_run: DryRun
    users: int
    at_least: bool
    own_session: bool
    sample: list[Family]
    names: dict[UUID, str]
    now: datetime
    fingerprint: str | None

    @property
    def expires_at(self) -> datetime:
        return self.dry_run.cut + DRY_RUN_LIFETIME


def actor_of(revocation: Revocation) -> Actor:
    """Who acts in a bulk end's events: whoever ordered it, whichever process does the work."""
    who = revocation.requested_by
    return SYSTEM if who is None else Actor(ActorKind.ADMIN, who)


class Revocations:
    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring
        self._reads = AdminReads(database)
        self._cursors = Cursors(keyring)

    async def preview(self, order: Order, *, caller: Caller | None, client: ClientContext) -> Seen:
        """
        What an order would end if it were given now. That somebody asked is an event itself.

        Args:
            caller: `None`: the command line.
        """
        async with self._database.begin() as db:
            now = await db.now()
        target = Target(order, cut=now, spared=None, now=now)
        sessions, users, exact = await self._count(target)
        sample = await self._sample(target, few=exact and sessions <= FEW)
        dry_run = DryRun(now, sessions)
        event = Event(
            Action.REVOCATION_PREVIEWED,
            caller.as_admin if caller else SYSTEM,
            client,
            detail={"filter": self._described(order), "sessions": sessions, "users": users},
        )
        async with self._database.begin() as db:
            own = caller is not None and await db.bulk_ends.includes(target, caller.user_id, caller.session_id)
            names = await db.trail.find_names({family.user_id for family in sample})
            await db.audit.add(event, at=await db.now())
            await db.commit()
        fingerprint = self._write_fingerprint(dry_run, order, caller.user_id) if caller else None
        return Seen(dry_run, users, not exact, own, sample, names, now, fingerprint)

    async def start(
        self,
        order: Order,
        fingerprint: str,
        *,
        why: str,
        include_own_session: bool,
        caller: Caller,
        client: ClientContext,
    ) -> Revocation:
        """
        Order what a dry run has shown; a job does it. The same fingerprint again is the same order: it starts nothing
        new, so a request whose answer was lost can be repeated.

        Raises:
            FingerprintRefused: it is of another filter or of another caller, or none of ours.
            FingerprintExpired: it is older than ten minutes.
        """
        dry_run, raw = self._read_fingerprint(fingerprint, order, caller.user_id)
        spared = None if include_own_session else caller.session_id
        return await self._start(
            order, dry_run, why=why, spared=spared, actor=caller.as_admin, client=client, preview=sha256(raw).digest()
        )

    async def start_seen(self, order: Order, seen: Seen, *, why: str, client: ClientContext) -> Revocation:
        """Order what the command line has just looked at."""
        return await self._start(order, seen.dry_run, why=why, spared=None, actor=SYSTEM, client=client, preview=None)

    async def get(self, revocation_id: UUID, *, actor: Actor, client: ClientContext) -> Revocation:
        """
        One bulk end, as far as it has come. That somebody asked is an event itself.

        Raises:
            RevocationNotFound: there is none.
        """
        found = await self.follow(revocation_id)
        await self._reads.record("revocation", {"revocation": str(revocation_id)}, 1, actor=actor, client=client)
        return found

    async def follow(self, revocation_id: UUID) -> Revocation:
        """
        The same for whoever does the work, which is told elsewhere.

        Raises:
            RevocationNotFound: there is none.
        """
        async with self._database.begin() as db:
            found = await db.revocations.find(revocation_id)
        if found is None:
            raise RevocationNotFound
        return found

    async def list_page(
        self, *, cursor: str | None, limit: int, actor: Actor, client: ClientContext
    ) -> tuple[list[Revocation], str | None]:
        """
        All bulk ends, newest first, and the cursor of the next page. That somebody asked is an event itself.

        Raises:
            InputInvalid: the cursor is none of ours.
        """
        after = self._cursors.read(cursor, _LIST) if cursor is not None else None
        async with self._database.begin() as db:
            rows = await db.revocations.list_page(before=after.id if after else None, limit=limit + 1)
        page = page_of(rows, limit, lambda revocation: Position(revocation.created_at, revocation.id))
        await self._reads.record("revocations", {"limit": limit}, len(page.items), actor=actor, client=client)
        return page.items, self._cursors.write(page.after, _LIST) if page.after else None

    async def cancel(self, revocation_id: UUID, *, actor: Actor, client: ClientContext) -> Revocation:
        """
        Stop it after the batch under way. What has ended stays ended; one that is over is left as it is.

        Raises:
            RevocationNotFound: there is none.
        """
        async with self._database.begin() as db:
            found = await db.revocations.lock(revocation_id)
            if found is None:
                raise RevocationNotFound
            if not found.is_open:
                return found
            now = await db.now()
            stopped = await db.revocations.finish(found, RevocationState.CANCELLED, now)
            await db.audit.add(over_event(Action.REVOCATION_CANCELLED, stopped, actor, client), at=now)
            await db.commit()
        log.info(Action.REVOCATION_CANCELLED, revocation=str(revocation_id), ended=stopped.ended)
        return stopped

    async def _start(
        self,
        order: Order,
        dry_run: DryRun,
        *,
        why: str,
        spared: UUID | None,
        actor: Actor,
        client: ClientContext,
        preview: bytes | None,
    ) -> Revocation:
        async with self._database.begin() as db:
            now = await db.now()
            dry_run.check_age(now)
            revocation = Revocation(
                id=client.request_id or uuid7(),
                state=RevocationState.QUEUED,
                shown=self._described(order),
                cut=dry_run.cut,
                end_reason=order.end_reason,
                why=why,
                requested_by=actor.id,
                spared=spared,
                expected=dry_run.count,
                ended=0,
                looked_at=0,
                created_at=now,
                started_at=None,
                worked_at=None,
                finished_at=None,
            )
            if not await db.revocations.add(revocation, order, preview=preview):
                before = await db.revocations.find_by_preview(preview or b"")
                if before is None:
                    raise RevocationNotFound
                return before
            await db.audit.add(_started(revocation, actor, client), at=now)
            await db.commit()
        log.info(Action.REVOCATION_STARTED, revocation=str(revocation.id), expected=revocation.expected)
        return revocation

    async def _count(self, target: Target) -> tuple[int, int, bool]:
        """Sessions, users, and whether that is all."""
        try:
            async with self._database.begin() as db:
                await db.revocations.bound_transaction(COUNT_MILLISECONDS)
                return *await db.bulk_ends.count(target), True
        except TookTooLong:
            return await self._count_in_parts(target)

    async def _count_in_parts(self, target: Target) -> tuple[int, int, bool]:
        """In bounded statements, none of which keeps a snapshot for long."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + COUNT_SECONDS
        sessions = users = 0
        after: UUID | None = NOBODY
        look = PART
        while after is not None:
            if clock() > deadline:
                return sessions, users, False
            try:
                async with self._database.begin() as db:
                    await db.revocations.bound_transaction(COUNT_MILLISECONDS)
                    more, people, after = await db.bulk_ends.count_users_after(target, after, look=look)
            except TookTooLong:
                if look <= PART_MINIMUM:
                    return sessions, users, False
                look = max(look // 4, PART_MINIMUM)
                continue
            sessions, users = sessions + more, users + people
        return sessions, users, True

    async def _sample(self, target: Target, *, few: bool) -> list[Family]:
        """Some of them; of those that cannot be found in time, none."""
        try:
            async with self._database.begin() as db:
                await db.revocations.bound_transaction(COUNT_MILLISECONDS)
                return await db.bulk_ends.sample(target, few=few, limit=SAMPLE)
        except TookTooLong:
            return []

    def _described(self, order: Order) -> dict[str, JsonValue]:
        return order.described(self._keyring.name_digest)

    def _write_fingerprint(self, dry_run: DryRun, order: Order, caller: UUID) -> str:
        tag = self._keyring.dry_run_tag(dry_run.signed_message(order, caller))
        return base64.urlsafe_b64encode(dry_run.packed() + tag).decode("ascii")

    def _read_fingerprint(self, fingerprint: str, order: Order, caller: UUID) -> tuple[DryRun, bytes]:
        try:
            raw = base64.b64decode(fingerprint, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise FingerprintRefused(why="encoding") from None
        dry_run, tag = unpack_dry_run(raw)
        if not self._keyring.is_dry_run_tag(tag, dry_run.signed_message(order, caller)):
            raise FingerprintRefused(why="tag")
        return dry_run, raw


def _started(revocation: Revocation, actor: Actor, client: ClientContext) -> Event:
    return Event(
        Action.REVOCATION_STARTED,
        actor,
        replace(client, request_id=revocation.id),
        reason=revocation.end_reason,
        detail={
            "cut": revocation.cut.isoformat(),
            "expected": revocation.expected,
            "filter": revocation.shown,
            "revocation": str(revocation.id),
            "why": revocation.why,
        },
    )


def over_event(action: Action, revocation: Revocation, actor: Actor, client: ClientContext) -> Event:
    """The last event of a bulk end."""
    return Event(
        action,
        actor,
        client,
        reason=revocation.end_reason,
        detail={"ended": revocation.ended, "revocation": str(revocation.id)},
    )
