"""Sessions by the thousand, as the product would have made them."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

FAMILIES = """
INSERT INTO families (user_id, id, seed, generation, event_seq, client_id, scope, role, authenticated_at, amr,
                      created_at, idle_expires_at, expires_at)
SELECT $1, id, sha256(id::text::bytea), 0, 1, 'first-party', '', 'user', $3, 'pwd', $3, $3::timestamptz + $4::interval,
       $3::timestamptz + interval '30 days'
  FROM unnest($2::uuid[]) AS id
"""
EVENTS = """
INSERT INTO audit_events (id, occurred_at, action, version, outcome, actor_kind, actor_id, subject_id, family_id,
                          family_seq, generation, detail)
SELECT gen_random_uuid(), $3, 'session.created', 1, 'success', 'user', $1, $1, id, 1, 0,
       '{"amr":["pwd"],"client_id":"first-party","scope":""}'
  FROM unnest($2::uuid[]) AS id
"""

MakeSessions = Callable[..., Awaitable[list[UUID]]]


@pytest.fixture
def make_sessions(own_sql: asyncpg.Connection) -> MakeSessions:
    """Sign a user in so many times at one moment, with the events."""

    async def make(user: UUID, number: int, at: datetime, idle: timedelta = timedelta(days=7)) -> list[UUID]:
        ids = [uuid7() for _ in range(number)]
        async with own_sql.transaction():
            await own_sql.execute(FAMILIES, user, ids, at, idle)
            await own_sql.execute(EVENTS, user, ids, at)
        return ids

    return make
