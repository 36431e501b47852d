"""How a session begins, whoever has found out who the person is."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from app.domain.clients import ClientContext
from app.domain.events import SYSTEM, Action, Actor, Event, user_actor
from app.domain.families import FIRST_PARTY_CLIENT, EndReason, Family, Grant, Lifetimes
from app.domain.users import User
from app.repositories.database import UnitOfWork
from app.services.devices import describe_device
from app.services.ends import end_events

_SEED_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Terms:
    """
    What a session is opened for.

    Args:
        client_id: Through which client; only that one can refresh it.
        scope: What is granted, as space-separated words; nothing where nobody has registered what the client may have.
        amr: How the person was authenticated (RFC 8176), as space-separated words.
        actor: Who opened it; the user, unless a client vouches for them.
        authenticated_at: When, if not now.
        replaces: A session, by its user and id, that ends as this one begins: the browser's former one.
    """

    client_id: str = FIRST_PARTY_CLIENT
    scope: str = ""
    amr: str = "pwd"
    acr: str | None = None
    actor: Actor | None = None
    authenticated_at: datetime | None = None
    replaces: tuple[UUID, UUID] | None = None


class Opening:
    def __init__(self, lifetimes: Lifetimes, *, max_sessions: int) -> None:
        self._lifetimes = lifetimes
        self._max_sessions = max_sessions

    async def open(self, db: UnitOfWork, user: User, terms: Terms, client: ClientContext, now: datetime) -> Grant:
        """
        Write a session and its event; the one that it replaces, then the oldest beyond the limit, end in the same
        transaction.

        The caller holds the user's lock, which makes the limit race-free, and commits.

        Args:
            now: Since the lock is held.
        """
        if terms.replaces is not None:
            await _end_replaced(db, *terms.replaces, client, now)
        family, seed = self._new_family(user, terms, client, now), secrets.token_bytes(_SEED_BYTES)
        created = _created(family, terms, client)
        if not await db.openings.add(family, seed, created, limit=self._max_sessions, now=now):
            evicted = await db.families.evict_oldest(user.id, keep=self._max_sessions - 1, now=now)
            await db.audit.add(*end_events(evicted, actor=SYSTEM, client=client), at=now)
            await db.openings.add(family, seed, created, limit=0, now=now)
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
            amr=family.amr,
            acr=family.acr,
            idle_expires_at=family.idle_expires_at,
            expires_at=family.expires_at,
        )

    def _new_family(self, user: User, terms: Terms, client: ClientContext, now: datetime) -> Family:
        device = describe_device(client.user_agent)
        expires_at = now + self._lifetimes.session
        return Family(
            user_id=user.id,
            id=uuid7(),
            generation=0,
            event_seq=1,
            client_id=terms.client_id,
            scope=terms.scope,
            role=user.role,
            authenticated_at=terms.authenticated_at or now,
            amr=terms.amr,
            acr=terms.acr,
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


async def _end_replaced(db: UnitOfWork, user_id: UUID, session_id: UUID, client: ClientContext, now: datetime) -> None:
    """
    End what the browser was signed in to before, perhaps as somebody else: its user's own act, for it held their token.

    Two browsers that hold each other's sessions and sign in at once, both at their users' limits, may wait for each
    other; PostgreSQL ends one of the two, which is told to try again.
    """
    ended = await db.families.end(user_id, session_id, reason=EndReason.LOGOUT, by=user_id)
    if ended is not None:
        await db.audit.add(*end_events([ended], actor=user_actor(user_id), client=client), at=now)


def _created(family: Family, terms: Terms, client: ClientContext) -> Event:
    return Event(
        Action.SESSION_CREATED,
        terms.actor or user_actor(family.user_id),
        client,
        subject_id=family.user_id,
        family_id=family.id,
        family_seq=family.event_seq,
        generation=family.generation,
        detail={"amr": family.amr.split(), "client_id": family.client_id, "scope": family.scope},
    )
