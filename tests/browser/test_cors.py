"""Which pages of other origins may read our answers."""

from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from app.http.cors import CrossOrigin, Preflights
from app.settings import Settings, SettingsInvalid, load_settings
from tests.browser.conftest import APP
from tests.conftest import PASSWORD

ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-evil"}
ALLOWED = {
    "access-control-allow-origin": APP,
    "access-control-allow-credentials": "true",
    "access-control-expose-headers": "Retry-After, X-Request-ID",
}
FOREIGN = [
    "https://evil.example",
    "null",
    "",
    "*",
    APP.upper(),
    f"{APP}/",
    f"{APP}:443",
    f"{APP}.evil.example",
    "http://app.example.com",
    "https://evil.app.example.com",
    "http://localhost:3001",
    "http://localhost",
    f"{APP}, https://evil.example",
    f"{APP}\t",
    "https://auth.example.com",
]


def cors(answer: httpx2.Response) -> dict[str, str]:
    """The answer's headers of this kind."""
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control")}


@pytest.mark.parametrize("path", ["/token", "/refresh", "/logout", "/sessions", "/admin/users", "/nowhere"])
async def test_a_listed_origin_gets_its_preflight(listing: httpx2.AsyncClient, path: str) -> None:
    """204 with exact lists that do not depend on what is asked, an id, and nothing to keep for others."""
    answer = await listing.options(path, headers={"Origin": APP, **ASKS})
    assert (answer.status_code, answer.content) == (204, b"")
    assert cors(answer) == {
        **ALLOWED,
        "access-control-allow-methods": "GET, POST, PUT, PATCH, DELETE",
        "access-control-allow-headers": "Authorization, Content-Type, Idempotency-Key",
        "access-control-max-age": "600",
    }
    assert answer.headers["vary"] == "Origin"
    assert answer.headers["x-request-id"]
    assert "evil" not in str(answer.headers)


@pytest.mark.parametrize("origin", FOREIGN)
async def test_any_other_origin_is_told_nothing(
    listing: httpx2.AsyncClient, http: httpx2.AsyncClient, username: str, origin: str
) -> None:
    """No such header at all, and the very answers of a deployment that lists nothing."""
    form = {"username": username, "password": PASSWORD}
    for client in (listing, http):
        preflight = await client.options("/refresh", headers={"Origin": origin, **ASKS})
        signed_in = await client.post("/token", data=form, headers={"Origin": origin})
        refused = await client.get("/me", headers={"Origin": origin})
        assert [answer.status_code for answer in (preflight, signed_in, refused)] == [405, 200, 401]
        assert [cors(answer) for answer in (preflight, signed_in, refused)] == [{}] * 3
        assert (refused.headers.get("vary") == "Origin") == (client is listing)


async def test_an_origin_said_twice_is_none(listing: httpx2.AsyncClient) -> None:
    """Two headers, be they the same."""
    answer = await listing.get("/livez", headers=[("Origin", APP), ("Origin", APP)])
    assert (cors(answer), answer.headers["vary"]) == ({}, "Origin")


async def test_refusals_and_failures_can_be_read(
    listing: httpx2.AsyncClient, listing_app: FastAPI, username: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listed page sees why: 401, 403, 404, 405, 413, 415, 422, 500, 503, with `Retry-After` where it is."""
    from app.domain.errors import Unavailable  # noqa: PLC0415 - beside its only use
    from app.services.refresh import Refresh  # noqa: PLC0415 - likewise
    from app.services.sign_in import SignIn  # noqa: PLC0415 - likewise

    async def away(*_: object, **__: object) -> None:
        raise Unavailable

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("not for others")

    monkeypatch.setattr(Refresh, "rotate", away)
    origin = {"Origin": APP}
    form = {"username": username, "password": PASSWORD}
    tokens = (await listing.post("/token", data=form, headers=origin)).json()
    monkeypatch.setattr(SignIn, "with_password", broken)
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    cookie = {"Cookie": "__Host-rota_refresh=x", "Sec-Fetch-Site": "none"}
    answers = {
        401: await listing.get("/me", headers=origin),
        403: await listing.post("/refresh", headers={**origin, **cookie}),
        404: await listing.get("/nowhere", headers=origin),
        405: await listing.delete("/token", headers=origin),
        413: await listing.post("/refresh", content=b"{" + b" " * 70_000, headers=origin),
        415: await listing.post("/refresh", content="{}", headers={**origin, "Content-Type": "text/plain"}),
        422: await listing.put("/me/password", json={}, headers={**origin, **bearer}),
        500: await listing.post("/token", data=form, headers=origin),
        503: await listing.post("/refresh", json={"refresh_token": tokens["refresh_token"]}, headers=origin),
    }
    for status, answer in answers.items():
        assert answer.status_code == status, answer.text
        assert cors(answer) == ALLOWED, status
        assert "Origin" in answer.headers["vary"]
        assert answer.headers["x-request-id"]
    assert answers[503].headers["retry-after"] == "1"
    assert "not for others" not in answers[500].text


async def test_a_deadline_can_be_read(
    listing: httpx2.AsyncClient, listing_app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the answer that no route has given, and it clears no cookie."""
    import asyncio  # noqa: PLC0415 - beside its only use

    from app.http import deadline  # noqa: PLC0415 - likewise
    from app.services.refresh import Refresh  # noqa: PLC0415 - likewise

    async def hang(*_: object, **__: object) -> None:
        for running in list(watch._running):
            running.until = 0
        await asyncio.Event().wait()

    monkeypatch.setattr(Refresh, "rotate", hang)
    assert (await listing.get("/livez")).status_code == 200  # builds the stack
    watch: Any = listing_app.middleware_stack
    while not isinstance(watch, deadline.Deadline):
        watch = getattr(watch, "_app", None) or watch.app
    headers = {"Origin": APP, "Sec-Fetch-Site": "same-site", "Cookie": f"__Host-rota_refresh=rota_rt_{'A' * 104}"}
    answer = await listing.post("/refresh", headers=headers)
    assert (answer.status_code, "set-cookie" in answer.headers) == (503, False)
    assert cors(answer) == ALLOWED


async def test_forward_authentication_is_not_for_pages(listing: httpx2.AsyncClient) -> None:
    """A proxy that passes a preflight on must not hear "go on", or the service behind it would be open."""
    answer = await listing.options("/authz", headers={"Origin": APP, **ASKS})
    assert (answer.status_code, cors(answer)) == (401, {})
    assert "vary" not in answer.headers


async def test_an_ordinary_options_is_none(listing: httpx2.AsyncClient) -> None:
    """Without `Access-Control-Request-Method` nobody asks for leave."""
    assert (await listing.options("/refresh", headers={"Origin": APP})).status_code == 405


def test_who_lists_nothing_pays_nothing(app: FastAPI, listing_app: FastAPI) -> None:
    """The middleware is not even there."""
    ours = {CrossOrigin, Preflights}
    assert not ours & {each.cls for each in app.user_middleware}
    assert ours <= {each.cls for each in listing_app.user_middleware}


BASE = {"ROTA_DATABASE_URL": "postgresql://db/rota", "ROTA_SECRETS": "s" * 32}


def load(monkeypatch: pytest.MonkeyPatch, text: str) -> Settings:
    for name, value in {**BASE, "ROTA_CORS_ORIGINS": text}.items():
        monkeypatch.setenv(name, value)
    return load_settings()


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("", ()),
        (" ", ()),
        ("https://app.example.com", ("https://app.example.com",)),
        ("https://app.example.com, http://localhost:3000", ("https://app.example.com", "http://localhost:3000")),
        (
            "https://a.example:8443,https://xn--bcher-kva.example,http://127.0.0.1:5173,http://[::1]:1,https://10.0.0.5",
            (
                "https://a.example:8443",
                "https://xn--bcher-kva.example",
                "http://127.0.0.1:5173",
                "http://[::1]:1",
                "https://10.0.0.5",
            ),
        ),
        ("http://localhost", ("http://localhost",)),
    ],
)
def test_origins_that_can_be_listed(monkeypatch: pytest.MonkeyPatch, text: str, listed: tuple[str, ...]) -> None:
    """As browsers spell them."""
    assert load(monkeypatch, text).allowed_origins == listed


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "null",
        "https://*",
        "https://*.example.com",
        "app.example.com",
        "//app.example.com",
        "http://app.example.com",
        "http://localhost.example.com",
        "http://127.0.0.2:3000",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://app.example.com?",
        "https://app.example.com#",
        "https://user:hunter2@app.example.com",
        "https://APP.example.com",
        "HTTPS://app.example.com",
        "https://app.example.com:443",
        "http://localhost:80",
        "https://app.example.com:0",
        "https://app.example.com:65536",
        "https://app.example.com:08443",
        "https://app.example.com:",
        "https://app.example.com.",
        "https://-app.example.com",
        "https://app..example.com",
        "https://bücher.example",
        "https://app.example.com\n",
        "https://app.example.com https://b.example.com",
        "https://app.example.com,",
        ",https://app.example.com",
        "https://a.example,,https://b.example",
        "https://a.example;https://b.example",
        "https://a.example,*",
        "https://a.example,https://a.example",
        "wss://app.example.com",
        "file://",
        "chrome-extension://abcdefghijklmnop",
        '["https://app.example.com"]',
        f"https://{'a.' * 127}example",
    ],
)
def test_origins_that_cannot(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Refused at the start, by the variable's name; the value is not repeated."""
    with pytest.raises(SettingsInvalid, match=r"^ROTA_CORS_ORIGINS: (must be a comma|an origin stands)") as refused:
        load(monkeypatch, text)
    assert "hunter2" not in str(refused.value)
