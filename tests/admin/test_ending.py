"""Ending one session, and all of a user, as an administrator."""

from collections import Counter

import asyncpg
import httpx2
import pytest
from uuid_utils.compat import uuid7

from app.domain.users import Role
from tests.admin.ending_people import Admin, MakeAdmin
from tests.admin.ending_people import admin as admin  # noqa: PLC0414 - a fixture
from tests.admin.ending_people import make_admin as make_admin  # noqa: PLC0414 - a fixture
from tests.conftest import Events, MakePerson, Person


async def test_one_ends_once(
    http: httpx2.AsyncClient, admin: Admin, person: Person, sql: asyncpg.Connection, events_of: Events
) -> None:
    """By id alone: reason, who did it and one event; a second time says that it was over, and writes nothing."""
    issued = await person.sign_in()
    first, second = [await http.delete(f"/admin/sessions/{issued.session_id}", headers=admin.headers) for _ in range(2)]
    assert (first.status_code, first.json()["ended"]) == (200, True)
    assert (second.status_code, second.json()["ended"]) == (200, False)
    row = await sql.fetchrow("SELECT * FROM families WHERE id = $1", issued.session_id)
    assert row is not None
    assert (row["end_reason"], row["ended_by"]) == ("admin", admin.id)
    assert row["ended_xact"] is not None
    (ended,) = [event for event in await events_of(person.user.id) if event["action"] == "session.ended"]
    assert (ended["actor_kind"], ended["actor_id"], ended["reason"]) == ("admin", admin.id, "admin")
    assert (ended["family_seq"], str(ended["ip"])) == (row["event_seq"], "203.0.113.7")
    assert (await http.get("/me", headers={"Authorization": f"Bearer {issued.access_token}"})).status_code == 401


async def test_all_of_a_user(
    http: httpx2.AsyncClient, admin: Admin, make_person: MakePerson, sql: asyncpg.Connection
) -> None:
    """All of that user's and of nobody else; a second time there is none left."""
    victim, other = await make_person(), await make_person()
    for _ in range(3):
        await victim.sign_in()
    kept = await other.sign_in()
    answers = [await http.delete(f"/admin/users/{victim.user.id}/sessions", headers=admin.headers) for _ in range(2)]
    assert [answer.json()["sessions_ended"] for answer in answers] == [3, 0]
    reasons = await sql.fetch("SELECT end_reason FROM families WHERE user_id = $1", victim.user.id)
    assert Counter(row["end_reason"] for row in reasons) == {"admin": 3}
    assert await sql.fetchval("SELECT ended_at FROM families WHERE id = $1", kept.session_id) is None


@pytest.mark.parametrize("path", ["/admin/sessions/{}", "/admin/users/{}/sessions"])
async def test_what_is_not_there(http: httpx2.AsyncClient, admin: Admin, path: str) -> None:
    """404 for nobody's id, 422 for what is no id."""
    assert (await http.delete(path.format(uuid7()), headers=admin.headers)).status_code == 404
    assert (await http.delete(path.format("x"), headers=admin.headers)).status_code == 422


@pytest.mark.parametrize("role", [Role.USER, Role.AUDITOR])
async def test_only_administrators_end(
    http: httpx2.AsyncClient, make_admin: MakeAdmin, role: Role, person: Person
) -> None:
    """Others are refused before anything is looked up; an auditor may follow a bulk end, and no more."""
    issued = await person.sign_in()
    caller = await make_admin(role)
    tried = [
        ("DELETE", f"/admin/sessions/{issued.session_id}"),
        ("DELETE", f"/admin/users/{person.user.id}/sessions"),
        ("POST", "/admin/sessions/revocations"),
        ("POST", f"/admin/sessions/revocations/{uuid7()}/cancel"),
    ]
    for method, path in tried:
        assert (await http.request(method, path, headers=caller.headers)).status_code == 403, path
    reading = [f"/admin/sessions/revocations/{uuid7()}", "/admin/sessions/revocations"]
    expected = [404, 200] if role is Role.AUDITOR else [403, 403]
    assert [(await http.get(path, headers=caller.headers)).status_code for path in reading] == expected
