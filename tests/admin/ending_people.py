"""Administrators as a client sees them, and bulk ends as they order them."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest
import pytest_asyncio

from app.container import Container
from app.domain.users import Role
from app.services.revocation_work import Step
from tests.conftest import MakePerson, Person


@dataclass(frozen=True)
class Admin:
    """Somebody signed in who may act on others."""

    person: Person
    session_id: UUID
    access_token: str

    @property
    def id(self) -> UUID:
        return self.person.user.id

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}

    async def order(self, http: httpx2.AsyncClient, **body: Any) -> httpx2.Response:
        return await http.post("/admin/sessions/revocations", json=body, headers=self.headers)

    async def start(self, http: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
        """A dry run, and the order that it leads to."""
        seen = await self.order(http, **body, dry_run=True)
        assert seen.status_code == 200, seen.text
        started = await self.order(http, **body, fingerprint=seen.json()["fingerprint"], reason="ticket 4711")
        assert started.status_code == 202, started.text
        answer: dict[str, Any] = started.json()
        return answer


MakeAdmin = Callable[..., Awaitable[Admin]]


@pytest.fixture
def make_admin(make_person: MakePerson) -> MakeAdmin:
    async def make(role: Role = Role.ADMIN) -> Admin:
        person = await make_person(role=role)
        issued = await person.sign_in()
        return Admin(person, issued.session_id, issued.access_token)

    return make


@pytest_asyncio.fixture
async def admin(make_admin: MakeAdmin) -> Admin:
    return await make_admin()


@pytest.fixture
def name() -> str:
    """The beginning of the names of those whom a test is about."""
    return f"bulk-{secrets.token_hex(6)}"


async def work_off(services: Container, revocation_id: str, batches: int = 10_000) -> Step:
    """Do the batches of one bulk end, up to so many; the last step."""
    step = Step.NOTHING
    for _ in range(batches):
        step = await services.revocation_work.advance(UUID(revocation_id))
        if step is not Step.WORKED:
            break
    return step


async def insert_sessions(sql: asyncpg.Connection, name: str, number: int) -> None:
    """Sessions as sign-ins make them, but faster: ten a user, each with its first event, created just now."""
    await sql.execute(
        "INSERT INTO users (id, username, username_key, password_hash, role, created_at, password_changed_at)"
        " SELECT md5($1 || u)::uuid, $1 || '-' || u, $1 || '-' || u, 'none', 'user', now(), now()"
        " FROM generate_series(0, ($2 - 1) / 10) AS u",
        name,
        number,
    )
    await sql.execute(
        "INSERT INTO families (user_id, id, seed, generation, event_seq, client_id, scope, role, authenticated_at,"
        " amr, created_at, idle_expires_at, expires_at)"
        " SELECT md5($1 || n / 10)::uuid, (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '7000'"
        " || '8' || substr(md5($1 || 's' || n), 1, 15))::uuid, sha256(n::text::bytea), 0, 1, 'first-party', '', 'user',"
        " now(), 'pwd', now(), now() + interval '7 days', now() + interval '30 days'"
        " FROM generate_series(0, $2 - 1) AS n",
        name,
        number,
    )
    await sql.execute(
        "INSERT INTO audit_events (id, occurred_at, action, version, outcome, actor_kind, actor_id, subject_id,"
        " family_id, family_seq, generation, detail)"
        " SELECT gen_random_uuid(), created_at, 'session.created', 1, 'success', 'user', user_id, user_id, id, 1, 0,"
        """ '{"amr":["pwd"],"client_id":"first-party","scope":""}'"""
        " FROM families WHERE user_id IN (SELECT id FROM users WHERE username_key LIKE $1 || '-%')",
        name,
    )


async def check_lives(sql: asyncpg.Connection, name: str) -> tuple[int, int]:
    """
    How many sessions of those people have ended in bulk, and how many live; each ended one has exactly one end in the
    trail, as its last event, and no session's counter has a gap.
    """
    rows = await sql.fetch(
        "SELECT f.id, f.end_reason, f.event_seq, array_agg(e.family_seq ORDER BY e.family_seq) AS numbers,"
        " count(*) FILTER (WHERE e.action = 'session.ended') AS ends,"
        " max(e.family_seq) FILTER (WHERE e.action = 'session.ended') AS last"
        " FROM families AS f JOIN users AS u ON u.id = f.user_id"
        " LEFT JOIN audit_events AS e ON e.subject_id = f.user_id AND e.family_id = f.id AND e.family_seq IS NOT NULL"
        " WHERE u.username_key LIKE $1 || '-%' GROUP BY f.user_id, f.id",
        name,
    )
    for row in rows:
        assert row["numbers"] == list(range(1, row["event_seq"] + 1)), row
        over = row["end_reason"] is not None
        assert (row["ends"], row["last"]) == ((1, row["event_seq"]) if over else (0, None)), row
    ended = sum(row["end_reason"] in {"bulk_admin", "restore"} for row in rows)
    return ended, sum(row["end_reason"] is None for row in rows)
