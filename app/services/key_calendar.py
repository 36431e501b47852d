"""Which key signs, which secrets mint and verify, and who still depends on a former one."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.domain.clock import Clock
from app.domain.errors import TookTooLong, Unavailable
from app.domain.families import Lifetimes
from app.domain.key_calendar import (
    Calendar,
    Depending,
    KeyLine,
    SecretLine,
    SecretState,
    Start,
    listed_since,
    longest_dependence,
    minted_since,
    missing_of,
    pause_of,
    state_of,
    state_of_key,
)
from app.domain.password_token import LIFETIME
from app.repositories.database import Database
from app.security.keys import key_id, spell_key_id
from app.security.signing_keys import SigningKeys


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the database says; without it, only the host's time is known."""

    now: datetime
    unseen: str | None = None
    starts: Sequence[Start] = ()
    clients: dict[str, int] | None = None
    depending: Depending | None = None


class KeyCalendar:
    """
    Args:
        database: `None`: there is none to ask.
    """

    def __init__(self, secrets: Sequence[bytes], database: Database | None, clock: Clock, lifetimes: Lifetimes) -> None:
        self._secrets = tuple(secrets)
        self._database = database
        self._clock = clock
        self._lifetimes = lifetimes

    async def look(self, since: datetime | None = None) -> Calendar:
        """
        The calendar at this moment, by the database's clock, or by the host's if the database does not answer.

        Args:
            since: When the last process that minted with another secret had ended. By default that is taken to be the
                newest start or stop of a server: never too early, later than need be if servers came and went since.
        """
        ids = [spell_key_id(key_id(secret)) for secret in self._secrets]
        seen = await self._see(ids, since)
        secrets = tuple(
            SecretLine(
                each,
                state_of(each, first=not position, starts=seen.starts),
                listed_since(each, seen.starts),
                minted_since(each, seen.starts),
                None if seen.clients is None else seen.clients.get(each, 0),
            )
            for position, each in enumerate(ids)
        )
        missing = [] if ids else ["ROTA_SECRETS is not set: no server starts without a secret."]
        if len(set(ids)) != len(ids):
            missing.append("Two secrets have the same key id: replace the newer one by another.")
        if ids:
            missing += missing_of(ids, seen.starts, seen.clients or {})
        depending = seen.depending if any(each.state is SecretState.FORMER for each in secrets) else None
        return Calendar(seen.now, seen.unseen, secrets, self._keys(secrets, seen), depending, tuple(missing))

    def _keys(self, secrets: Sequence[SecretLine], seen: _Seen) -> tuple[KeyLine, ...]:
        lines = []
        access = self._lifetimes.access
        for key in SigningKeys(self._secrets).calendar(seen.now):
            secret = secrets[key.secret]
            mints = secret.state is SecretState.MINTS
            needed: datetime | None = key.ends_at + access if mints else None
            if secret.state is SecretState.FORMER and seen.depending and key.starts_at <= seen.depending.since:
                needed = min(key.ends_at, seen.depending.since) + access
            state = state_of_key(seen.now, key.starts_at, key.ends_at, mints=mints)
            lines.append(KeyLine(secret.id, key.kid, key.starts_at, key.ends_at, state, key.published_until, needed))
        return tuple(lines)

    async def _see(self, ids: Sequence[str], since: datetime | None) -> _Seen:
        if self._database is None:
            return _Seen(self._clock.on_host(), "ROTA_DATABASE_URL is not set")
        try:
            async with self._database.begin() as db:
                now, starts = await db.now(), await db.key_users.list_starts()
                stopped = await db.key_users.find_last_stop()
                clients = {spell_key_id(key): count for key, count in (await db.key_users.count_clients(now)).items()}
            depending = await self._depend(now, since or _settled(ids, starts, stopped))
        except Unavailable as error:
            return _Seen(self._clock.on_host(), f"the database does not answer ({error.why})")
        return _Seen(now, None, starts, clients, depending)

    async def _depend(self, now: datetime, since: datetime | None) -> Depending | None:
        if since is None or self._database is None:
            return None
        async with self._database.begin() as db:
            tokens = await db.key_users.count_password_tokens(since, now)
        sessions: int | None = None
        with contextlib.suppress(TookTooLong):
            async with self._database.begin() as db:
                sessions = await db.key_users.count_sessions(since, now)
        return Depending(
            since, sessions, tokens, pause_of(self._lifetimes), longest_dependence(since, self._lifetimes, LIFETIME)
        )


def _settled(ids: Sequence[str], starts: Sequence[Start], stopped: datetime | None) -> datetime | None:
    """Since when nobody mints with another secret, to be safe; `None`: the newest server still does."""
    if not ids or not starts or starts[0].key_ids[:1] != (ids[0],):
        return None
    return max(starts[0].at, stopped or starts[0].at)
