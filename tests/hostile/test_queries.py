"""Hostile questions of administrators, by their numbers: every route that documents such a parameter."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from tests.admin.conftest import Office

OVERLONG = 10_000


def asked(app: FastAPI, *names: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Routes under /admin that are read, with the description of each parameter of these names."""
    for path, methods in app.openapi()["paths"].items():
        for parameter in methods.get("get", {}).get("parameters", []):
            if path.startswith("/admin") and parameter["in"] == "query" and parameter["name"] in names:
                yield path, parameter


def texts(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Each parameter under /admin that takes text of one's own: no closed list, no number, no time."""
    for path, methods in app.openapi()["paths"].items():
        for parameter in methods.get("get", {}).get("parameters", []):
            kinds = parameter["schema"].get("anyOf", [parameter["schema"]])
            own = [kind for kind in kinds if kind.get("type") == "string" and not {"enum", "format"} & kind.keys()]
            if path.startswith("/admin") and parameter["in"] == "query" and own:
                yield path, parameter["name"]


def filled(path: str) -> str:
    return path.replace("{user_id}", "01a20000-0000-7000-8000-000000000000").replace(
        "{session_id}", "01a20000-0000-7000-8000-000000000000"
    )


@pytest.mark.case(65)
async def test_patterns_are_letters_and_endless_ones_are_refused(office: Office) -> None:
    """`%`, `_`, the backslash: never a pattern, so nobody is found; ten thousand of them: 422."""
    await office.person("percent")
    names = [(path, name) for path, name in texts(office.app) if "{" not in path]
    assert len(names) >= 10
    for path, name in names:
        for text in ("%%", "__", "%e%", "p_rcent", "\\\\", "%\\", "per%", "*", ".*"):
            answer = await office.http.get(path, params={name: text})
            assert answer.status_code in {200, 422}, (path, name, text, answer.text)
            if answer.status_code == 200 and path == "/admin/users":
                assert answer.json()["items"] == [], (name, text)
        for text in ("%" * OVERLONG, "_" * OVERLONG, "\\" * OVERLONG, "%_" * OVERLONG):
            answer = await office.http.get(path, params={name: text})
            assert answer.status_code == 422, (path, name)
            assert text[:100] not in answer.text


COLUMNS = ["password_hash", "seed", "attempt", "secret_hash", "commitment", "id; drop", "id desc, seed", "1", "*"]


@pytest.mark.case(66)
async def test_secret_columns_neither_sort_nor_filter(office: Office) -> None:
    """On every route under /admin that is read, as a value of `sort` and `order`, and as a filter: 422."""
    documented = office.app.openapi()["paths"]
    paths = [path for path, methods in documented.items() if path.startswith("/admin") and "get" in methods]
    assert len(paths) >= 8
    for column in COLUMNS:
        likes = [{name: "a%"} for name in (column, f"{column}__like", f"{column}[gte]")]
        for path in paths:
            for parameters in ({"sort": column}, {"order": column}, {"order_by": column}, {"fields": column}, *likes):
                answer = await office.http.get(filled(path), params=parameters)
                assert answer.status_code == 422, (path, parameters, answer.text)


LIMITS = [
    "-1", "0", "1000000000", "1e3", "1.5", "0x10",
    "\u0663", "\uff13", " 5 x", "", "NaN", "inf", "9" * 400, "5;", "null",
]  # fmt: skip


@pytest.mark.case(68)
async def test_a_limit_is_a_number_within_its_bounds(office: Office) -> None:
    """On every route that takes one: 422 that names it; no digit of another script is read as ours."""
    routes = list(asked(office.app, "limit"))
    assert len(routes) >= 4
    for limit in LIMITS:
        for path, _ in routes:
            answer = await office.http.get(filled(path), params={"limit": limit})
            assert answer.status_code == 422, (path, limit, answer.text)
            assert answer.json()["errors"][0]["loc"][-1] == "limit", path


@pytest.mark.case(68)
async def test_a_cursor_is_ours_or_refused(office: Office) -> None:
    """On every route that takes one: noise, another list's, SQL, digits of another script."""
    for number in range(5):
        await office.person(f"cursor-{number}")
    cursors = {}
    for path, _ in asked(office.app, "after"):
        if "{" in path:
            continue
        page = await office.http.get(path, params={"limit": "1"})
        if page.status_code == 200 and page.json().get("next"):
            cursors[path] = page.json()["next"]
    assert len(cursors) >= 2
    for path, _ in asked(office.app, "after"):
        others = [cursor for owner, cursor in cursors.items() if owner != path]
        for text in ("x", "AAAA", "' OR 1=1 --", "\u0663", "=", "A" * 5000, *others):
            answer = await office.http.get(filled(path), params={"after": text})
            assert answer.status_code in {404, 422} if "{" in path else answer.status_code == 422, (path, text)
