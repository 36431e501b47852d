"""A user's own sessions: see them, name them, end them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.domain.clients import ClientContext
from app.domain.errors import (
    CredentialsDisagree,
    InputInvalid,
    RefreshTokenRejected,
    SessionNotFound,
    UserNotFound,
)
from app.domain.events import Action, Actor, Event, user_actor
from app.domain.families import EndReason, Family
from app.domain.pages import Page, Position, page_of
from app.observability.logs import get_logger
from app.repositories.database import Database
from app.services.authentication import Caller
from app.services.ends import count_ended, end_events
from app.services.tokens import TokenPairs

log = get_logger()

RECENTLY_ENDED: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class SeenSessions:
    """Sessions, and the moment at which they were so: states depend on it."""

    page: Page[Family]
    now: datetime


class Sessions:
    def __init__(self, database: Database, pairs: TokenPairs) -> None:
        self._database = database
        self._pairs = pairs

    async def list_page(self, user_id: UUID, *, after: Position | None, limit: int) -> SeenSessions:
        """The user's live sessions and those ended within `RECENTLY_ENDED`, newest first."""
        async with self._database.begin() as db:
            now = await db.now()
            rows = await db.families.list_page(
                user_id, ended_since=now - RECENTLY_ENDED, before=after.id if after else None, limit=limit + 1
            )
        return SeenSessions(page_of(rows, limit, lambda family: Position(family.created_at, family.id)), now)

    async def get(self, user_id: UUID, session_id: UUID) -> tuple[Family, datetime]:
        """
        One session of the user, and the moment at which it was so.

        Raises:
            SessionNotFound: there is none of this user.
        """
        async with self._database.begin() as db:
            family = await db.families.find(user_id, session_id)
            now = await db.now()
        if family is None:
            raise SessionNotFound
        return family, now

    async def label(
        self, caller: Caller, session_id: UUID, label: str | None, *, client: ClientContext
    ) -> tuple[Family, datetime]:
        """
        Name a session, or take its name away. The trail tells that, not the name.

        Raises:
            SessionNotFound: there is none of this user that has not ended.
        """
        async with self._database.begin() as db:
            family = await db.families.lock(caller.user_id, session_id)
            if family is None or family.ended_at is not None:
                raise SessionNotFound
            now = await db.now()
            number = await db.families.set_label(caller.user_id, session_id, label)
            event = Event(
                Action.SESSION_LABELLED,
                user_actor(caller.user_id),
                client,
                subject_id=caller.user_id,
                family_id=session_id,
                family_seq=number,
                generation=family.generation,
            )
            await db.audit.add(event, at=now)
            await db.commit()
        return await self.get(caller.user_id, session_id)

    async def end(
        self, user_id: UUID, session_id: UUID, *, actor: Actor, client: ClientContext, reason: EndReason
    ) -> bool:
        """
        End one session. False if it was over before; then nothing is written but, if it is due, the end of a lapsed
        one with the limit that passed.

        Raises:
            SessionNotFound: there is none of this user.
        """
        async with self._database.begin() as db:
            family = await db.families.lock(user_id, session_id)
            if family is None:
                raise SessionNotFound
            now = await db.now()
            ended = await db.families.end(user_id, session_id, reason=reason, by=actor.id)
            if ended is None:
                return False
            await db.audit.add(*end_events([ended], actor=actor, client=client), at=now)
            await db.commit()
        log.info(Action.SESSION_ENDED, user=str(user_id), session=str(session_id), reason=ended.end_reason)
        return not ended.lapsed

    async def get_anybodys(self, session_id: UUID) -> tuple[Family, datetime]:
        """
        As `get`, whosever it is.

        Raises:
            SessionNotFound: there is none.
        """
        async with self._database.begin() as db:
            user_id = await db.families.find_owner(session_id)
        if user_id is None:
            raise SessionNotFound
        return await self.get(user_id, session_id)

    async def end_anybodys(self, session_id: UUID, *, actor: Actor, client: ClientContext) -> bool:
        """
        End one session, whosever it is; false if it was over before.

        Raises:
            SessionNotFound: there is none.
        """
        async with self._database.begin() as db:
            user_id = await db.families.find_owner(session_id)
        if user_id is None:
            raise SessionNotFound
        return await self.end(user_id, session_id, actor=actor, client=client, reason=EndReason.ADMIN)

    async def end_all_of(self, user_id: UUID, *, actor: Actor, client: ClientContext) -> int:
        """
        End all of a user's sessions; how many there were.

        Raises:
            UserNotFound: there is none.
        """
        async with self._database.begin() as db:
            if await db.users.lock(user_id) is None:  # and no sign-in slips between
                raise UserNotFound
            now = await db.now()
            ended = await db.families.end_all(user_id, reason=EndReason.ADMIN, by=actor.id)
            await db.audit.add(*end_events(ended, actor=actor, client=client), at=now)
            await db.commit()
        log.info(Action.SESSION_ENDED, user=str(user_id), ended=len(ended), reason=EndReason.ADMIN)
        return count_ended(ended)

    async def end_others(self, caller: Caller, *, client: ClientContext) -> int:
        """End all of the caller's sessions but the one they speak from; how many there were."""
        actor = user_actor(caller.user_id)
        async with self._database.begin() as db:
            await db.users.lock(caller.user_id)  # no sign-in slips between
            now = await db.now()
            ended = await db.families.end_all(
                caller.user_id, keep=caller.session_id, reason=EndReason.LOGOUT_ALL, by=actor.id
            )
            await db.audit.add(*end_events(ended, actor=actor, client=client), at=now)
            await db.commit()
        log.info(Action.SESSION_ENDED, user=str(caller.user_id), ended=len(ended), reason=EndReason.LOGOUT_ALL)
        return count_ended(ended)

    async def log_out(self, caller: Caller, *, refresh_token: str | None, client: ClientContext) -> bool:
        """
        End the session that the access token is of; false if it was over before.

        Raises:
            InputInvalid: the refresh token beside it is of another session; nothing is guessed and none is ended.
        """
        beside = self._pairs.find(refresh_token) if refresh_token else None
        if beside is not None and beside.family_id != caller.session_id:
            raise InputInvalid("The access token and the refresh token are of different sessions.")
        return await self.end(
            caller.user_id,
            caller.session_id,
            actor=user_actor(caller.user_id),
            client=client,
            reason=EndReason.LOGOUT,
        )

    async def log_out_with_refresh_token(self, presented: str, *, client: ClientContext) -> tuple[UUID, bool]:
        """
        End the session that a refresh token is of, live or spent: whoever held any of its tokens may end it.

        Returns:
            The session, and false if it was over before.
        Raises:
            RefreshTokenRejected: not a token of any of our sessions.
        """
        self._pairs.read(presented)
        proven = await self.find_proven(presented)
        if proven is None:
            raise RefreshTokenRejected(why="logout with a token that proves nothing")
        user_id, session_id = proven
        actor = user_actor(user_id)
        ended = await self.end(user_id, session_id, actor=actor, client=client, reason=EndReason.LOGOUT)
        return session_id, ended

    async def find_proven(self, presented: str) -> tuple[UUID, UUID] | None:
        """User and id of the session that a refresh token is of, live or spent; `None` if it proves to be of none."""
        token = self._pairs.find(presented)
        if token is None:
            return None
        async with self._database.begin() as db:
            seed = await db.families.find_seed(token.user_id, token.family_id)
        if seed is None or not self._pairs.proves(token, seed):
            return None
        return token.user_id, token.family_id

    def check_agreement(self, cookie: str, *, session_id: UUID | None, refresh_token: str | None) -> None:
        """
        See that what a request carries beside its cookie is of the same session.

        A cookie of none of our sessions disagrees with no access token: it is on its way out.

        Args:
            session_id: Of the access token, if there is one of ours.
            refresh_token: Of the body.
        Raises:
            CredentialsDisagree: it is not.
        """
        token = self._pairs.find(cookie)
        of = token.family_id if token else None
        if None not in {of, session_id} and of != session_id:
            raise CredentialsDisagree(why="access token")
        if refresh_token is not None and refresh_token != cookie:
            beside = self._pairs.find(refresh_token)
            if beside is None or beside.family_id != of:
                raise CredentialsDisagree(why="refresh token")
