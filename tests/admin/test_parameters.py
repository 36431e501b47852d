"""Query parameters and answers of all routes under /admin: one manner, whoever wrote the route."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from fastapi.routing import APIRoute

from app.api.dependencies import Access
from app.main import SURFACE
from tests.admin.conftest import Office

ROUTES = [
    (method, route)
    for module in SURFACE
    for route in module.router.routes
    if isinstance(route, APIRoute) and route.path.startswith("/admin")
    for method in sorted(route.methods or ())
]
PEOPLES = [(method, route) for method, route in ROUTES if (route.openapi_extra or {})["x-access"] != Access.CLIENT]


def names(found: list[tuple[str, APIRoute]]) -> list[str]:
    return [f"{method} {route.path}" for method, route in found]


def path_of(route: APIRoute) -> str:
    return re.sub(r"{which}", "former", re.sub(r"{\w+_id}|{client}", str(uuid4()), route.path))


@pytest.mark.case(70)
@pytest.mark.parametrize(("method", "route"), PEOPLES, ids=names(PEOPLES))
async def test_a_parameter_that_no_route_knows_is_refused(office: Office, method: str, route: APIRoute) -> None:
    """On every route, before anything is looked up or done; the sender's text is not repeated."""
    found = await office.refused(method, path_of(route), 422, "input_invalid", params={"unheard_of": "1"})
    assert [(error["loc"], error["type"]) for error in found["errors"]] == [(["query"], "extra_forbidden")]
    assert "unheard" not in str(found)


REPEATED = {
    "/admin/sessions": ("state", "active", "ended"),
    "/admin/sessions/export": ("format", "csv", "ndjson"),
    "/admin/sessions/{session_id}": ("limit", "1", "2"),
    "/admin/sessions/revocations": ("limit", "1", "2"),
    "/admin/users": ("role", "user", "admin"),
    "/admin/events": ("limit", "1", "2"),
    "/admin/events/histogram": ("bucket", "hour", "day"),
    "/admin/stats": ("bucket", "hour", "day"),
    "/admin/clients": ("limit", "1", "2"),
}


@pytest.mark.case(70)
@pytest.mark.parametrize("path", REPEATED)
async def test_of_two_values_none_is_dropped_unseen(office: Office, path: str) -> None:
    """A parameter stands once, in every list; `action`, which is a list, may be repeated."""
    name, one, other = REPEATED[path]
    filled = re.sub(r"{\w+}", str(uuid4()), path)
    found = await office.refused("GET", f"{filled}?{name}={one}&{name}={other}", 422, "input_invalid")
    assert found["errors"] == [{"loc": ["query", name], "type": "repeated", "msg": "must stand once"}]
    await office.ok("GET", "/admin/events?action=user.created&action=session.created")


BACKWARDS = "?{}=2026-01-02&{}=2026-01-01"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ("/admin/sessions?after=zz", "after"),
        ("/admin/users?after=zz", "after"),
        ("/admin/events?after=zz", "after"),
        ("/admin/clients?after=zz", "after"),
        ("/admin/sessions/revocations?after=zz", "after"),
        ("/admin/sessions" + BACKWARDS.format("created_from", "created_to"), "created_to"),
        ("/admin/sessions/export" + BACKWARDS.format("last_used_from", "last_used_to"), "last_used_to"),
        ("/admin/users" + BACKWARDS.format("created_from", "created_to"), "created_to"),
        ("/admin/events" + BACKWARDS.format("from", "to"), "to"),
        ("/admin/stats" + BACKWARDS.format("from", "to"), "from"),
        ("/admin/stats?from=2020-01-01", "from"),
        ("/admin/events?ip=1.2.3", "ip"),
        ("/admin/events?action=nonsense", "action"),
        ("/admin/events?from=yesterday", "from"),
        ("/admin/sessions?ip_scope=any", "ip_scope"),
    ],
)
async def test_what_is_wrong_is_named_in_one_form(office: Office, asked: str, field: str) -> None:
    """422 with `errors`, whose `loc` names the parameter: no list says it in another way."""
    found = await office.refused("GET", asked, 422, "input_invalid")
    assert [error["loc"][:2] for error in found["errors"]] == [["query", field]]


def test_every_reference_of_the_api_document_leads_somewhere(office: Office) -> None:
    """A generator of clients stops at the first that does not; so the enums of bodies are in it."""
    document = office.app.openapi()
    dangling = [reference for reference in _references(document) if _followed(document, reference) is None]
    assert dangling == []
    body = document["paths"]["/admin/users"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["role"]["enum"] == ["user", "auditor", "admin"]
    assert body["properties"]["role"]["default"] == "user"
    revocations = document["paths"]["/admin/sessions/revocations"]["post"]["requestBody"]["content"]
    filters = revocations["application/json"]["schema"]["properties"]["filter"]["anyOf"][0]["properties"]
    assert filters["state"]["anyOf"][0]["enum"] == ["active", "lapsed", "ended"]


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, list):
        for each in part:
            yield from _references(each)
    elif isinstance(part, dict):
        for name, value in part.items():
            if name == "$ref":
                yield value
            else:
                yield from _references(value)


def _followed(document: Any, reference: str) -> Any:
    for step in reference.removeprefix("#/").split("/"):
        document = document.get(step) if isinstance(document, dict) else None
    return document


@pytest.mark.parametrize("member", ["ip", "created_from"])
@pytest.mark.parametrize("value", [True, 1, 1.5, ["::1"]], ids=str)
async def test_what_is_read_from_text_is_text(office: Office, member: str, value: Any) -> None:
    """In JSON `true` is no address and `1` no moment: a filter that means something else ends other sessions."""
    answer = await office.http.post(
        "/admin/sessions/revocations",
        json={"filter": {member: value}, "dry_run": True},
        headers=await office.headers(office.admin),
    )
    assert answer.status_code == 422, answer.text
    assert ["filter", member] in [each["loc"][:2] for each in answer.json()["errors"]]
