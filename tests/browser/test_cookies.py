"""What stands under our names in `Cookie` headers: one meaning, or refused. What stands under others is nobody's."""

import contextlib
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.browsers import in_cookies
from app.domain.refresh_token import is_spelled
from app.http import cookies
from app.http.errors import CookieMalformed
from app.services.tokens import IssuedTokens
from tests.browser.conftest import ATTRIBUTES, DEVICE, OWN, REFRESH, Browser
from tests.conftest import PASSWORD

TOKEN = "rota_rt_" + "A" * 104
CLEARED = f"{REFRESH}=; Max-Age=0; {ATTRIBUTES}"

JUNK = [
    pytest.param("a=b; c=d", id="two others"),
    pytest.param('quoted="a; b=c"; x="', id="quotes"),
    pytest.param("=; ;;; =nameless; nothing", id="no names"),
    pytest.param('a={"json":[1,2]}; $Version=1; $Path=/', id="JSON and RFC 2965"),
    pytest.param("; ".join(f"junk{n}={'x' * 400}" for n in range(100)), id="a hundred"),
    pytest.param("twice=1; twice=2; twice=3", id="another one doubled"),
    pytest.param(f"last={REFRESH}; {REFRESH}2=a; x{REFRESH}=b", id="our name within others"),
    pytest.param(f"{REFRESH.lower()}=a; {REFRESH.upper()}=b; __host-rota_refresh=c", id="our name in other letters"),
    pytest.param("__Secure-rota_refresh=a; rota_refresh=b", id="without our prefix"),
]

MALFORMED = [
    pytest.param([f"{REFRESH}={{0}}; {REFRESH}={{0}}"], id="doubled, the same"),
    pytest.param([f"{REFRESH}={{0}}; {REFRESH}={TOKEN}"], id="doubled, different"),
    pytest.param([f"{REFRESH}={{0}}", f"{REFRESH}={{0}}"], id="doubled, in two headers"),
    pytest.param([f"{REFRESH}={{0}}; a=b; {REFRESH}="], id="doubled, one empty"),
    pytest.param([f"{REFRESH}={{0}}; {REFRESH}"], id="doubled, one without equals"),
    pytest.param([f"{REFRESH}={{0}}; {REFRESH} ={{0}}"], id="doubled, one with a blank"),
    pytest.param([f'{REFRESH}="{{0}}"'], id="quoted"),
    pytest.param([f'{REFRESH}="{{0}}'], id="half quoted"),
    pytest.param([f"{REFRESH}="], id="empty"),
    pytest.param([f"{REFRESH}"], id="no equals"),
    pytest.param([f"{REFRESH} ={{0}}"], id="blank after the name"),
    pytest.param([f"{REFRESH}\t={{0}}"], id="tab after the name"),
    pytest.param([f"\x0b{REFRESH}={{0}}"], id="vertical tab before the name"),
    pytest.param([f"{REFRESH}= {{0}}"], id="blank before the value"),
    pytest.param([f"{REFRESH}={{0}} x"], id="blank in the value"),
    pytest.param([f"{REFRESH}={{0}},{{0}}"], id="comma"),
    pytest.param([f"{REFRESH}={{0}}="], id="longer by one"),
    pytest.param([f"{REFRESH}=x{{0}}"], id="another prefix"),
    pytest.param([f"{REFRESH}={{0}}\x80"], id="not ASCII"),
    pytest.param([f"{REFRESH}={{0}}\x01"], id="control character"),
    pytest.param([f"{REFRESH}={'A' * 1025}"], id="oversized"),
    pytest.param([f"{REFRESH}={'A' * 60_000}"], id="vastly oversized"),
    pytest.param([f"{REFRESH}={{0}}", "a=" + "x" * 66_000], id="all together oversized"),
    pytest.param([f"{REFRESH}=garbage"], id="garbage"),
    pytest.param([f"{REFRESH}=null"], id="null"),
    pytest.param([f"{REFRESH}=deleted"], id="deleted"),
    pytest.param([f"{REFRESH}=eyJhbGciOiJub25lIn0.e30."], id="a JWT"),
    pytest.param([f"{REFRESH}=%72ota_rt_{'A' * 104}"], id="percent-encoded"),
    pytest.param([f"{REFRESH}=rota_rt_{'A' * 103}"], id="cut"),
]


@dataclass
class _Request:
    """As much of a request as cookies need."""

    scope: dict[str, Any]


def request_with(*headers: bytes) -> Any:
    return _Request({"headers": [(b"host", b"rota"), *((b"cookie", header) for header in headers)]})


def read(*headers: bytes, name: str = REFRESH) -> str | None:
    request = request_with(*headers)
    pairs = cookies.find_pairs(request, name)
    return cookies.read_value(pairs, name) if pairs else None


def cookie_headers(texts: list[str]) -> list[tuple[str, bytes]]:
    return [("Cookie", text.encode("latin-1")) for text in texts]


async def send(browser: Browser, path: str, texts: list[str], **more: Any) -> Any:
    headers: Any = [*OWN.items(), *cookie_headers(texts), *more.pop("headers", [])]
    return await browser.http.post(path, headers=headers, **more)


@pytest.mark.parametrize("junk", JUNK)
async def test_leftovers_of_others_break_nothing(browser: Browser, username: str, junk: str) -> None:
    """Before, behind and around our cookie, on all three routes."""
    told = await browser.sign_in(username)
    for template in ("{junk}; {ours}", "{ours}; {junk}", "{ours};{junk}", "{junk};\t{ours};"):
        text = template.format(junk=junk, ours=f"{REFRESH}={browser.jar[REFRESH]}")
        answer = await browser.post("/refresh", headers={"Cookie": text})
        assert answer.status_code == 200, answer.text
        assert answer.json()["session_id"] == told["session_id"]
    alone = await browser.post("/refresh", headers={"Cookie": junk})
    assert (alone.status_code, "set-cookie" in alone.headers) == (422, False)
    form = {"username": username, "password": "wrong password"}
    assert (await browser.post("/token", data=form, headers={"Cookie": junk})).status_code == 401
    ours = f"{REFRESH}={browser.jar[REFRESH]}"
    assert (await browser.post("/logout", headers={"Cookie": f"{junk}; {ours}"})).json()["ended"] is True


async def test_junk_that_is_no_text(browser: Browser, username: str) -> None:
    """Bytes that are no UTF-8 in others' cookies, as browsers send them on."""
    await browser.sign_in(username)
    raw = b"a=\xff\xfe; b=\xc3\x28; " + f"{REFRESH}={browser.jar[REFRESH]}".encode() + b"; \xe9=\x80"
    headers: Any = [*OWN.items(), ("Cookie", raw)]
    answer = await browser.http.post("/refresh", headers=headers)
    assert answer.status_code == 200


async def test_cookie_headers_that_a_proxy_has_split(browser: Browser, username: str) -> None:
    """HTTP/2 may send each pair by itself (RFC 9113 section 8.2.3); together they are one."""
    await browser.sign_in(username)
    answer = await send(browser, "/refresh", ["a=b", f"{REFRESH}={browser.jar[REFRESH]}", "c=d; e=f"])
    assert answer.status_code == 200


@pytest.mark.case(21)
@pytest.mark.parametrize("texts", MALFORMED)
async def test_malformed_cookies_are_refused(browser: Browser, username: str, texts: list[str]) -> None:
    """
    400 with a code of its own and the cookie taken away, on each route that reads it: never as if there were none,
    and never as if the half that can be read were all. Nothing is spent, ended or begun.
    """
    told = await browser.sign_in(username)
    good = browser.jar[REFRESH]
    sent = [text.format(good) for text in texts]
    other = (await browser.http.post("/token", data={"username": username, "password": PASSWORD})).json()
    sign_in = {"username": username, "password": PASSWORD}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/refresh", {}),
        ("/refresh", {"json": {"refresh_token": other["refresh_token"]}}),
        ("/logout", {}),
        ("/logout", {"headers": [("Authorization", f"Bearer {told['access_token']}")]}),
        ("/token", {"data": sign_in}),
        ("/token", {"data": {**sign_in, "refresh_token_in": "cookie"}}),
        ("/token", {"data": {"grant_type": "refresh_token"}}),
    ]
    for path, more in asked:
        answer = await send(browser, path, sent, **more)
        assert (answer.status_code, answer.json()["code"]) == (400, "cookie_malformed"), (path, answer.text)
        assert answer.headers.get_list("set-cookie") == [CLEARED]
        assert good not in answer.text
    assert await browser.whose(told["access_token"]) == username
    assert await browser.whose(other["access_token"]) == username
    assert (await browser.post("/refresh")).status_code == 200
    assert (await browser.http.post("/refresh", json={"refresh_token": other["refresh_token"]})).status_code == 200


async def test_a_malformed_cookie_of_a_foreign_page_is_not_even_cleared(browser: Browser) -> None:
    """Where a request comes from is asked first: a page of another host cannot sign anybody out by it."""
    sent = {"Sec-Fetch-Site": "same-site", "Origin": "https://evil.example.com", "Cookie": f"{REFRESH}=garbage"}
    for path in ("/refresh", "/logout", "/token"):
        answer = await browser.http.post(path, headers=sent)
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site_request")
        assert "set-cookie" not in answer.headers


async def test_routes_that_read_no_cookie_do_not_mind(browser: Browser, username: str) -> None:
    """A malformed one beside an access token is nothing to them."""
    told = await browser.sign_in(username)
    bad = {"Cookie": f"{REFRESH}=x; {REFRESH}=y"}
    answer = await browser.send("GET", "/me", token=told["access_token"], headers=bad)
    assert answer.status_code == 200
    assert (await browser.send("GET", "/livez", headers=bad)).status_code == 200


@given(st.lists(st.binary(max_size=60), max_size=4), st.data())
def test_any_bytes_are_read_or_refused(chunks: list[bytes], data: st.DataObject) -> None:
    """Whatever surrounds it: none, the one value that stands there, or `CookieMalformed`; never another exception."""
    ours = f"{REFRESH}={TOKEN}".encode()
    place = data.draw(st.integers(0, len(chunks)))
    for headers in (chunks, [*chunks[:place], ours, *chunks[place:]], [b"; ".join([*chunks, ours])]):
        with contextlib.suppress(CookieMalformed):
            value = read(*headers)
            assert value is None or is_spelled(value) or ours not in b"".join(headers)
            assert value is not None or not any(ours == header for header in headers)


@given(st.text(max_size=200))
def test_what_is_written_can_be_read_again(value: str) -> None:
    """A value is written only if no reader could see anything else in it, an end of the header least of all."""
    try:
        text = cookies.set_cookie(DEVICE, value, seconds=5)
    except ValueError:
        assert not value.isascii() or not value.isalnum()
    else:
        assert text == f"{DEVICE}={value}; Max-Age=5; {ATTRIBUTES}"
        assert read(text.partition(";")[0].encode(), name=DEVICE) == value


@pytest.mark.parametrize(
    "value", ["", "a;b", 'a"b', "a b", "a,b", "a\\b", "a\r\nSet-Cookie: b=c", "\0", "é", "x" * 1025]
)
def test_no_value_that_could_end_the_header(value: str) -> None:
    """Whatever a token may look like one day."""
    with pytest.raises(ValueError, match="not a cookie's value"):
        cookies.set_cookie(REFRESH, value, seconds=1)


def test_nothing_is_done_without_cookies() -> None:
    """No header, no work: `find_pairs` answers before it knows what it looks for."""
    assert cookies.find_pairs(request_with(), "é no name") == []


def test_the_device_has_a_cookie_of_its_own() -> None:
    """Written beside the refresh token's when there is a device token, for 180 days, and in no body."""
    from uuid import UUID  # noqa: PLC0415 - beside its only use

    issued = IssuedTokens(UUID(int=1), "access", 900, TOKEN, 604_800, "", device_token="rota_dt_abc")
    answer = in_cookies(request_with(), issued)
    assert answer.headers.getlist("set-cookie") == [
        f"{REFRESH}={TOKEN}; Max-Age=604800; {ATTRIBUTES}",
        f"{DEVICE}=rota_dt_abc; Max-Age=15552000; {ATTRIBUTES}",
    ]
    assert b"rota_dt_abc" not in answer.body
    assert TOKEN.encode() not in answer.body
    assert read(f"{DEVICE}=rota_dt_abc; {REFRESH}={TOKEN}".encode(), name=DEVICE) == "rota_dt_abc"
