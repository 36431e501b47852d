"""How somebody comes to a password of their own: one-time passwords and set-password tokens, neither of them kept."""

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn
from uuid import UUID

from uuid_utils.compat import uuid7

from app.domain import password_token
from app.domain.clients import ALIKE_FAILURES, ClientContext
from app.domain.clients import failure_source as source_of
from app.domain.errors import PasswordTokenRejected
from app.domain.events import ANONYMOUS, Action, Actor, Event, Outcome, user_actor
from app.domain.families import EndReason
from app.domain.jobs import Done
from app.domain.notifications import NotificationKind
from app.domain.password_token import AT_SIGN_IN, LIFETIME, PasswordToken
from app.domain.users import Credential, Role, User, username_key
from app.observability.logs import get_logger
from app.repositories.database import Database, UnitOfWork
from app.security.keys import Keyring
from app.security.password_policy import PasswordPolicy
from app.security.passwords import PasswordHasher
from app.services.acting import Acting, check_alive, lock_target
from app.services.ends import count_ended, end_events
from app.services.throttling import clear_failures

log = get_logger()

ONE_TIME_BYTES = 18
BATCH = 2000


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """Shown this once."""

    token: str
    expires_at: datetime
    expires_in: int


@dataclass(frozen=True, slots=True)
class Invited:
    """A new user, and what they were given: shown this once."""

    user: User
    credential: Credential
    one_time_password: str | None
    password_token: str | None
    expires_at: datetime | None


class Credentials:
    def __init__(self, database: Database, hasher: PasswordHasher, policy: PasswordPolicy, keyring: Keyring) -> None:
        self._database = database
        self._hasher = hasher
        self._policy = policy
        self._keyring = keyring

    async def invite(self, username: str, *, role: Role, credential: Credential, by: Acting) -> Invited:
        """
        Make an account for somebody, who alone will know its password.

        Raises:
            UsernameRefused, UsernameTaken: as they say.
            AccessTokenRejected: the actor's session ended meanwhile.
        """
        username_key(username)
        one_time = credential is Credential.ONE_TIME_PASSWORD
        password = secrets.token_urlsafe(ONE_TIME_BYTES) if one_time else None
        password_hash = await self._hasher.hash(password) if password else None
        async with self._database.begin() as db:
            await by.check(db)
            now = await db.now()
            user = User(
                id=uuid7(),
                username=username,
                password_hash=password_hash,
                role=role,
                disabled_at=None,
                created_at=now,
                password_changed_at=now,
                must_change_password=credential is not Credential.NONE,
            )
            await db.users.add(user)
            created = Event(Action.USER_CREATED, by.actor, by.client, subject_id=user.id, detail={"role": role.value})
            await db.audit.add(created, at=now)
            token = None
            if password is not None:
                issued = _issued(user.id, credential, "created", now + LIFETIME, by.actor, by.client)
                await db.audit.add(issued, at=now)
            elif credential is Credential.SET_PASSWORD_TOKEN:
                token = await self._issue(db, user.id, LIFETIME, cause="created", actor=by.actor, client=by.client)
            await db.commit()
        log.info(Action.USER_CREATED, user=str(user.id), role=role.value)
        expires_at = None if credential is Credential.NONE else now + LIFETIME
        return Invited(user, credential, password, token.token if token else None, expires_at)

    async def reset(self, user_id: UUID, *, forget: bool, by: Acting) -> tuple[IssuedToken, int]:
        """
        Hand out a set-password token, in the place of one before it. The password stays until the token is used.

        Args:
            forget: The password is good for nothing from now on, all sessions end, and no device is a known one any
                more: somebody else knows it.
        Returns:
            The token, and how many sessions ended.
        Raises:
            UserNotFound, UserDeleted: as they say.
            AccessTokenRejected: the actor's session ended meanwhile.
        """
        ended = []
        async with self._database.begin() as db:
            user = await lock_target(db, user_id, by, fewer_admins=False)
            check_alive(user)
            if forget:
                by.check_self(user.id)
                now = await db.now()
                await db.users.set_password(user.id, None, must_change=True, now=now)
                await db.notifications.add(user.id, NotificationKind.PASSWORD_CHANGED, now=now)
                await db.users.forget_devices(user.id, now)  # whoever knew the password may have signed in with it
                ended = await db.families.end_all(user.id, reason=EndReason.PASSWORD_CHANGE, by=by.actor.id)
                forgotten = Event(Action.PASSWORD_FORGOTTEN, by.actor, by.client, subject_id=user.id)
                await db.audit.add(forgotten, *end_events(ended, actor=by.actor, client=by.client), at=now)
            token = await self._issue(db, user.id, LIFETIME, cause="reset", actor=by.actor, client=by.client)
            await db.commit()
        log.info(Action.CREDENTIAL_ISSUED, user=str(user_id), ended=len(ended))
        return token, count_ended(ended)

    async def exchange(self, db: UnitOfWork, user: User, client: ClientContext) -> IssuedToken | None:
        """
        At a sign-in with a one-time password: the token by which another one is set; `None`: it is past its time.

        The caller holds the user's lock, and commits.
        """
        if await db.now() >= user.password_changed_at + LIFETIME:
            return None
        return await self._issue(db, user.id, AT_SIGN_IN, cause="sign_in", actor=user_actor(user.id), client=client)

    async def redeem(self, presented: str, new: str, *, client: ClientContext) -> int:
        """
        Set a password with a set-password token, which is spent by it; how many sessions ended.

        All of the user's sessions end in the same transaction. Of two uses at once, one succeeds. No connection is
        held while the password is hashed, and nothing is hashed for a token that is not good.

        Raises:
            PasswordRefused: the password may not be set; the token stays good.
            PasswordTokenRejected: whatever is wrong with the token.
        """
        token = password_token.parse(presented, self._keyring.password_token_keys)
        if token is None:
            log.info("password_token.noise")
            raise PasswordTokenRejected(why="noise")
        self._hasher.admit()
        found = await self._look(token, client)
        canonical = await self._policy.check(new, username=found.username)
        password_hash = await self._hasher.hash(canonical)
        actor = user_actor(token.user_id)
        async with self._database.begin() as db:
            user = await db.users.lock(token.user_id)
            now = await db.now()
            if (
                user is not None
                and user.disabled_at is None
                and await db.password_tokens.spend(token.user_id, token.digest, now=now)
            ):
                await clear_failures(db, self._keyring, user)
                await db.users.set_password(token.user_id, password_hash, must_change=False, now=now)
                await db.notifications.add(token.user_id, NotificationKind.PASSWORD_CHANGED, now=now)
                ended = await db.families.end_all(token.user_id, reason=EndReason.PASSWORD_CHANGE, by=actor.id)
                done = Event(Action.PASSWORD_RESET, actor, client, subject_id=token.user_id)
                await db.audit.add(done, *end_events(ended, actor=actor, client=client), at=now)
                await db.commit()
                log.info(Action.PASSWORD_RESET, user=str(token.user_id), ended=len(ended))
                return count_ended(ended)
            shut_out = user is None or user.disabled_at is not None
        return await self._refuse(token, "user_shut_out" if shut_out else "token_unknown", client)

    async def remove_expired(self) -> Done:
        """Remove tokens past their time; nobody depends on it."""
        async with self._database.begin() as db:
            removed = await db.password_tokens.delete_expired(await db.now(), limit=BATCH)
            await db.commit()
        return Done(removed, more=removed == BATCH)

    async def _look(self, token: PasswordToken, client: ClientContext) -> User:
        """
        Whose token it is. What is no good is refused before the expensive part; that it is, is seen again under the
        lock.
        """
        async with self._database.begin() as db:
            user, stored, now = await db.users.find(token.user_id), None, await db.now()
            if user is not None:
                stored = await db.password_tokens.find(token.user_id)
        if user is None or user.disabled_at is not None:
            return await self._refuse(token, "user_shut_out", client)
        if stored is None or not hmac.compare_digest(stored.digest, token.digest):
            await self._refuse(token, "token_unknown", client)
        elif now >= stored.expires_at:
            await self._refuse(token, "token_expired", client)
        return user

    async def _refuse(self, token: PasswordToken, reason: str, client: ClientContext) -> NoReturn:
        async with self._database.begin() as db:
            await record_refusal(db, token.user_id, reason, client)
            await db.commit()
        raise PasswordTokenRejected(why=reason)

    async def _issue(
        self, db: UnitOfWork, user_id: UUID, lifetime: timedelta, *, cause: str, actor: Actor, client: ClientContext
    ) -> IssuedToken:
        keys = self._keyring.password_token_keys[0]
        random = secrets.token_bytes(password_token.SECRET_BYTES)
        token, digest = password_token.build(keys, user_id=user_id, secret=random)
        now = await db.now()
        expires_at = now + lifetime
        await db.password_tokens.replace(user_id, digest, now=now, expires_at=expires_at)
        issued = _issued(user_id, Credential.SET_PASSWORD_TOKEN, cause, expires_at, actor, client)
        await db.audit.add(issued, at=now)
        return IssuedToken(token, expires_at, int(lifetime.total_seconds()))


async def record_refusal(db: UnitOfWork, user_id: UUID, reason: str, client: ClientContext) -> None:
    """Each is counted; the first few of a minute that are alike are events, the job sums up the rest."""
    now = await db.now()
    if await db.refusals.count_login(user_id, reason, source_of(client.ip), now) <= ALIKE_FAILURES:
        refused = Event(
            Action.CREDENTIAL_REFUSED, ANONYMOUS, client, outcome=Outcome.FAILURE, reason=reason, subject_id=user_id
        )
        await db.audit.add(refused, at=now)
    log.info(Action.CREDENTIAL_REFUSED, user=str(user_id), reason=reason)


def _issued(
    user_id: UUID, kind: Credential, cause: str, expires_at: datetime, actor: Actor, client: ClientContext
) -> Event:
    detail = {"kind": kind.value, "cause": cause, "expires_at": expires_at.isoformat()}
    return Event(Action.CREDENTIAL_ISSUED, actor, client, subject_id=user_id, detail=detail)
