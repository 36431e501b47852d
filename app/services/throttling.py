"""Who may guess a password once more: counted before it is looked at, in the database, for all processes together."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NoReturn
from uuid import UUID, uuid4

from app.domain import device_token
from app.domain.clients import ClientContext, failure_source
from app.domain.device_token import DeviceToken
from app.domain.errors import TooBusy, TooManyAttempts, Unavailable, UsernameRefused, UsernameTaken
from app.domain.events import ANONYMOUS, NO_CLIENT, NOBODY, SYSTEM, Action, Event, Outcome
from app.domain.notifications import NotificationKind
from app.domain.throttling import (
    ACCOUNT,
    ADDRESS,
    DEVICE,
    DEVICES,
    NOTICEABLE,
    SESSION,
    SESSIONS,
    Limited,
    Tally,
    Way,
    everywhere,
    wait_for_rate,
    wait_in_row,
    whole_seconds,
)
from app.domain.users import User, username_key
from app.observability.logs import get_logger
from app.repositories.database import Database, UnitOfWork
from app.repositories.throttles import Buckets, Known, KnownRepository
from app.security.keys import Keyring
from app.services.acting import Acting, check_alive, lock_target
from app.services.authentication import Caller
from app.services.known_devices import find_device, is_known
from app.services.refusal_notes import RefusalNotes

log = get_logger()

RACED: Final = timedelta(seconds=1)  # others are being looked at, and have used up what was left
NO_BUCKETS: Final = Buckets(None, ADDRESS, None)


class Verdict(StrEnum):
    RIGHT = "right"
    WRONG = "wrong"


@dataclass(slots=True)
class Attempt:
    """
    A guess that may be looked at, and what was counted for it.

    Args:
        key: The name in its canonical form.
        user: As read with the counts, without a lock; `None`: nobody has that name.
        tallies: Whose failures it counts among.
        reserved: Whether it is counted already. While none of the user's devices has failed, a guess of one of them is
            counted when it was wrong.
        device: The known device that it comes from.
        failures: How many there were in a row before it.
        stale: Counts to be cleared if it is right.
    """

    key: str
    user: User | None
    now: datetime
    tallies: tuple[Tally, ...]
    buckets: Buckets
    reserved: bool
    device: DeviceToken | None = None
    failures: int = 0
    stale: tuple[Tally, ...] = ()
    verdict: Verdict | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True)
class _Refused:
    limited: Limited
    wait: timedelta


class Throttling:
    def __init__(self, database: Database, keyring: Keyring, *, failures_per_minute: int) -> None:
        self._database = database
        self._known = KnownRepository(database)
        self._keyring = keyring
        self._everywhere = everywhere(failures_per_minute)
        self._notes = RefusalNotes(database)
        self._looked_at: set[UUID] = set()  # users with a known device's guess that is not counted yet

    @asynccontextmanager
    async def admit(self, username: str, presented: Sequence[str], *, client: ClientContext) -> AsyncIterator[Attempt]:
        """
        Let one guess at a sign-in be looked at, in the body, which says by `passed` or `failed` what came of it.

        A known device is one that signed in before: it has limits of its own, so that nobody else's failures keep it
        out. All that is read is read in one statement, and for a known device nothing is written.

        Args:
            presented: Device tokens as received, in each of several places; one that is not genuine, or another user's,
                is as good as none.
        Raises:
            TooManyAttempts: it must not be looked at. Whether anybody has that name shows neither in this nor in the
                work that was done for it.
        """
        attempt = await self._admit(username, presented, client)
        async with self._until_settled(attempt):
            yield attempt

    @asynccontextmanager
    async def admit_in_session(self, caller: Caller, *, client: ClientContext) -> AsyncIterator[Attempt]:
        """
        The same for a guess at the current password from within a session.

        Whoever has the session is no stranger: only the session's own failures and those of all the user's sessions
        count, so nothing that others do keeps the user from changing the password.
        """
        attempt = await self._admit_in_session(caller, client)
        async with self._until_settled(attempt):
            yield attempt

    @asynccontextmanager
    async def admit_address(self, client: ClientContext) -> AsyncIterator[None]:
        """
        For making an account, which tells whether a name is taken: that alone counts, and for the address alone.

        Raises:
            TooManyAttempts: this address has asked too often.
        """
        place = _place(client)
        known = await self._known.find(None, (), place)
        attempt = Attempt("", None, known.now, (), Buckets(place, ADDRESS, None), reserved=True)
        wait = wait_for_rate(known.address_full_at, ADDRESS, known.now)
        if wait is not None or not await self._reserve(attempt):
            self._refuse(_Refused(Limited.ADDRESS, wait or RACED), None, "", client)
        try:
            yield
        except UsernameTaken:
            raise
        except Exception:
            await self._give_back(attempt)
            raise
        await self._give_back(attempt)

    async def passed(self, db: UnitOfWork, attempt: Attempt, *, signed_in: bool = True) -> str | None:
        """
        The guess was right: nothing is counted any more. In the transaction of what follows from it.

        Returns:
            The device token to hand out, if a session was opened and the device has none that is good for long.
        """
        attempt.verdict = Verdict.RIGHT
        if attempt.stale:
            await db.throttles.clear(attempt.stale[0].account, *attempt.stale)
        if attempt.reserved:
            await db.throttles.put_back(attempt.buckets, attempt.now)
        if not signed_in or attempt.user is None:
            return None
        if attempt.failures >= NOTICEABLE:
            kind = NotificationKind.SIGNED_IN_AFTER_FAILURES
            await db.notifications.add(attempt.user.id, kind, now=attempt.now)
        known = attempt.device
        if known is not None and not known.is_due(attempt.now):
            return None
        device = DeviceToken(attempt.user.id, known.device_id if known else uuid4(), attempt.now)
        key_id = self._keyring.minting.key_id
        return device_token.build(key_id, self._keyring.device_token_keys[key_id], device)

    async def failed(self, db: UnitOfWork, attempt: Attempt, now: datetime) -> None:
        """The guess was wrong: it stays counted, and the next one is delayed. In the transaction of its event."""
        attempt.verdict = Verdict.WRONG
        for tally in attempt.tallies:
            await db.throttles.note_failure(tally, now, counted=attempt.reserved, reserved_at=attempt.now)
        attempt.settled = True

    async def unblock(self, user_id: UUID, *, by: Acting) -> bool:
        """
        Forget all failures of a user; false if there were none, and then nothing was written.

        Raises:
            UserNotFound, UserDeleted: as they say.
            AccessTokenRejected: the actor's session ended meanwhile.
        """
        async with self._database.begin() as db:
            user = await lock_target(db, user_id, by, fewer_admins=False)
            check_alive(user)
            if not await clear_failures(db, self._keyring, user):
                return False
            await db.audit.add(
                Event(Action.LOGIN_UNBLOCKED, by.actor, by.client, subject_id=user_id), at=await db.now()
            )
            await db.commit()
        log.info(Action.LOGIN_UNBLOCKED, user=str(user_id))
        return True

    async def close(self) -> None:
        """Let what nobody waits for come to its end."""
        await self._notes.close()

    async def _admit(self, username: str, presented: Sequence[str], client: ClientContext) -> Attempt:
        key, refused = lookup_key(username), None
        token = await find_device(self._database, self._keyring.device_token_keys, presented, key)
        account = account_digest(self._keyring, key)
        tallies = [Tally(account, Way.PASSWORD, b"", ACCOUNT)]
        if token is not None:
            tallies += _of_holder(self._keyring, account, Way.DEVICE, token.device_id)
        place, user = _place(client), None
        for _ in range(2):
            known = await self._known.find(key, tallies, place)
            user = known.user
            attempt = self._weigh(key, known, token, tallies, place)
            refused = self._find_limit(attempt, known)
            if refused is not None:
                break
            if attempt.device is not None and not attempt.reserved:
                self._looked_at.add(attempt.device.user_id)
                return attempt
            if await self._reserve(attempt):
                return attempt
        # Twice somebody was faster, and nothing is left that could be seen: they are being looked at now.
        self._refuse(refused or _Refused(Limited.ACCOUNT, RACED), user, key, client)

    def _weigh(
        self, key: str, known: Known, token: DeviceToken | None, tallies: Sequence[Tally], place: str | None
    ) -> Attempt:
        """What a guess counts among, and what would be cleared by it."""
        counted = [None if each is None or each.is_stale(known.now) else each for each in known.counted]
        others = counted[0]
        failures = sum(each.failures for each in counted[:2] if each is not None)
        account, *devices = tallies
        if token is None or not is_known(token, known.user, counted[1:], known.now):
            buckets = Buckets(place, ADDRESS, self._everywhere)
            return Attempt(
                key, known.user, known.now, (account,), buckets, reserved=True, failures=failures, stale=(account,)
            )
        # Of a stolen device, too: with many of those, first guesses of each would be many guesses.
        failed = counted[1] is not None or counted[2] is not None
        reserved = failed or token.user_id in self._looked_at
        stale = [*devices] if reserved or failures >= NOTICEABLE else []
        if failures >= NOTICEABLE and others is not None:
            stale.insert(0, account)  # the owner is here, and is told of it: strangers begin anew
        return Attempt(
            key,
            known.user,
            known.now,
            tuple(devices),
            NO_BUCKETS,
            reserved=reserved,
            device=token,
            failures=failures,
            stale=tuple(stale),
        )

    def _find_limit(self, attempt: Attempt, known: Known) -> _Refused | None:
        if attempt.device is not None:
            wait = wait_in_row(known.counted[2], DEVICE, known.now)
            return None if wait is None else _Refused(Limited.DEVICE, wait)
        found = (
            (Limited.ACCOUNT, wait_in_row(known.counted[0], ACCOUNT, known.now)),
            (Limited.ADDRESS, wait_for_rate(known.address_full_at, ADDRESS, known.now)),
            (Limited.EVERYWHERE, wait_for_rate(known.everywhere_full_at, self._everywhere, known.now)),
        )
        return next((_Refused(limited, wait) for limited, wait in found if wait is not None), None)

    async def _admit_in_session(self, caller: Caller, client: ClientContext) -> Attempt:
        refused = user = None
        for _ in range(2):
            async with self._database.begin() as db:
                user = await db.users.find(caller.user_id)
            key = lookup_key(user.username if user else str(caller.user_id))
            account = account_digest(self._keyring, key)
            tallies = _of_holder(self._keyring, account, Way.SESSION, caller.session_id)
            known = await self._known.find(None, tallies, None)
            waits = [
                wait_in_row(each, tally.limit, known.now) for each, tally in zip(known.counted, tallies, strict=True)
            ]
            wait = max((each for each in waits if each is not None), default=None)
            if wait is not None:
                refused = _Refused(Limited.SESSION, wait)
                break
            attempt = Attempt(key, user, known.now, tallies, NO_BUCKETS, reserved=True, stale=tallies)
            if await self._reserve(attempt):
                return attempt
        self._refuse(refused or _Refused(Limited.SESSION, RACED), user, "", client)

    async def _reserve(self, attempt: Attempt) -> bool:
        """Count it, in all that it counts among or in nothing; false: somebody was faster."""
        async with self._database.begin() as db:
            for tally in attempt.tallies:
                if not await db.throttles.reserve(tally, attempt.now):
                    return False
            if not await db.throttles.take(attempt.buckets, attempt.now):
                return False
            await db.commit()
            return True

    @asynccontextmanager
    async def _until_settled(self, attempt: Attempt) -> AsyncIterator[Attempt]:
        """A guess that was not looked at after all, or was right and could not be acted on, does not stay counted."""
        try:
            yield attempt
        except (TooBusy, Unavailable):
            if attempt.verdict is not Verdict.WRONG:
                attempt.settled = True
                await self._give_back(attempt)
            raise
        finally:
            if not attempt.reserved and not attempt.settled and attempt.verdict is not Verdict.RIGHT:
                # Broken off, by the client for example, after the password may have been looked at.
                self._notes.begin(self._count_late(attempt))
            if attempt.device is not None and not attempt.reserved:
                self._looked_at.discard(attempt.device.user_id)

    async def _give_back(self, attempt: Attempt) -> None:
        if not attempt.reserved:
            return
        try:
            async with self._database.begin() as db:
                for tally in attempt.tallies:
                    await db.throttles.give_back(tally, reserved_at=attempt.now)
                await db.throttles.put_back(attempt.buckets, attempt.now)
                await db.commit()
        except Unavailable as error:
            log.warning("login.not_given_back", why=error.why)

    async def _count_late(self, attempt: Attempt) -> None:
        try:
            async with self._database.begin() as db:
                await self.failed(db, attempt, await db.now())
                await db.commit()
        except Unavailable as error:
            log.warning("login.not_counted", why=error.why)

    def _refuse(self, refused: _Refused, user: User | None, key: str, client: ClientContext) -> NoReturn:
        limited, seconds = refused.limited, whole_seconds(refused.wait)
        told_of = user is not None and limited in {Limited.ACCOUNT, Limited.DEVICE, Limited.SESSION}
        subject = user.id if user is not None and told_of else NOBODY
        if limited is Limited.EVERYWHERE:
            event = Event(Action.LOGIN_FLOODED, SYSTEM, NO_CLIENT, outcome=Outcome.FAILURE, reason=limited)
        else:
            unknown = limited is Limited.ACCOUNT and user is None
            event = Event(
                Action.LOGIN_THROTTLED,
                ANONYMOUS,
                client,
                outcome=Outcome.FAILURE,
                reason=limited,
                subject_id=subject,
                detail={"name_digest": self._keyring.name_digest(key)} if unknown else {},
            )
        source = failure_source(client.ip) if limited is Limited.ADDRESS else ""
        self._notes.note((subject, limited.value, source), event)
        log.info(event.action, user=str(subject) if told_of else None, reason=limited.value, retry_after=seconds)
        raise TooManyAttempts(retry_after_seconds=seconds, why=limited.value)


def lookup_key(username: str) -> str:
    """The canonical form; a name that has none is looked up as typed, finds nobody, and costs the same."""
    try:
        return username_key(username)
    except UsernameRefused:
        return username


def account_digest(keyring: Keyring, key: str) -> bytes:
    """Under which name an account's failures are counted, whether there is one or not."""
    return keyring.throttle_digest(b"account", key.encode())


async def clear_failures(db: UnitOfWork, keyring: Keyring, user: User) -> int:
    """Forget all failures of a user. The caller holds the user's lock; how many counts there were."""
    return await db.throttles.clear(account_digest(keyring, lookup_key(user.username)))


def _of_holder(keyring: Keyring, account: bytes, way: Way, holder: UUID) -> tuple[Tally, Tally]:
    """All holders together, and this one: in the order of their rows' locks."""
    all_of_them, one = (DEVICES, DEVICE) if way is Way.DEVICE else (SESSIONS, SESSION)
    digest = keyring.throttle_digest(way.value.encode(), holder.bytes)
    return Tally(account, way, b"", all_of_them), Tally(account, way, digest, one)


def _place(client: ClientContext) -> str | None:
    return failure_source(client.ip) if client.ip is not None else None
