"""From a password to a session."""

import secrets
from datetime import datetime
from typing import NoReturn

from uuid_utils.compat import uuid7

from app.domain.clients import ALIKE_FAILURES, ClientContext, failure_source
from app.domain.errors import InvalidCredentials, PasswordChangeRequired, UsernameRefused
from app.domain.events import ANONYMOUS, NOBODY, SYSTEM, Action, Event, Outcome, user_actor
from app.domain.families import FIRST_PARTY_CLIENT, Family, Grant, Lifetimes
from app.domain.users import User, username_key
from app.observability.logs import get_logger
from app.repositories.database import Database, UnitOfWork
from app.security.keys import Keyring
from app.security.passwords import PasswordHasher
from app.services.credentials import Credentials, record_refusal
from app.services.devices import describe_device
from app.services.ends import end_events
from app.services.tokens import IssuedTokens, TokenPairs

log = get_logger()

_SEED_BYTES = 32


class SignIn:
    def __init__(
        self,
        database: Database,
        hasher: PasswordHasher,
        keyring: Keyring,
        pairs: TokenPairs,
        lifetimes: Lifetimes,
        credentials: Credentials,
        *,
        max_sessions: int,
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._keyring = keyring
        self._pairs = pairs
        self._lifetimes = lifetimes
        self._credentials = credentials
        self._max_sessions = max_sessions

    async def with_password(self, username: str, password: str, *, client: ClientContext) -> IssuedTokens:
        """
        Open a session for whoever knows the password.

        Unknown user, wrong password and disabled user cost the same work and get the same answer. No connection is
        held while the password is hashed. The oldest session beyond the limit ends in the same transaction.

        Raises:
            InvalidCredentials: also when the password was changed or the user disabled during the sign-in, and when a
                one-time password is past its time.
            PasswordChangeRequired: the password is right, and good for setting another one only.
            TooBusy: too many passwords wait for hashing.
        """
        for _ in range(2):
            user = await self._find(username)
            right = await self._hasher.verify(password, user.password_hash if user else None)
            if user is None or user.password_hash is None or not right or user.disabled_at is not None:
                break
            outdated = self._hasher.is_outdated(user.password_hash)
            new_hash = await self._hasher.hash(password) if outdated else None
            async with self._database.begin() as db:
                # As locked: the role that was read before the password was hashed may be lost by now.
                if locked := await db.users.lock_verified(user.id, user.password_hash):
                    if locked.must_change_password:
                        await self._demand_another(db, locked, client)
                    grant = await self._open(db, locked, user.password_hash, new_hash, client)
                    await db.commit()
                    log.info(Action.SESSION_CREATED, user=str(user.id), session=str(grant.family_id))
                    return self._pairs.issue(grant)
            # Disabled, changed, or the same password hashed anew by a sign-in beside this one: look once more.
        return await self._refuse(username, user, client)

    async def _find(self, username: str) -> User | None:
        async with self._database.begin() as db:
            return await db.users.find_by_key(_lookup_key(username))

    async def _refuse(self, username: str, user: User | None, client: ClientContext) -> NoReturn:
        """Each failure is counted; the first few of a minute that are alike are events, the job sums up the rest."""
        reason = "unknown_user" if user is None else "disabled" if user.disabled_at else "wrong_password"
        event = Event(
            Action.LOGIN_FAILED,
            ANONYMOUS,
            client,
            outcome=Outcome.FAILURE,
            reason=reason,
            subject_id=user.id if user else NOBODY,
            detail={} if user else {"name_digest": self._keyring.name_digest(_lookup_key(username))},
        )
        async with self._database.begin() as db:
            now = await db.now()
            source = failure_source(client.ip)
            if await db.refusals.count_login(event.subject_id, reason, source, now) <= ALIKE_FAILURES:
                await db.audit.add(event, at=now)
            await db.commit()
        log.info(Action.LOGIN_FAILED, user=str(user.id) if user else None, reason=reason)
        raise InvalidCredentials(why=reason)

    async def _demand_another(self, db: UnitOfWork, user: User, client: ClientContext) -> NoReturn:
        """No session for a one-time password, but the token by which another one is set."""
        token = await self._credentials.exchange(db, user, client)
        if token is None:
            await record_refusal(db, user.id, "one_time_password_expired", client)
        await db.commit()
        if token is None:
            raise InvalidCredentials(why="one_time_password_expired")
        log.info("login.password_change_required", user=str(user.id))
        raise PasswordChangeRequired(token.token, expires_in=token.expires_in)

    async def _open(
        self, db: UnitOfWork, user: User, verified: str, new_hash: str | None, client: ClientContext
    ) -> Grant:
        now = await db.now()
        if new_hash is not None:
            await db.users.replace_hash(user.id, verified=verified, new=new_hash)
            rehashed = Event(Action.PASSWORD_REHASHED, SYSTEM, client, subject_id=user.id)
            await db.audit.add(rehashed, at=now)
        if self._max_sessions:
            evicted = await db.families.evict_oldest(user.id, keep=self._max_sessions - 1, now=now)
            await db.audit.add(*end_events(evicted, actor=SYSTEM, client=client), at=now)
        family, seed = self._new_family(user, client, now), secrets.token_bytes(_SEED_BYTES)
        await db.families.add(family, seed)
        await db.audit.add(_created(family, client), at=now)
        return Grant(
            now=now,
            user_id=user.id,
            family_id=family.id,
            generation=family.generation,
            seed=seed,
            client_id=family.client_id,
            scope=family.scope,
            role=family.role,
            authenticated_at=family.authenticated_at,
            idle_expires_at=family.idle_expires_at,
            expires_at=family.expires_at,
        )

    def _new_family(self, user: User, client: ClientContext, now: datetime) -> Family:
        device = describe_device(client.user_agent)
        expires_at = now + self._lifetimes.session
        return Family(
            user_id=user.id,
            id=uuid7(),
            generation=0,
            event_seq=1,
            client_id=FIRST_PARTY_CLIENT,
            scope="",  # nobody has registered what this client may have, so it is granted nothing
            role=user.role,
            authenticated_at=now,
            amr="pwd",  # RFC 8176 section 2
            acr=None,
            created_at=now,
            rotated_at=None,
            idle_expires_at=min(now + self._lifetimes.idle, expires_at),
            expires_at=expires_at,
            ended_at=None,
            end_reason=None,
            ended_by=None,
            attempt=None,
            replayed_generation=None,
            ride_along_generation=None,
            ride_along_count=0,
            created_ip=client.ip,
            last_ip=client.ip,
            user_agent=client.user_agent,
            device=device.device,
            browser=device.browser,
            os=device.os,
            label=None,
        )


def _created(family: Family, client: ClientContext) -> Event:
    return Event(
        Action.SESSION_CREATED,
        user_actor(family.user_id),
        client,
        subject_id=family.user_id,
        family_id=family.id,
        family_seq=family.event_seq,
        generation=family.generation,
        detail={"amr": [family.amr], "client_id": family.client_id, "scope": family.scope},
    )


def _lookup_key(username: str) -> str:
    """The canonical form; a name that has none is looked up as typed, finds nobody, and costs the same."""
    try:
        return username_key(username)
    except UsernameRefused:
        return username
