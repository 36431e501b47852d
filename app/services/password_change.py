"""A new password for the old one."""

from app.domain.clients import ClientContext
from app.domain.errors import AccessTokenRejected, InvalidCredentials
from app.domain.events import Action, Event, Outcome, user_actor
from app.domain.families import EndReason, SessionState
from app.domain.notifications import NotificationKind
from app.observability.logs import get_logger
from app.repositories.database import Database
from app.security.password_policy import PasswordPolicy
from app.security.passwords import PasswordHasher
from app.services.authentication import Caller
from app.services.ends import count_ended, end_events
from app.services.throttling import Attempt, Throttling, Verdict

log = get_logger()


class PasswordChange:
    def __init__(
        self, database: Database, hasher: PasswordHasher, policy: PasswordPolicy, throttling: Throttling
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._policy = policy
        self._throttling = throttling

    async def change(self, caller: Caller, *, current: str, new: str, client: ClientContext) -> int:
        """
        Set a new password and end all other sessions in the same transaction; how many ended.

        Raises:
            TooBusy: too many passwords wait for hashing.
            PasswordRefused: the new one may not be set.
            TooManyAttempts: the current one was not looked at, after too many that were wrong.
            InvalidCredentials: the current one is wrong, or was changed by somebody else meanwhile.
            AccessTokenRejected: the session ended meanwhile.
        """
        self._hasher.admit()
        async with self._database.begin() as db:
            user = await db.users.find(caller.user_id)
        canonical = await self._policy.check(new, username=user.username if user else "")
        async with self._hasher.turn(), self._throttling.admit_in_session(caller, client=client) as attempt:
            return await self._change(caller, attempt, current, canonical, client)

    async def _change(
        self, caller: Caller, attempt: Attempt, current: str, canonical: str, client: ClientContext
    ) -> int:
        user = attempt.user
        right = await self._hasher.verify(current, user.password_hash if user else None)
        if user is None or user.password_hash is None or not right:
            await self._record_failure(caller, attempt, client)
            raise InvalidCredentials("The current password is wrong.", why="wrong_password")
        new_hash = await self._hasher.hash(canonical)
        actor = user_actor(caller.user_id)
        async with self._database.begin() as db:
            locked = await db.users.lock_verified(user.id, user.password_hash)
            session = await db.families.lock(caller.user_id, caller.session_id)
            now = await db.now()
            if session is None or session.state(now) is not SessionState.ACTIVE:
                raise AccessTokenRejected(why="session over")  # ended while the passwords were being hashed
            if locked is None:
                raise InvalidCredentials("The current password is wrong.", why="changed_meanwhile")
            await db.users.change_password(user.id, verified=user.password_hash, new=new_hash, now=now)
            await db.notifications.add(user.id, NotificationKind.PASSWORD_CHANGED, now=now)
            await db.password_tokens.remove(user.id)  # or whoever holds one could undo this
            ended = await db.families.end_all(
                user.id, keep=caller.session_id, reason=EndReason.PASSWORD_CHANGE, by=actor.id
            )
            changed = Event(Action.PASSWORD_CHANGED, actor, client, subject_id=user.id)
            await self._throttling.passed(db, attempt, signed_in=False)
            await db.audit.add(changed, *end_events(ended, actor=actor, client=client), at=now)
            await db.commit()
        log.info(Action.PASSWORD_CHANGED, user=str(user.id), ended=len(ended))
        return count_ended(ended)

    async def _record_failure(self, caller: Caller, attempt: Attempt, client: ClientContext) -> None:
        attempt.verdict = Verdict.WRONG  # it stays counted, too, if none of this can be written now
        event = Event(
            Action.PASSWORD_CHANGE_FAILED,
            user_actor(caller.user_id),
            client,
            outcome=Outcome.FAILURE,
            reason="wrong_password",
            subject_id=caller.user_id,
            family_id=caller.session_id,
        )
        async with self._database.begin() as db:
            now = await db.now()
            await db.audit.add(event, at=now)
            await self._throttling.failed(db, attempt, now)
            await db.commit()
        log.info(Action.PASSWORD_CHANGE_FAILED, user=str(caller.user_id))
