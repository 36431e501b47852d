"""Rotation, replay, reuse: what happens to a presented refresh token."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NoReturn, assert_never

from uuid_utils.compat import uuid7

from app.domain.clients import ClientContext
from app.domain.errors import InvalidScope, RefreshTokenRejected, Unavailable
from app.domain.events import ANONYMOUS, SYSTEM, Action, Event, Outcome, user_actor
from app.domain.families import (
    FIRST_PARTY_CLIENT,
    EndReason,
    Family,
    FastForward,
    Grant,
    Lapse,
    Lifetimes,
    Misdirected,
    RefreshDecision,
    Refuse,
    Replay,
    Restored,
    Reuse,
    TryAgain,
    Widened,
    decide_refresh,
    mark_replay,
)
from app.domain.refresh_token import RefreshToken
from app.observability.logs import get_logger
from app.observability.metrics import REFRESHES, RefreshOutcome
from app.repositories.database import Database, UnitOfWork
from app.repositories.rotations import RotationRepository
from app.services.ends import end_events
from app.services.tokens import IssuedTokens, TokenPairs

log = get_logger()

Scope = tuple[str, ...]

# Of a refusal's action and reason; any other is that of a session which is over.
_REFUSED: Final[dict[tuple[Action, str | None], RefreshOutcome]] = {
    (Action.REFRESH_FORGED, "wrong_proof"): RefreshOutcome.FORGED,
    (Action.REFRESH_REFUSED, "unknown_session"): RefreshOutcome.UNKNOWN_SESSION,
    (Action.REFRESH_MISDIRECTED, "wrong_client"): RefreshOutcome.WRONG_CLIENT,
}


@dataclass(frozen=True, slots=True)
class _Presentation:
    """One presented token and who presents it."""

    token: RefreshToken
    attempt: bytes | None
    client: ClientContext
    client_id: str
    scope: tuple[str, ...]

    def event(self, action: Action, **more: Any) -> Event:
        return Event(
            action,
            more.pop("actor", user_actor(self.token.user_id)),
            self.client,
            subject_id=self.token.user_id,
            family_id=self.token.family_id,
            **more,
        )


class Refresh:
    def __init__(
        self, database: Database, rotations: RotationRepository, pairs: TokenPairs, lifetimes: Lifetimes
    ) -> None:
        self._database = database
        self._rotations = rotations
        self._pairs = pairs
        self._lifetimes = lifetimes

    async def rotate(
        self,
        presented: str,
        *,
        idempotency_key: str | None,
        client: ClientContext,
        client_id: str = FIRST_PARTY_CLIENT,
        scope: tuple[str, ...] = (),
    ) -> IssuedTokens:
        """
        Spend a refresh token and issue the next generation of its family.

        One statement on the hot path; otherwise a look, which locks the family row. What a look finds is committed
        before a refusal is raised, or the rollback would undo the answer to an attack.

        Args:
            presented: As received; refused without a query unless its tag holds.
            idempotency_key: Lets the very request that rotated be repeated for an hour (by default).
            client_id: Who presents it; the family of another client is refused and lives on.
            scope: Narrows the new access token; the family keeps its own. Empty: all of that.
        Returns:
            The new pair; for a replay the same refresh token as the first time.
        Raises:
            RefreshTokenRejected: forged, unknown, expired, ended, reused, another client's; the cause is in the event.
            InvalidScope: more than the family was granted; nothing was spent.
            Unavailable: the database could not decide; the same token may be presented again.
        Source: RFC 6749 section 6, RFC 9700 section 4.14.2.
        """
        try:
            token = self._pairs.read(presented)
        except RefreshTokenRejected:
            REFRESHES.add(RefreshOutcome.NOISE)
            raise
        try:
            return await self._rotate(token, idempotency_key, client, client_id, scope)
        except Unavailable:
            REFRESHES.add(RefreshOutcome.UNAVAILABLE)
            raise

    async def _rotate(
        self, token: RefreshToken, idempotency_key: str | None, client: ClientContext, client_id: str, scope: Scope
    ) -> IssuedTokens:
        presentation = _Presentation(token, self._attempt(token, idempotency_key), client, client_id, scope)
        for _ in range(2):
            grant = await self._spend(presentation) or await self._look(presentation)
            if grant is not None:
                return self._pairs.issue(_narrowed(grant, scope))
        raise Unavailable(why="the family changed twice under a refresh")

    def _attempt(self, token: RefreshToken, key: str | None) -> bytes | None:
        if key is None:
            return None
        return self._pairs.keyring.attempt(
            token.key_id,
            user_id=token.user_id,
            family_id=token.family_id,
            generation=token.generation,
            key=key,
        )

    async def _spend(self, presentation: _Presentation) -> Grant | None:
        grant = await self._rotations.spend(
            presentation.token,
            half_proof=self._pairs.half_proof(presentation.token),
            attempt=presentation.attempt,
            idle=self._lifetimes.idle,
            client=presentation.client,
            client_id=presentation.client_id,
            scope=" ".join(presentation.scope),
            event_id=uuid7(),
        )
        if grant is not None:
            REFRESHES.add(RefreshOutcome.ROTATED)
            _tell(Action.SESSION_REFRESHED, presentation, generation=grant.generation)
        return grant

    async def _look(self, presentation: _Presentation) -> Grant | None:
        """
        The statement found nothing: find out why, write that, and answer.

        Returns the grant of a replay or a fast-forward; `None` asks for the statement once more.
        """
        token = presentation.token
        async with self._database.begin() as db:
            seed = await db.families.find_seed(token.user_id, token.family_id)
            if seed is None:
                # Genuine by its tag, but its row is gone: a lost tail, or a row deleted by hand.
                await self._refuse(db, presentation, Action.REFRESH_REFUSED, "unknown_session")
            elif not self._pairs.proves(token, seed):
                await self._refuse(db, presentation, Action.REFRESH_FORGED, "wrong_proof")
            else:
                return await self._decide(db, presentation)

    async def _decide(self, db: UnitOfWork, presentation: _Presentation) -> Grant | None:
        token = presentation.token
        family = await db.families.lock(token.user_id, token.family_id)
        if family is None:
            return None
        now = await db.now()
        decision = decide_refresh(
            family,
            presented=token.generation,
            attempt=presentation.attempt,
            now=now,
            lifetimes=self._lifetimes,
            client_id=presentation.client_id,
            scope=presentation.scope,
        )
        return await self._obey(db, presentation, family, decision, now)

    async def _obey(
        self, db: UnitOfWork, presentation: _Presentation, family: Family, decision: RefreshDecision, now: datetime
    ) -> Grant | None:
        match decision:
            case Refuse():
                await self._refuse(db, presentation, Action.REFRESH_REFUSED, family.end_reason)
            case Lapse(reason):
                await self._end(db, presentation, reason, now)
            case TryAgain():
                return None
            case Replay(by_key):
                return await self._replay(db, presentation, family, now, by_key=by_key)
            case Reuse():
                await self._end_for_reuse(db, presentation, family, now)
            case FastForward(lost):
                return await self._fast_forward(db, presentation, family, now, lost=lost)
            case Misdirected():
                await self._refuse(db, presentation, Action.REFRESH_MISDIRECTED, "wrong_client")
            case Widened():
                REFRESHES.add(RefreshOutcome.SCOPE_REFUSED)
                raise InvalidScope
            case Restored():
                await self._end(db, presentation, EndReason.RESTORE, now)
            case _:  # pragma: no cover
                assert_never(decision)

    async def _refuse(
        self, db: UnitOfWork, presentation: _Presentation, action: Action, reason: str | None
    ) -> NoReturn:
        """Count the refusal; the first of its minute is written as an event at once, the job sums up the rest."""
        token = presentation.token
        now = await db.now()
        if await db.refusals.count(token.user_id, token.family_id, action, now) == 1:
            if await db.users.is_erased(token.user_id):  # nothing new is to be kept of them
                presentation = replace(presentation, client=ClientContext(None, None, presentation.client.request_id))
            event = presentation.event(
                action, actor=ANONYMOUS, outcome=Outcome.FAILURE, reason=reason, generation=token.generation
            )
            await db.audit.add(event, at=now)
        await db.commit()
        REFRESHES.add(_REFUSED.get((action, reason), RefreshOutcome.ENDED))
        _tell(action, presentation, reason=reason)
        raise RefreshTokenRejected(why=reason)

    async def _end(self, db: UnitOfWork, presentation: _Presentation, reason: EndReason, now: datetime) -> NoReturn:
        """The family is past its limit or older than its own tokens: write the end, then refuse."""
        token = presentation.token
        ended = await db.families.end(token.user_id, token.family_id, reason=reason, by=None)
        events = end_events([ended], actor=SYSTEM, client=presentation.client) if ended else []
        await db.audit.add(*events, at=now)
        await db.commit()
        REFRESHES.add(RefreshOutcome.RESTORED if reason is EndReason.RESTORE else RefreshOutcome.EXPIRED)
        _tell(Action.SESSION_ENDED, presentation, reason=reason)
        raise RefreshTokenRejected(why=reason)

    async def _end_for_reuse(
        self, db: UnitOfWork, presentation: _Presentation, family: Family, now: datetime
    ) -> NoReturn:
        """
        Somebody has a copy: end the family, and say who both presenters are.

        The event holds this presenter's address and agent; the other's are in the rotation's event, which it names.
        """
        token = presentation.token
        newest = token.generation + 1 == family.generation
        rotation = await db.audit.find_rotation(
            token.user_id,
            token.family_id,
            generation=token.generation + 1,
            since=family.rotated_at if newest and family.rotated_at else family.created_at,
        )
        number = await db.families.take_event_number(token.user_id, token.family_id)
        reused = presentation.event(
            Action.REFRESH_REUSED,
            actor=ANONYMOUS,
            outcome=Outcome.FAILURE,
            reason=EndReason.REUSE,
            family_seq=number,
            generation=token.generation,
            detail={"rotation_event": rotation and str(rotation), "live_generation": family.generation},
        )
        ended = await db.families.end(token.user_id, token.family_id, reason=EndReason.REUSE, by=None)
        ends = end_events([ended], actor=SYSTEM, client=presentation.client) if ended else []
        await db.audit.add(reused, *ends, at=now)
        await db.commit()
        REFRESHES.add(RefreshOutcome.REUSED)
        _tell(Action.REFRESH_REUSED, presentation, reason=EndReason.REUSE)
        raise RefreshTokenRejected(why=EndReason.REUSE)

    async def _replay(
        self, db: UnitOfWork, presentation: _Presentation, family: Family, now: datetime, *, by_key: bool
    ) -> Grant:
        mark = mark_replay(family, presentation.client.ip)
        actions = [Action.SESSION_REPLAYED] * mark.log_replay
        actions += [Action.SESSION_RIDE_ALONG_SUSPECTED] * mark.suspected
        if mark.changes(family):
            grant = await db.families.mark_replay(family, mark, events=len(actions), now=now)
        else:
            grant = await db.families.get_grant(family, now)
        events = [
            presentation.event(
                action,
                reason="idempotency_key" if by_key else "grace",
                family_seq=family.event_seq + number,
                generation=family.generation,
            )
            for number, action in enumerate(actions, start=1)
        ]
        await db.audit.add(*events, at=now)
        await db.commit()
        REFRESHES.add(RefreshOutcome.REPLAYED)
        _tell(Action.SESSION_REPLAYED, presentation, suspected=mark.suspected)
        return grant

    async def _fast_forward(
        self, db: UnitOfWork, presentation: _Presentation, family: Family, now: datetime, *, lost: int
    ) -> Grant:
        grant = await db.families.fast_forward(
            family,
            presented=presentation.token.generation,
            attempt=presentation.attempt,
            ip=presentation.client.ip,
            now=now,
            idle=self._lifetimes.idle,
        )
        event = presentation.event(
            Action.SESSION_FAST_FORWARDED,
            family_seq=family.event_seq + 1,
            generation=grant.generation,
            detail={"lost_generations": lost},
        )
        await db.audit.add(event, at=now)
        await db.commit()
        REFRESHES.add(RefreshOutcome.FAST_FORWARDED)
        _tell(Action.SESSION_FAST_FORWARDED, presentation, lost=lost)
        return grant


def _narrowed(grant: Grant, scope: tuple[str, ...]) -> Grant:
    """In the order in which it was granted, whatever the order of the question."""
    return replace(grant, scope=" ".join(value for value in grant.scope.split() if value in scope)) if scope else grant


def _tell(action: Action, presentation: _Presentation, **more: object) -> None:
    log.info(action, user=str(presentation.token.user_id), session=str(presentation.token.family_id), **more)
