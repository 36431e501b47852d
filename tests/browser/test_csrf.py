"""Requests that a browser sends for somebody else's page."""

import json

import httpx2
import pytest

from app.http.csrf import Origins
from tests.browser.conftest import APP, DEVICE, REFRESH, Browser
from tests.conftest import PASSWORD, make_settings

ISSUER = "https://auth.example.com"

# What a browser says of itself, and whether that is a page which may use our cookies; of an application whose origin is
# ISSUER, and which lists APP and http://localhost:3000.
SITES = [
    pytest.param([("Sec-Fetch-Site", "same-origin"), ("Origin", ISSUER)], True, id="own page"),
    pytest.param([("Sec-Fetch-Site", "same-origin")], True, id="own page without Origin"),
    pytest.param([("Sec-Fetch-Site", "same-origin"), ("Origin", "https://proxied.example")], True, id="behind a proxy"),
    pytest.param([("Origin", ISSUER)], True, id="older browser, own page"),
    pytest.param([("Sec-Fetch-Site", "same-site"), ("Origin", APP)], True, id="listed"),
    pytest.param([("Sec-Fetch-Site", "cross-site"), ("Origin", "http://localhost:3000")], True, id="listed, elsewhere"),
    pytest.param([("Origin", APP)], True, id="older browser, listed"),
    pytest.param([], False, id="neither header"),
    pytest.param([("Sec-Fetch-Site", "none")], False, id="nobody types a POST"),
    pytest.param([("Sec-Fetch-Site", "none"), ("Origin", APP)], False, id="none, and a listed origin"),
    pytest.param([("Sec-Fetch-Site", "none"), ("Origin", ISSUER)], False, id="none, and ours"),
    pytest.param([("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.example")], False, id="cross-site"),
    pytest.param([("Sec-Fetch-Site", "cross-site")], False, id="cross-site without Origin"),
    pytest.param([("Sec-Fetch-Site", "same-site")], False, id="same-site without Origin"),
    pytest.param(
        [("Sec-Fetch-Site", "same-site"), ("Origin", "https://evil.example.com")], False, id="a sibling not listed"
    ),
    pytest.param([("Sec-Fetch-Site", "cross-site"), ("Origin", ISSUER)], False, id="a contradiction"),
    pytest.param([("Sec-Fetch-Site", "same-origin"), ("Origin", "null")], False, id="own page, origin hidden"),
    pytest.param([("Sec-Fetch-Site", "cross-site"), ("Origin", "null")], False, id="sandboxed frame"),
    pytest.param([("Origin", "null")], False, id="older browser, origin hidden"),
    pytest.param([("Origin", "https://evil.example")], False, id="older browser, elsewhere"),
    pytest.param([("Origin", "http://auth.example.com")], False, id="our host, not encrypted"),
    pytest.param([("Origin", f"{ISSUER}:8443")], False, id="our host, another port"),
    pytest.param([("Origin", f"{ISSUER}/")], False, id="slash at the end"),
    pytest.param([("Origin", ISSUER.upper())], False, id="capitals"),
    pytest.param([("Origin", f"{ISSUER}.evil.example")], False, id="ours as a prefix"),
    pytest.param([("Origin", "https://evil-auth.example.com")], False, id="ours as a suffix"),
    pytest.param([("Origin", f"{APP} {ISSUER}")], False, id="a list"),
    pytest.param([("Origin", f"{APP},{ISSUER}")], False, id="a list with a comma"),
    pytest.param([("Origin", "")], False, id="empty origin"),
    pytest.param([("Sec-Fetch-Site", ""), ("Origin", ISSUER)], False, id="empty site"),
    pytest.param([("Sec-Fetch-Site", "Same-Origin")], False, id="another spelling"),
    pytest.param([("Sec-Fetch-Site", "same-origin, cross-site")], False, id="two words"),
    pytest.param([("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")], False, id="site twice"),
    pytest.param([("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "same-origin")], False, id="site twice, same"),
    pytest.param([("Origin", ISSUER), ("Origin", "https://evil.example")], False, id="origin twice"),
    pytest.param([("Sec-Fetch-Site", "same-origin"), ("Origin", APP), ("Origin", APP)], False, id="origin twice, same"),
    pytest.param([("Referer", f"{ISSUER}/page")], False, id="a referrer is no word"),
    pytest.param([("X-Requested-With", "XMLHttpRequest")], False, id="nor is this"),
    pytest.param([("Host", "auth.example.com"), ("X-Forwarded-Host", "auth.example.com")], False, id="nor a host"),
]


@pytest.fixture
async def signed_in(listing: httpx2.AsyncClient, username: str) -> Browser:
    browser = Browser(listing, comes_from={"Sec-Fetch-Site": "same-origin", "Origin": ISSUER})
    await browser.sign_in(username)
    return browser


@pytest.mark.parametrize(("said", "may"), SITES)
async def test_who_may_use_the_cookie(
    signed_in: Browser, username: str, said: list[tuple[str, str]], *, may: bool
) -> None:
    """
    On all three routes. What may not is 403 before anything is read: no session ended, begun or refreshed, no cookie
    set or cleared, whatever the body.
    """
    http, cookie = signed_in.http, [("Cookie", f"{REFRESH}={signed_in.jar[REFRESH]}")]
    form = {"username": username, "password": PASSWORD}
    asked = [
        ("/refresh", {}),
        ("/token", {"grant_type": "refresh_token"}),
        ("/token", {"username": username, "password": "wrong password"}),
        ("/token", {**form, "refresh_token_in": "cookie"}),
        ("/token", form),
        ("/logout", {}),
    ]
    for path, data in asked:
        if may and data.get("password") == PASSWORD:
            continue  # it would end what the others use
        answer = await http.post(path, data=data, headers=[*said, *cookie])
        if may:
            assert answer.status_code == (401 if "username" in data else 200), (path, answer.text)
            continue
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site_request"), (path, answer.text)
        assert "set-cookie" not in answer.headers
    assert (await signed_in.post("/refresh")).status_code == (401 if may else 200)


@pytest.mark.parametrize(("said", "may"), SITES)
async def test_who_may_have_cookies_set(
    listing: httpx2.AsyncClient, username: str, said: list[tuple[str, str]], *, may: bool
) -> None:
    """
    A sign-in in cookie mode without a cookie: a foreign page would sign its visitor in as somebody else (login CSRF).
    A program that is no browser says nothing of where it comes from, and brings nothing that could be misused.
    """
    form = {"username": username, "password": PASSWORD, "refresh_token_in": "cookie"}
    speechless = not {name for name, _ in said} & {"Sec-Fetch-Site", "Origin"}
    answer = await listing.post("/token", data=form, headers=said)
    assert answer.status_code == (200 if may or speechless else 403), answer.text
    assert ("set-cookie" in answer.headers) == (may or speechless)


async def test_programs_without_cookies_are_not_asked(http: httpx2.AsyncClient, username: str) -> None:
    """Tokens in bodies need no such word, whatever a client says of itself."""
    said = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example", "Cookie": "other=1"}
    tokens = (await http.post("/token", data={"username": username, "password": PASSWORD}, headers=said)).json()
    refreshed = await http.post("/refresh", json={"refresh_token": tokens["refresh_token"]}, headers=said)
    assert refreshed.status_code == 200
    ended = await http.post("/logout", json={"refresh_token": tokens["refresh_token"]}, headers=said)
    assert ended.json()["ended"] is True


async def test_curl_can_say_where_it_speaks_from(browser: Browser, username: str) -> None:
    """A program that keeps cookies says `Origin`: the issuer's own will do."""
    told = await browser.sign_in(username)
    browser.comes_from = {}
    refused = await browser.post("/refresh")
    assert "Origin header" in refused.json()["detail"]
    browser.comes_from = {"Origin": "http://127.0.0.1:8000"}
    assert (await browser.post("/refresh")).json()["session_id"] == told["session_id"]


@pytest.mark.case(58)
@pytest.mark.parametrize("kind", ["text/plain", "text/plain;charset=UTF-8", "multipart/form-data; boundary=x", ""])
async def test_a_body_that_needs_no_preflight(browser: Browser, username: str, kind: str) -> None:
    """
    JSON sent as `text/plain` with the cookie: 403 from a foreign page, and 415 from our own; nothing is spent or ended.
    """
    told = await browser.sign_in(username)
    body = json.dumps({"refresh_token": browser.jar[REFRESH]})
    foreign = Browser(
        browser.http, {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, dict(browser.jar)
    )
    for path in ("/refresh", "/logout", "/token"):
        for page, status in ((foreign, 403), (browser, 415)):
            answer = await page.post(path, content=body, headers={"Content-Type": kind})
            assert (answer.status_code, "set-cookie" in answer.headers) == (status, False)
    assert await browser.whose(told["access_token"]) == username
    assert (await browser.post("/refresh")).status_code == 200


async def test_the_device_cookie_is_ours_too(browser: Browser) -> None:
    """Read by the same rules: no foreign page may use it, and a malformed one is refused and cleared."""
    from starlette.requests import Request  # noqa: PLC0415 - beside its only use

    from app.api.browsers import device_cookie  # noqa: PLC0415 - likewise
    from app.http.errors import CookieMalformed, CrossSiteRequest  # noqa: PLC0415 - likewise

    app = browser.http._transport.app  # type: ignore[attr-defined]

    def read(*headers: tuple[bytes, bytes]) -> str | None:
        return device_cookie(Request({"type": "http", "app": app, "headers": list(headers)}))

    token = "rota_dt_" + "A" * 72
    cookie, own = (b"cookie", f"{DEVICE}={token}".encode()), (b"sec-fetch-site", b"same-origin")
    assert read(own) is None
    assert read(own, cookie) == token
    with pytest.raises(CrossSiteRequest):
        read((b"sec-fetch-site", b"cross-site"), cookie)
    with pytest.raises(CookieMalformed) as refused:
        read(own, cookie, cookie)
    assert refused.value.clearing.startswith(f"{DEVICE}=; Max-Age=0;")


@pytest.mark.parametrize(
    ("issuer", "own"),
    [
        ("https://auth.example.com/rota", "https://auth.example.com"),
        ("https://AUTH.Example.com:443", "https://auth.example.com"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
        ("http://[::1", None),
        ("https://auth.example.com:99999", None),
        ("rota", None),
        ("urn:rota", None),
        ("https://", None),
    ],
)
def test_our_own_origin_is_the_issuers(issuer: str, own: str | None) -> None:
    """As a browser would spell it; an issuer that is no URL has none."""
    assert Origins.of(make_settings("postgresql://db/rota", issuer=issuer)) == Origins(own, ())
