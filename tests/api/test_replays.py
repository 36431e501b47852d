"""
What somebody may read or do, asked again by others: the very same request with another's credentials, and with none.

Over all routes with an id of somebody's in them, found in the application: a new one is covered when it is there.
"""

import re
from typing import Any
from uuid import UUID

import httpx2
from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.api.dependencies import Access
from app.domain.users import Role
from tests.conftest import MakePerson, Person

BODIES: dict[str, Any] = {"PATCH": {"label": "mine", "disabled": True, "role": "user"}, "PUT": {}, "POST": {}}
HIDDEN = {401, 403, 404}


def routes_with_ids(app: FastAPI) -> list[tuple[str, APIRoute]]:
    return [
        (method, route)
        for route in app.routes
        if isinstance(route, APIRoute) and re.search(r"{(user|session|event|revocation)_id", route.path)
        for method in sorted(route.methods or ())
    ]


def body_for(route: APIRoute, method: str) -> dict[str, Any] | None:
    """A body with the members that the route knows, of those that do harm."""
    described = (route.openapi_extra or {}).get("requestBody")
    if described is None:
        return None
    known = next(iter(described["content"].values()))["schema"].get("properties", {})
    return {name: value for name, value in BODIES.get(method, {}).items() if name in known}


async def token(person: Person) -> dict[str, str]:
    return {"Authorization": f"Bearer {(await person.sign_in()).access_token}"}


async def test_what_one_may_do_is_replayed_by_others_in_vain(
    app: FastAPI, http: httpx2.AsyncClient, make_person: MakePerson
) -> None:
    """
    A64, A65: whoever is not signed in gets 401; another user 403, or on routes of one's own 404; never a word of whose
    it is. After all of it the victim's session lives and has its name.
    """
    victim, other, admin = await make_person(), await make_person(), await make_person(role=Role.ADMIN)
    session = await victim.sign_in()
    victims = {"Authorization": f"Bearer {session.access_token}"}
    as_other, as_admin = await token(other), await token(admin)
    events = (await http.get("/me/events", headers=victims)).json()["items"]
    ids = {"user_id": victim.user.id, "session_id": session.session_id, "event_id": UUID(events[0]["id"])}
    ids["revocation_id"] = await _revocation(http, as_admin)
    allowed = 0
    for method, route in routes_with_ids(app):
        path = re.sub(r"{(\w+)}", lambda found: str(ids[found.group(1)]), route.path)
        body, access = body_for(route, method), (route.openapi_extra or {})["x-access"]
        if access == Access.CLIENT:
            continue  # programs and people are told apart in tests/admin/test_access.py
        reader = victims if access == Access.SIGNED_IN else as_admin
        if method == "GET":  # what is replayed is a request that works; those that act would end the session
            worked = await http.request(method, path, headers=reader)
            assert worked.status_code in {200, 409}, (method, path, worked.text)
            allowed += 1
        for headers, wanted in (({}, {401}), (as_other, HIDDEN - {401})):
            answer = await http.request(method, path, headers=headers, json=body)
            assert answer.status_code in wanted, (method, path, answer.status_code)
            assert victim.username not in answer.text, (method, path)
            assert set(answer.json()) <= {
                "type", "title", "status", "detail", "code", "request_id", "error", "error_description",
            }, (method, path)  # fmt: skip
    assert allowed >= 5
    mine = (await http.get(f"/sessions/{session.session_id}", headers=victims)).json()
    assert (mine["state"], mine["label"]) == ("active", None)


async def _revocation(http: httpx2.AsyncClient, as_admin: dict[str, str]) -> UUID:
    """A bulk end of nobody's sessions."""
    order: dict[str, Any] = {"filter": {"client": "nobody-at-all"}}
    path = "/admin/sessions/revocations"
    tried = await http.post(path, json={**order, "dry_run": True}, headers=as_admin)
    order |= {"fingerprint": tried.json()["fingerprint"], "reason": "to be looked at"}
    started = await http.post(path, json=order, headers=as_admin)
    return UUID(started.json()["id"])
