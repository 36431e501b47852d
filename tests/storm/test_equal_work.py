"""All failures of a sign-in are the same from outside: the work, the answer's bytes, its headers."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI

from app.domain.clients import ALIKE_FAILURES
from app.observability.statements import StatementWatch
from tests.conftest import PASSWORD, MakePerson, Person

WRONG = "wrong horse battery staple"
OURS = {"x-request-id", "date"}  # of the one answer, not of what it says


@dataclass
class Work:
    """What the server does."""

    hashes: int = 0
    statements: int = 0

    def take(self) -> tuple[int, int]:
        done, self.hashes, self.statements = (self.hashes, self.statements), 0, 0
        return done


@pytest.fixture
def work(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Work:
    done, hasher = Work(), app.state.container.hasher
    honest = hasher._context

    class Counting:
        needs_update, hash = honest.needs_update, honest.hash

        @staticmethod
        def verify(*given: Any) -> bool:
            done.hashes += 1
            right: bool = honest.verify(*given)
            return right

    def note(_watch: StatementWatch, _statement: str, _seconds: float, _failure: str | None = None) -> None:
        done.statements += 1

    monkeypatch.setattr(hasher, "_context", Counting)
    monkeypatch.setattr(StatementWatch, "note", note)
    return done


Failing = Callable[[Person, asyncpg.Connection], Awaitable[tuple[str, str]]]


async def unknown(_person: Person, _sql: asyncpg.Connection) -> tuple[str, str]:
    return f"nobody-{secrets.token_hex(8)}", PASSWORD


async def unusable(_person: Person, _sql: asyncpg.Connection) -> tuple[str, str]:
    return "\u202e" + secrets.token_hex(8), PASSWORD


async def wrong(person: Person, _sql: asyncpg.Connection) -> tuple[str, str]:
    return person.username, WRONG


async def disabled(person: Person, sql: asyncpg.Connection) -> tuple[str, str]:
    await changed(person.user.id, sql, "disabled_at = now()")
    return person.username, PASSWORD


async def disabled_and_wrong(person: Person, sql: asyncpg.Connection) -> tuple[str, str]:
    await changed(person.user.id, sql, "disabled_at = now()")
    return person.username, WRONG


async def without_password(person: Person, sql: asyncpg.Connection) -> tuple[str, str]:
    await changed(person.user.id, sql, "password_hash = NULL")
    return person.username, PASSWORD


async def to_be_changed(person: Person, sql: asyncpg.Connection) -> tuple[str, str]:
    await changed(person.user.id, sql, "must_change_password = true")
    return person.username, WRONG


async def changed(user_id: UUID, sql: asyncpg.Connection, assignment: str) -> None:
    await sql.execute(f"UPDATE users SET {assignment} WHERE id = $1", user_id)


@pytest.mark.case(45)
@pytest.mark.parametrize(
    "failing",
    [unusable, wrong, disabled, disabled_and_wrong, without_password, to_be_changed],
    ids=lambda failing: failing.__name__,
)
async def test_as_if_nobody_had_the_name(
    failing: Failing, http: httpx2.AsyncClient, make_person: MakePerson, sql: asyncpg.Connection, work: Work
) -> None:
    """One verification of a hash, as many statements, the same bytes and headers as for a name that nobody has."""

    async def look(failing: Failing) -> tuple[tuple[int, int], int, dict[str, Any], dict[str, str]]:
        username, password = await failing(await make_person(), sql)
        work.take()
        answer = await http.post("/token", data={"username": username, "password": password})
        body = answer.json()
        assert body.pop("request_id") == answer.headers["x-request-id"]
        return work.take(), answer.status_code, body, {k: v for k, v in answer.headers.items() if k not in OURS}

    for _ in range(ALIKE_FAILURES):  # so many are events; those of the known name are the first
        await look(unknown)
    expected = await look(unknown)
    assert expected[:2] == ((1, expected[0][1]), 401)
    assert expected[0][1] > 0
    assert await look(failing) == expected
