"""
The two hot statements: spend a refresh token, and ask whether a session lives.

Each is one round trip in autocommit. They are written as SQL because what they lock, compare and log must be read,
not derived.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.domain.clients import ClientContext
from app.domain.events import EVENT_VERSION, Action, ActorKind, Outcome
from app.domain.families import Grant
from app.domain.refresh_token import RefreshToken
from app.domain.users import Role
from app.observability.metrics import EVENTS_WRITTEN
from app.repositories.database import Database

# READ COMMITTED re-checks the WHERE on the row version that won, so of two simultaneous uses one finds zero rows.
# The event commits with the change or not at all. What is compared is a digest of the proof: a logged statement holds
# no token. The times written are of the moment the row was won, so that a family's times never go back. The update is
# HOT: no index stands on a column that is written here. Whose token it is and what was granted are conditions like the
# rest: a client that presents another's token, or asks for more than was granted, spends nothing.
ROTATE: Final = f"""
WITH spent AS (
  UPDATE families
     SET generation = generation + 1,
         event_seq = event_seq + 1,
         rotated_at = coalesce($1, clock_timestamp()),
         idle_expires_at = least(coalesce($1, clock_timestamp()) + $2::interval, expires_at),
         last_ip = $3,
         attempt = $4
   WHERE user_id = $5 AND id = $6 AND generation = $7 AND ended_at IS NULL
     AND idle_expires_at > coalesce($1, statement_timestamp())
     AND expires_at > coalesce($1, statement_timestamp())
     AND client_id = $13 AND ($14 = '' OR string_to_array(scope, ' ') @> string_to_array($14, ' '))
     AND sha256(sha256(seed || $8::bytea)) = $9::bytea
  RETURNING user_id, id, generation, event_seq, rotated_at, seed, client_id, scope, role, authenticated_at,
            amr, acr, idle_expires_at, expires_at
), logged AS (
  INSERT INTO audit_events (id, occurred_at, action, version, outcome, actor_kind, actor_id, subject_id, family_id,
                            family_seq, generation, ip, user_agent, request_id)
  SELECT $10, rotated_at, '{Action.SESSION_REFRESHED}', {EVENT_VERSION}, '{Outcome.SUCCESS}', '{ActorKind.USER}',
         user_id, user_id, id, event_seq, generation, $3, $11, $12
    FROM spent
)
SELECT rotated_at, generation, seed, client_id, scope, role, authenticated_at, amr, acr, idle_expires_at, expires_at
  FROM spent
"""  # noqa: S608 - constants of the vocabulary

LIVENESS: Final = """
SELECT coalesce($1, statement_timestamp()) AS now, ended_at, idle_expires_at, expires_at
  FROM families WHERE user_id = $2 AND id = $3
"""


@dataclass(frozen=True, slots=True)
class Liveness:
    """One read of a session by its key."""

    now: datetime
    ended_at: datetime | None
    idle_expires_at: datetime
    expires_at: datetime

    @property
    def active(self) -> bool:
        return self.ended_at is None and self.now < self.idle_expires_at and self.now < self.expires_at


class RotationRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def spend(
        self,
        token: RefreshToken,
        *,
        half_proof: bytes,
        attempt: bytes | None,
        idle: timedelta,
        client: ClientContext,
        client_id: str,
        scope: str,
        event_id: UUID,
    ) -> Grant | None:
        """
        Spend the token if it is the live one of an active family, and write the event.

        Changes and commits by itself. `None`: nothing was changed, for whatever reason.

        Args:
            client_id: The family must be this client's.
            scope: Must be a part of what the family was granted; empty is.

        Raises:
            Unavailable: operational trouble; the token may have been spent, and the same token again finds out.
        """
        row = await self._database.fetch_one(
            ROTATE,
            self._database.clock.for_database(),
            idle,
            client.ip,
            attempt,
            token.user_id,
            token.family_id,
            token.generation,
            half_proof,
            token.proof_digest,
            event_id,
            client.user_agent,
            client.request_id,
            client_id,
            scope,
        )
        if row is None:
            return None
        EVENTS_WRITTEN.add(Action.SESSION_REFRESHED)
        return Grant(
            now=row["rotated_at"],
            user_id=token.user_id,
            family_id=token.family_id,
            generation=row["generation"],
            seed=row["seed"],
            client_id=row["client_id"],
            scope=row["scope"],
            role=Role(row["role"]),
            authenticated_at=row["authenticated_at"],
            amr=row["amr"],
            acr=row["acr"],
            idle_expires_at=row["idle_expires_at"],
            expires_at=row["expires_at"],
        )

    async def find_liveness(self, user_id: UUID, family_id: UUID) -> Liveness | None:
        """`None`: there is no such session."""
        now = self._database.clock.for_database()
        row = await self._database.fetch_one(LIVENESS, now, user_id, family_id)
        return row and Liveness(row["now"], row["ended_at"], row["idle_expires_at"], row["expires_at"])
