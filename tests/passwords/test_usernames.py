"""One canonical form of a name (RFC 8265, UsernameCaseMapped), one account for it, whoever types it how."""

import secrets

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import UsernameRefused
from app.domain.users import username_key
from tests.conftest import PASSWORD

SAME = [
    pytest.param("kate", "KATE", id="capitals"),
    pytest.param("kate", "\u212aate", id="U+212A, the sign of Kelvin"),
    pytest.param("kate", "\uff2b\uff41\uff54\uff45", id="full width"),
    pytest.param("\u00e9tienne", "e\u0301tienne", id="NFC and NFD"),
    pytest.param("\u00e9tienne", "E\u0301TIENNE", id="NFD capitals"),
    pytest.param("\u1ea1\u0301x", "a\u0301\u0323x", id="combining marks in another order"),
    pytest.param("\u03c9mega", "\u2126mega", id="U+2126, the sign of Ohm"),
    pytest.param("\u00e5ngstrom", "\u212bngstrom", id="U+212B, the sign of Angstrom"),
    pytest.param("\uac00\uac01", "\u1100\u1161\u1100\u1161\u11a8", id="Hangul in its parts"),
    pytest.param("stra\u00dfe", "STRA\u1e9eE", id="a capital sharp s"),
    pytest.param("a.b+c@example.com", "A.B+C@Example.COM", id="an address with plus and dots"),
    pytest.param("a@b.c", "\uff41\uff20\uff42\uff0e\uff43", id="a full-width address"),
]
DIFFERENT = [
    pytest.param("i", "\u0131", id="U+0131, i without a dot"),
    pytest.param("i", "\u0130", id="U+0130, a capital I with a dot"),
    pytest.param("mike", "m\u0131ke", id="CVE-2019-19844"),
    pytest.param("cat", "\u0441at", id="Cyrillic es"),
    pytest.param("paypal", "p\u0430yp\u0430l", id="mixed scripts"),
    pytest.param("strasse", "stra\u00dfe", id="sharp s"),
    pytest.param("e", "\u00e9", id="an accent"),
    pytest.param("ab@example.com", "a.b@example.com", id="dots of an address"),
    pytest.param("a@example.com", "a+b@example.com", id="plus of an address"),
]
REFUSED = [
    pytest.param("", id="nothing"),
    pytest.param("two words", id="a space"),
    pytest.param("a\u00a0b", id="a space that does not break"),
    pytest.param("a\0b", id="NUL"),
    pytest.param("a\r\nb", id="CR LF"),
    pytest.param("\x1b[31mred", id="ANSI"),
    pytest.param("a\u2028b", id="U+2028"),
    pytest.param("a\u200db", id="a joiner where none belongs"),
    pytest.param("a\u200cb", id="a non-joiner where none belongs"),
    pytest.param("a\u200bb", id="a space of no width"),
    pytest.param("a\u00adb", id="a soft hyphen"),
    pytest.param("a\ufe0fb", id="a variation selector"),
    pytest.param("a\u034fb", id="a grapheme joiner"),
    pytest.param("\u202eadmin", id="an override of direction"),
    pytest.param("\u05d0a", id="right to left, then left to right"),
    pytest.param("-\u05d0\u05d1", id="right to left behind a hyphen"),
    pytest.param("\u017fam", id="U+017F, a long s"),
    pytest.param("\ufb01n", id="a ligature"),
    pytest.param("\u2460", id="a number in a circle"),
    pytest.param("\u01c5", id="a letter in title case"),
    pytest.param("\U0001f600", id="an emoji"),
    pytest.param("\U000e0080", id="unassigned"),
    pytest.param("\ud800", id="a lone surrogate"),
    pytest.param("x" * 255, id="255 characters"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
async def test_two_spellings_are_one_account(http: httpx2.AsyncClient, one: str, other: str) -> None:
    """Whoever was first has it, the second is told that it is taken, and both spellings sign in."""
    tail = secrets.token_hex(6)
    body = {"username": one + tail, "password": PASSWORD}
    assert username_key(one) == username_key(other)
    assert (await http.post("/register", json=body)).status_code == 201
    taken = await http.post("/register", json=body | {"username": other + tail.upper()})
    assert (taken.status_code, taken.json()["code"]) == (409, "username_taken")
    for spelling in (one, other):
        form = {"username": spelling + tail, "password": PASSWORD}
        assert (await http.post("/token", data=form)).status_code == 200


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
async def test_two_names_are_two_accounts(http: httpx2.AsyncClient, one: str, other: str) -> None:
    """What looks alike is not the same: neither can sign in as the other."""
    tail = secrets.token_hex(6)
    for name, password in ((one, PASSWORD), (other, PASSWORD[::-1])):
        body = {"username": tail + name, "password": password}
        assert (await http.post("/register", json=body)).status_code == 201
    crossed = {"username": tail + one, "password": PASSWORD[::-1]}
    assert (await http.post("/token", data=crossed)).status_code == 401


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_name(name: str) -> None:
    """Nothing that is invisible, changes its neighbours or cannot be typed twice alike."""
    with pytest.raises(UsernameRefused):
        username_key(name)


@pytest.mark.parametrize(
    "name",
    [
        "ada",
        "ada.lovelace+rota@engines.example.com",
        "o'neil@example.com",
        "\u05d0\u05d1\u05d2",
        "\u05d0\u05d1\u05d21",
        "\u0915\u094d\u200d\u0937",
        "\u0430\u0434\u0430",
        "\u963f\u8fbe",
        "x" * 254,
    ],
    ids=ascii,
)
def test_what_is_one(name: str) -> None:
    """Addresses with all that stands in them, every script, right to left, a joiner where the script has it."""
    assert username_key(name) == name


@given(st.text(max_size=12))
def test_the_canonical_form_of_a_canonical_form_is_itself(name: str) -> None:
    """Else a name looked up by its key would be another one."""
    try:
        key = username_key(name)
    except UsernameRefused:
        return
    assert username_key(key) == key
