"""The feed over HTTP: polls, pages, cursors, and who may ask."""

import asyncio
import base64
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI

from app.container import Container
from app.domain.api_clients import ClientScope
from app.domain.events import user_actor
from app.domain.families import EndReason
from tests.conftest import MovableClock, Person, client_at
from tests.feed.conftest import Credentials, end_sessions, make_client, open_sessions


async def ask(http: httpx2.AsyncClient, who: Credentials, path: str = "/revocations", **query: Any) -> dict[str, Any]:
    answer = await http.get(path, auth=who.basic, params=query)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


async def all_pages(http: httpx2.AsyncClient, who: Credentials, path: str, **query: Any) -> tuple[list[str], str]:
    """Sessions of all pages, and the last cursor."""
    sessions = []
    while True:
        page = await ask(http, who, path, **query)
        sessions += [entry["session"] for entry in page["entries"]]
        query["after"] = page["next"]
        if not page["more"]:
            return sessions, page["next"]


async def test_an_end_is_told_with_all_that_a_verifier_needs(
    http: httpx2.AsyncClient, consumer: Credentials, person: Person, services: Container
) -> None:
    """Session, user, time, class of reason, when to forget; the exact reason is not told."""
    _, start = await all_pages(http, consumer, "/revocations/snapshot")
    issued = await person.sign_in()
    await services.sessions.end(
        person.user.id,
        issued.session_id,
        actor=user_actor(person.user.id),
        client=client_at(),
        reason=EndReason.REUSE,
    )
    said = await ask(http, consumer, after=start)
    (entry,) = said["entries"]
    assert entry["session"] == str(issued.session_id)
    assert entry["user"] == str(person.user.id)
    assert entry["reason"] == "security"
    assert entry.keys() == {"session", "user", "ended_at", "reason", "exp", "jti", "set"}
    family, _ = await services.sessions.get(person.user.id, issued.session_id)
    assert family.ended_at is not None
    assert entry["ended_at"] == family.ended_at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert 900 <= entry["exp"] - family.ended_at.timestamp() < 901
    assert (await ask(http, consumer, after=said["next"]))["entries"] == []
    bare = await ask(http, consumer, after=start, sets="false")
    assert bare["entries"] == [{name: value for name, value in entry.items() if name != "set"}]
