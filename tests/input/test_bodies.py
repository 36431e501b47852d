"""Bodies and agents of every size and depth: read strictly, in bounded time, and without an echo."""

import json
import secrets
from typing import Any

import httpx2
import pytest

from app.domain.canonical_json import MEMBERS, READ_DEPTH, READ_DIGITS, parse_strict
from app.domain.clients import USER_AGENT_BYTES, clean_user_agent
from tests.api.test_hostile_input import assert_problem
from tests.api.test_sign_in_api import bearer, log_in, register
from tests.conftest import PASSWORD

JSON = {"Content-Type": "application/json"}


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * levels + "1" + closing * levels).encode()


@pytest.mark.case(60)
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(nested(READ_DEPTH + 1), id="arrays"),
        pytest.param(nested(READ_DEPTH + 1, '{"a":', "}"), id="objects"),
        pytest.param(nested(100), id="a hundred levels"),
        pytest.param(b"[" * 65_000, id="never closed"),
        pytest.param(b'{"a":[' * 10_000, id="both, never closed"),
        pytest.param(b'["' + b'\\"[' * 20_000, id="in a string that never ends"),
        pytest.param(b"{" + b",".join(b'"%d":0' % n for n in range(MEMBERS + 1)) + b"}", id="many members"),
        pytest.param(b"9" * (READ_DIGITS + 1), id="a long integer"),
        pytest.param(b"-" + b"9" * 60_000, id="a very long integer"),
        pytest.param(b"1e400", id="beyond binary64"),
        pytest.param(b"-1e400", id="below it"),
        pytest.param(b"1" * 400 + b".0", id="a long fraction"),
        pytest.param(b"NaN", id="NaN"),
        pytest.param(b"[Infinity]", id="Infinity"),
        pytest.param(b'{"a":-Infinity}', id="-Infinity"),
        pytest.param(b'{"a":1,"a":1}', id="a member twice"),
        pytest.param(b'{"a":1,"\\u0061":1}', id="a member twice, escaped"),
        pytest.param(b'{"a":{"b":1,"b":2}}', id="a member twice, within"),
        pytest.param(b"01", id="a leading zero"),
        pytest.param(b"+1", id="a sign"),
        pytest.param(b"1.", id="half a fraction"),
        pytest.param(b"[1,]", id="a trailing comma"),
        pytest.param(b"'a'", id="other quotes"),
        pytest.param(b'"\t"', id="a raw control character"),
        pytest.param(b"/**/1", id="a comment"),
        pytest.param(b"\xef\xbb\xbf1", id="a byte order mark"),
        pytest.param("1".encode("utf-16"), id="UTF-16"),
        pytest.param(b'"\xed\xa0\x80"', id="a surrogate in UTF-8"),
        pytest.param(b'"\xc0\x80"', id="an overlong NUL"),
        pytest.param(b"1 1", id="two values"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_is_no_json_of_ours(raw: bytes) -> None:
    """ValueError, never another one; no reading takes long (a runaway would meet the suite's timeout)."""
    for _ in range(20):
        with pytest.raises(ValueError):
            parse_strict(raw)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        pytest.param(nested(READ_DEPTH), None, id="the deepest"),
        pytest.param(b'"' + b"[{" * 1000 + b'"', "[{" * 1000, id="brackets in a string"),
        pytest.param(b'["' + b"[" * 50 + b'\\"' + b"]" * 9 + b'"]', ["[" * 50 + '"' + "]" * 9], id="behind a quote"),
        pytest.param(b'["\\\\",' + b"[]," * 50 + b"1]", None, id="many, beside each other"),
        pytest.param(b"9" * READ_DIGITS, 10**READ_DIGITS - 1, id="the longest integer"),
        pytest.param(b"-0", 0, id="minus zero"),
        pytest.param(b"1e308", 1e308, id="the greatest"),
        pytest.param(b"1e-400", 0.0, id="too small to matter"),
    ],
)
def test_what_is_just_json(raw: bytes, value: Any) -> None:
    """On the other side of each bound."""
    found = parse_strict(raw)
    assert value is None or found == value


@pytest.mark.case(60)
@pytest.mark.parametrize("path", ["/register", "/refresh", "/logout"])
async def test_deep_and_wide_bodies(http: httpx2.AsyncClient, path: str) -> None:
    """A hundred levels, and as many members as 64 KiB hold; a million are too large before they are read."""
    for body in (
        b'{"username":' + nested(100) + b"}",
        json.dumps({f"k{n}": n for n in range(4000)}).encode(),
        json.dumps({f"k{n}": n for n in range(900)}).encode(),
    ):
        assert_problem(await http.post(path, content=body, headers=JSON), 422)
    million = json.dumps(dict.fromkeys(map(str, range(1_000_000)))).encode()
    assert_problem(await http.post(path, content=million, headers=JSON), 413)


async def test_the_kind_is_looked_at_before_the_body(http: httpx2.AsyncClient) -> None:
    """What nobody takes is refused without a byte of it being asked for."""
    asked = 0

    async def chunks() -> Any:
        nonlocal asked
        for _ in range(3):
            asked += 1
            yield b"x" * 100

    for more in ({"Content-Type": "multipart/form-data; boundary=b"}, {**JSON, "Content-Encoding": "gzip"}):
        assert_problem(await http.post("/refresh", content=chunks(), headers=more), 415)
    assert_problem(await http.post("/token", content=chunks(), headers=JSON), 415)
    answer = await http.post("/oauth2/token", content=chunks(), headers={"Content-Type": "text/plain"})
    assert answer.status_code in {400, 401}


AGENTS = [
    pytest.param(b"x" * 100_000, "x" * 512, id="100 kB"),
    pytest.param(b"(" * 60_000, "(" * 512, id="brackets"),
    pytest.param(b"Mozilla/5.0 " + b"(" * 3000 + b"a" * 3000 + b")" * 3000, None, id="nested brackets"),
    pytest.param(b"a; " * 20_000, None, id="semicolons"),
    pytest.param("🦊".encode() * 1000, "🦊" * 128, id="characters of four bytes"),
    pytest.param(b"x" * 511 + "é".encode(), "x" * 511, id="half a character at the end"),
    pytest.param(b"\xff" * 600, "\ufffd" * 170, id="no UTF-8"),
    pytest.param(b"a\x1b[31m\xe2\x80\xa8b\xc2\x85", "a[31mb", id="what a terminal obeys"),
    pytest.param(b"a\tb", "ab", id="a tab"),
]


@pytest.mark.case(55)
@pytest.mark.parametrize(("sent", "kept"), AGENTS)
async def test_an_agent_of_any_length(http: httpx2.AsyncClient, sent: bytes, kept: str | None) -> None:
    """Stored as at most 512 bytes of UTF-8; whatever it is made for, nothing of the sign-in takes long or fails."""
    await register(http, name := f"agent-{secrets.token_hex(6)}")
    form = {"username": name, "password": PASSWORD}
    answer = await http.post("/token", data=form, headers={b"User-Agent": sent})
    assert answer.status_code == 200
    shown = (await http.get("/sessions", headers=bearer(answer.json()))).json()["items"][0]["user_agent"]
    assert shown == (clean_user_agent(sent) if kept is None else kept)
    assert len(shown.encode()) <= USER_AGENT_BYTES


async def test_an_agent_twice(http: httpx2.AsyncClient) -> None:
    """The first one."""
    await register(http, name := f"agent-{secrets.token_hex(6)}")
    form = {"username": name, "password": PASSWORD}
    answer = await http.post("/token", data=form, headers=[("User-Agent", "one"), ("User-Agent", "two")])
    shown = (await http.get("/sessions", headers=bearer(answer.json()))).json()["items"][0]["user_agent"]
    assert shown == "one"


@pytest.mark.case(74)
@pytest.mark.parametrize(
    "moment",
    ["0000-01-01", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "infinity", "-infinity", "now", "NaN", "1e400",
     "2016-12-31T23:59:60Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-02-30T00:00:00Z",
     "99999999999999999999", "-1", "2026-01-01T00:00:00+99:99", "2026-01-01T25:00Z",
     "\u0662\u0660\u0662\u0666-01-01"],
)  # fmt: skip
async def test_moments_that_are_none(http: httpx2.AsyncClient, admin: dict[str, str], moment: str) -> None:
    """422 or exact, on every filter by time; nothing hangs, nothing breaks in the database."""
    for path, name in (
        ("/admin/sessions", "created_from"), ("/admin/sessions", "last_used_to"), ("/admin/events", "from"),
        ("/admin/users", "created_from"), ("/admin/stats", "from"),
    ):  # fmt: skip
        answer = await http.get(path, params={name: moment}, headers=admin)
        assert answer.status_code in {200, 422}, (path, answer.text)
        if answer.status_code == 422:
            assert_problem(answer, 422)
    body = {"filter": {"created_from": moment}}
    answer = await http.post("/admin/sessions/revocations", json=body, headers=admin)
    assert answer.status_code < 500


async def test_offsets_are_exact(http: httpx2.AsyncClient, admin: dict[str, str]) -> None:
    """The same moment in two zones, to the second: +14:00 is not cut."""
    await register(http, name := f"zone-{secrets.token_hex(6)}")
    tokens = await log_in(http, name)
    for moment, found in (("2100-01-01T14:00:00+14:00", 0), ("2000-01-01T14:00:00+14:00", 1)):
        answer = await http.get("/admin/sessions", params={"user": name, "created_from": moment}, headers=admin)
        assert len(answer.json()["items"]) == found
    assert tokens


async def test_problems_hold_nothing_of_the_inside(http: httpx2.AsyncClient, admin: dict[str, str]) -> None:
    """No class, no statement, no path, no value: of every kind of refusal."""
    asked = [
        await http.get("/sessions/x"),
        await http.get("/admin/users", params={"limit": "secretvalue"}, headers=admin),
        await http.get("/admin/users", params={"secretvalue": "1"}, headers=admin),
        await http.post("/register", json={"username": "secretvalue", "password": "x", "secretvalue": 1}),
        await http.post("/register", content=b'{"secretvalue', headers=JSON),
        await http.get("/me", headers={"Authorization": "Bearer secretvalue"}),
        await http.post("/refresh", json={"refresh_token": "secretvalue"}),
        await http.get("/secretvalue"),
        await http.request("SECRETVALUE", "/me"),
    ]
    for answer in asked:
        assert_problem(answer, 401, 404, 405, 422)
        for inside in ("secretvalue", "SECRETVALUE", "pydantic", "asyncpg", "sqlalchemy", "app/", ".py", "SELECT"):
            assert inside not in answer.text, answer.text


@pytest.mark.case(58)
async def test_a_coding_behind_another_header(http: httpx2.AsyncClient) -> None:
    """Every `Content-Encoding` counts, not the first alone: the list may be spread over several lines."""
    kind = ("Content-Type", "application/json")
    for codings in (("identity", "gzip"), ("gzip", "identity")):
        headers = [kind, *(("Content-Encoding", coding) for coding in codings)]
        assert (await http.post("/refresh", content=b"{}", headers=headers)).status_code == 415
