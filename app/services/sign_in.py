"""From a password to a session."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, NoReturn
from uuid import UUID

from app.domain.clients import ALIKE_FAILURES, ClientContext, failure_source
from app.domain.errors import (
    InputInvalid,
    InvalidCredentials,
    OneTimePasswordElsewhere,
    PasswordChangeRequired,
    TooBusy,
    TooManyAttempts,
    Unavailable,
    UserDisabled,
    UserNotFound,
)
from app.domain.events import ANONYMOUS, NOBODY, SYSTEM, Action, Event, Outcome
from app.domain.families import FIRST_PARTY_CLIENT, Lifetimes
from app.domain.users import User
from app.observability.logs import get_logger
from app.observability.metrics import SIGN_INS, SignInOutcome
from app.repositories.database import Database, UnitOfWork
from app.security.keys import Keyring
from app.security.passwords import PasswordHasher
from app.services.credentials import Credentials, record_refusal
from app.services.opening import Opening, Terms
from app.services.throttling import Attempt, Throttling, Verdict
from app.services.tokens import IssuedTokens, TokenPairs

log = get_logger()

OF_OUR_OWN_ROUTES: Final = Terms()
CLOCKS_APART: Final = timedelta(seconds=60)  # by which a client's clock may be ahead of the database's


class SignIn:
    def __init__(
        self,
        database: Database,
        hasher: PasswordHasher,
        keyring: Keyring,
        pairs: TokenPairs,
        lifetimes: Lifetimes,
        credentials: Credentials,
        throttling: Throttling,
        *,
        max_sessions: int,
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._keyring = keyring
        self._pairs = pairs
        self._lifetimes = lifetimes
        self._credentials = credentials
        self._throttling = throttling
        self._opening = Opening(lifetimes, max_sessions=max_sessions)

    def admit(self) -> None:
        """
        Nothing, unless a sign-in would be refused at once: so that a storm of them can be, before each is read.

        Raises:
            TooBusy: too many passwords wait for hashing.
        """
        try:
            self._hasher.admit()
        except TooBusy:
            SIGN_INS.add(SignInOutcome.TOO_BUSY)
            raise

    async def with_password(
        self,
        username: str,
        password: str,
        *,
        client: ClientContext,
        terms: Terms = OF_OUR_OWN_ROUTES,
        device_tokens: Sequence[str] = (),
    ) -> IssuedTokens:
        """
        Open a session for whoever knows the password.

        Unknown user, wrong password and disabled user cost the same work and get the same answer. No connection is
        held while the password is hashed. The oldest session beyond the limit ends in the same transaction.

        Args:
            device_tokens: As received; see `Throttling.admit`.
        Raises:
            TooManyAttempts: the password was not looked at, after too many that were wrong.
            InvalidCredentials: also when the password was changed or the user disabled during the sign-in, and when a
                one-time password is past its time.
            PasswordChangeRequired: the password is right, and good for setting another one only.
            OneTimePasswordElsewhere: likewise, through a client.
            TooBusy: too many passwords wait for hashing.
        """
        try:
            async with self._hasher.turn():
                return await self._with_password(username, password, client, terms, device_tokens)
        except TooManyAttempts as refused:
            SIGN_INS.add(refused.why or "")
            raise
        except TooBusy:
            SIGN_INS.add(SignInOutcome.TOO_BUSY)
            raise
        except Unavailable:
            SIGN_INS.add(SignInOutcome.UNAVAILABLE)
            raise

    async def _with_password(
        self, username: str, password: str, client: ClientContext, terms: Terms, device_tokens: Sequence[str]
    ) -> IssuedTokens:
        async with self._throttling.admit(username, device_tokens, client=client) as attempt:
            for turn in range(2):
                user = await self._find(attempt.key) if turn else attempt.user
                right = await self._hasher.verify(password, user.password_hash if user else None)
                if user is None or user.password_hash is None or not right or user.disabled_at is not None:
                    break
                outdated = self._hasher.is_outdated(user.password_hash)
                new_hash = await self._hasher.hash(password) if outdated else None
                async with self._database.begin() as db:
                    # As locked: the role that was read before the password was hashed may be lost by now.
                    if found := await db.users.lock_verified(user.id, user.password_hash):
                        locked, now = found
                        if locked.must_change_password:
                            await self._demand_another(db, locked, terms, client, attempt)
                        if new_hash is not None:
                            await self._replace_hash(db, user.id, user.password_hash, new_hash, client, now)
                        grant = await self._opening.open(db, locked, terms, client, now)
                        device = await self._throttling.passed(db, attempt)
                        await db.commit()
                        SIGN_INS.add(SignInOutcome.OPENED)
                        known = attempt.device is not None
                        log.info(
                            Action.SESSION_CREATED, user=str(user.id), session=str(grant.family_id), known_device=known
                        )
                        return replace(self._pairs.issue(grant), device_token=device)
                # Disabled, changed, or the same password hashed anew by a sign-in beside this one: look once more.
            return await self._refuse(attempt, user, client)

    async def vouched(self, user_id: UUID, terms: Terms, *, client: ClientContext) -> IssuedTokens:
        """
        Open a session for a person whom the client of the terms has authenticated itself.

        The user row is locked first, as at a sign-in: no session slips past a disabling, and the cap holds. Whether
        the user has a password does not matter.

        Args:
            client: Address and agent of the person, as the client saw them.
        Raises:
            UserNotFound, UserDisabled: as they say.
            InputInvalid: authenticated in the future, or longer ago than a session may live.
        """
        async with self._database.begin() as db:
            user = await db.users.lock(user_id)
            if user is None:
                raise UserNotFound
            if user.disabled_at is not None:
                raise UserDisabled
            now = await db.now()
            if terms.authenticated_at is not None:
                if not now - self._lifetimes.session <= terms.authenticated_at <= now + CLOCKS_APART:
                    raise InputInvalid(
                        "auth_time must be in the past, by no more than a session may live.", field="auth_time"
                    )
                terms = replace(terms, authenticated_at=min(terms.authenticated_at, now))
            grant = await self._opening.open(db, user, terms, client, now)
            await db.commit()
        SIGN_INS.add(SignInOutcome.VOUCHED)
        log.info(Action.SESSION_CREATED, user=str(user_id), session=str(grant.family_id), client=terms.client_id)
        return self._pairs.issue(grant)

    async def _find(self, key: str) -> User | None:
        async with self._database.begin() as db:
            return await db.users.find_by_key(key)

    async def _refuse(self, attempt: Attempt, user: User | None, client: ClientContext) -> NoReturn:
        """Each failure is counted; the first few of a minute that are alike are events, the job sums up the rest."""
        attempt.verdict = Verdict.WRONG  # it stays counted, too, if none of this can be written now
        reason = "unknown_user" if user is None else "disabled" if user.disabled_at else "wrong_password"
        event = Event(
            Action.LOGIN_FAILED,
            ANONYMOUS,
            client,
            outcome=Outcome.FAILURE,
            reason=reason,
            subject_id=user.id if user else NOBODY,
            detail={} if user else {"name_digest": self._keyring.name_digest(attempt.key)},
        )
        async with self._database.begin() as db:
            now = await db.now()
            source = failure_source(client.ip)
            alike = await db.refusals.count_login(event.subject_id, reason, source, now)
            await db.audit.add_if(event, wanted=alike <= ALIKE_FAILURES, at=now)
            await self._throttling.failed(db, attempt, now)
            await db.commit()
        SIGN_INS.add(reason)
        log.info(Action.LOGIN_FAILED, user=str(user.id) if user else None, reason=reason)
        raise InvalidCredentials(why=reason)

    async def _demand_another(
        self, db: UnitOfWork, user: User, terms: Terms, client: ClientContext, attempt: Attempt
    ) -> NoReturn:
        """No session for a one-time password, but the token by which another one is set; of our own routes only."""
        if terms.client_id != FIRST_PARTY_CLIENT:
            await self._throttling.passed(db, attempt, signed_in=False)
            await record_refusal(db, user.id, "one_time_password_elsewhere", client)
            await db.commit()
            raise OneTimePasswordElsewhere(why="through a client")
        token = await self._credentials.exchange(db, user, client)
        if token is None:
            await record_refusal(db, user.id, "one_time_password_expired", client)
            await self._throttling.failed(db, attempt, await db.now())
        else:
            await self._throttling.passed(db, attempt, signed_in=False)
        await db.commit()
        if token is None:
            SIGN_INS.add(SignInOutcome.ONE_TIME_PASSWORD_EXPIRED)
            raise InvalidCredentials(why="one_time_password_expired")
        SIGN_INS.add(SignInOutcome.PASSWORD_CHANGE_REQUIRED)
        log.info("login.password_change_required", user=str(user.id))
        raise PasswordChangeRequired(token.token, expires_in=token.expires_in)

    async def _replace_hash(
        self, db: UnitOfWork, user_id: UUID, verified: str, new_hash: str, client: ClientContext, now: datetime
    ) -> None:
        """The same password, hashed as it is done today."""
        await db.users.replace_hash(user_id, verified=verified, new=new_hash)
        await db.audit.add(Event(Action.PASSWORD_REHASHED, SYSTEM, client, subject_id=user_id), at=now)
