"""Hostile cases of passwords: whatever is presented is verified whole or refused, never cut, never an error of ours."""

import secrets
from typing import Any

import httpx2
import pytest

from tests.conftest import PASSWORD, Person

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
ASTRONAUT = "\U0001f469\u200d\U0001f680"


async def register(http: httpx2.AsyncClient, password: str) -> tuple[str, httpx2.Response]:
    name = f"hostile-{secrets.token_hex(6)}"
    return name, await http.post("/register", json={"username": name, "password": password})


async def sign_in(http: httpx2.AsyncClient, name: str, password: str) -> int:
    return (await http.post("/token", data={"username": name, "password": password})).status_code


@pytest.mark.case(36)
@pytest.mark.parametrize("letter", ["x", "\u20ac", "\U0001f40e"])
async def test_bytes_and_not_characters_are_the_limit(http: httpx2.AsyncClient, letter: str) -> None:
    """1,024 bytes are accepted and verified whole, 1,025 are refused, a megabyte is not even read."""
    longest = letter * (1020 // len(letter.encode())) + "tail"
    assert len(longest.encode()) == 1024
    name, answer = await register(http, longest)
    assert answer.status_code == 201, answer.text
    assert await sign_in(http, name, longest) == 200
    assert await sign_in(http, name, longest[:-1]) == 401
    assert await sign_in(http, name, longest[:-1] + "L") == 401
    assert await sign_in(http, name, longest + "x") == 422
    refused = (await register(http, longest + "x"))[1]
    assert (refused.status_code, refused.json()["reason"]) == (422, "too_long")


@pytest.mark.case(36)
async def test_a_megabyte(http: httpx2.AsyncClient, person: Person) -> None:
    """At every route that takes a password."""
    huge = "x" * 1_000_000
    bearer = {"Authorization": f"Bearer {(await person.sign_in()).access_token}"}
    for answer in (
        await http.post("/register", json={"username": "ada", "password": huge}),
        await http.post("/token", data={"username": person.username, "password": huge}),
        await http.put("/password", json={"token": "rota_pt_" + "A" * 76, "new_password": huge}),
        await http.put("/me/password", json={"current_password": huge, "new_password": huge}, headers=bearer),
    ):
        assert answer.status_code in {413, 422}


@pytest.mark.parametrize("marks", ["\u0301\u0323", "\u0f74\u0f72"])
async def test_marks_without_end(http: httpx2.AsyncClient, person: Person, marks: str) -> None:
    """Normalising takes the square of their number, so what has too many is refused before."""
    endless = "e" + marks * 1000
    assert await sign_in(http, person.username, endless) == 422
    assert (await register(http, endless))[1].json()["reason"] == "too_long"


@pytest.mark.case(38)
@pytest.mark.parametrize(("one", "other"), [(72, 73), (99, 100), (1000, 1001)])
async def test_no_byte_is_left_out(http: httpx2.AsyncClient, one: int, other: int) -> None:
    """Pairs that differ at one byte only, where other hashes stop reading."""
    text = secrets.token_urlsafe(1024)[:1020]
    password = text[:one] + "A" + text[other:]
    name, answer = await register(http, password)
    assert answer.status_code == 201
    assert await sign_in(http, name, password) == 200
    assert await sign_in(http, name, text[:one] + "B" + text[other:]) == 401
    assert await sign_in(http, name, text[:one] + "a" + text[other:]) == 401


@pytest.mark.case(40)
async def test_a_nul_in_the_middle(http: httpx2.AsyncClient) -> None:
    """Refused on set, refused when presented; the part before it is nobody's password."""
    name, answer = await register(http, PASSWORD)
    refused = (await register(http, f"{PASSWORD}\0 and more"))[1]
    assert (refused.status_code, refused.json()["reason"]) == (422, "nul")
    assert await sign_in(http, name, f"{PASSWORD}\0 and more") == 422
    assert await sign_in(http, name, PASSWORD) == 200
    assert answer.status_code == 201


@pytest.mark.case(41)
@pytest.mark.parametrize("typed", ["NFC", "NFD"])
async def test_an_accent_in_one_code_point_or_two(http: httpx2.AsyncClient, typed: str) -> None:
    """Whichever was set, both sign in; a compatible letter that is another one does not."""
    spellings = {"NFC": "a caf\u00e9 by the canal", "NFD": "a cafe\u0301 by the canal"}
    name, answer = await register(http, spellings[typed])
    assert answer.status_code == 201
    assert [await sign_in(http, name, each) for each in spellings.values()] == [200, 200]
    assert await sign_in(http, name, "a cafe by the canal") == 401
    assert await sign_in(http, name, "\uff41 caf\u00e9 by the canal") == 401


@pytest.mark.case(42)
@pytest.mark.parametrize(
    ("password", "status"),
    [
        pytest.param(FAMILY * 15, 201, id="15 families"),
        pytest.param(ASTRONAUT * 15, 201, id="15 astronauts"),
        pytest.param(ASTRONAUT * 5, 201, id="15 code points"),
        pytest.param(f"{ASTRONAUT}{FAMILY}" + "\U0001f40e" * 5, 201, id="15 code points of three kinds"),
        pytest.param(FAMILY * 2, 422, id="14 code points"),
        pytest.param("\U0001f40e " * 32, 201, id="64 of spaces and emoji"),
    ],
)
async def test_emoji_with_joiners(http: httpx2.AsyncClient, password: str, status: int) -> None:
    """Counted in code points, kept joiner by joiner."""
    name, answer = await register(http, password)
    assert answer.status_code == status, answer.text
    if status == 201:
        assert await sign_in(http, name, password) == 200
        assert await sign_in(http, name, password.replace("\u200d", "").strip() + ".") == 401


@pytest.mark.case(44)
async def test_a_name_that_is_almost_another(http: httpx2.AsyncClient) -> None:
    """Unicode's case collisions neither give an account away nor take it over (CVE-2019-19844)."""
    tail = secrets.token_hex(6)
    victim = {"username": f"mike@{tail}.example.org", "password": PASSWORD}
    assert (await http.post("/register", json=victim)).status_code == 201
    other = victim | {"username": f"m\u0131ke@{tail}.example.org", "password": "a wholly different phrase"}
    assert (await http.post("/register", json=other)).status_code == 201
    assert (await http.post("/token", data=victim)).status_code == 200
    assert (await http.post("/token", data=other | {"username": victim["username"]})).status_code == 401


@pytest.mark.parametrize("password", ["\ud800" + "x" * 20, {"a": 1}, None, 7, ["x" * 20], True], ids=str)
async def test_what_is_no_text(http: httpx2.AsyncClient, password: Any) -> None:
    """422, and nothing of it in the answer."""
    name = f"hostile-{secrets.token_hex(6)}"
    raw = b'{"username":"%s","password":"\\ud800%s"}' % (name.encode(), b"x" * 20)
    if isinstance(password, str):
        answer = await http.post("/register", content=raw, headers={"Content-Type": "application/json"})
    else:
        answer = await http.post("/register", json={"username": name, "password": password})
    assert answer.status_code == 422
    assert "xxxx" not in answer.text
