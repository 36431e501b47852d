"""Where what is (RFC 8414), and the key set as something that may be kept."""

from collections.abc import AsyncIterator

import httpx2
import jwt as pyjwt
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.main import create_app
from tests.conftest import make_settings
from tests.oauth.conftest import ElapsingClock, MakeKnown, Served

METADATA = "/.well-known/oauth-authorization-server"
KEYS = "/.well-known/jwks.json"


@pytest_asyncio.fixture
async def elsewhere(database_url: str) -> AsyncIterator[FastAPI]:
    """An issuer with a path."""
    app = create_app(make_settings(database_url, issuer="https://login.example/rota"))
    yield app
    await app.state.container.close()


async def test_the_metadata_name_what_there_is(http: httpx2.AsyncClient) -> None:
    """The issuer to the letter, every endpoint below it, and each endpoint is there."""
    answer = await http.get(METADATA)
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    issuer = "http://127.0.0.1:8000"
    assert told == {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/oauth2/token",
        "revocation_endpoint": f"{issuer}/oauth2/revoke",
        "introspection_endpoint": f"{issuer}/oauth2/introspect",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "scopes_supported": ["introspect", "revoke", "revocations", "authz", "sessions", "notifications"],
        "grant_types_supported": ["password", "refresh_token", "client_credentials"],
        "response_types_supported": ["none"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "Bearer"],
    }
    for name in ("token_endpoint", "revocation_endpoint", "introspection_endpoint"):
        assert (await http.post(told[name].removeprefix(issuer))).status_code == 401
    assert (await http.get(told["jwks_uri"].removeprefix(issuer))).status_code == 200
    assert (await http.get(f"{METADATA}/rota")).status_code == 404


async def test_an_issuer_with_a_path(elsewhere: FastAPI) -> None:
    """The path stands behind (RFC 8414 section 3.1), and only that one."""
    transport = httpx2.ASGITransport(elsewhere)
    async with httpx2.AsyncClient(transport=transport, base_url="https://login.example") as http:
        told = (await http.get(f"{METADATA}/rota")).json()
        assert told["issuer"] == "https://login.example/rota"
        assert told["token_endpoint"] == "https://login.example/rota/oauth2/token"
        assert (await http.get(METADATA)).json() == told
        for path in ("/", "/other", "/rota/more"):
            assert (await http.get(METADATA + path)).status_code == 404


@pytest.mark.parametrize("path", [KEYS, METADATA])
async def test_what_is_kept_is_asked_for_again_by_its_tag(http: httpx2.AsyncClient, path: str) -> None:
    """304 for the tag that it has, weak or in a list (RFC 9110 section 13.1.2); the whole for any other."""
    answer = await http.get(path)
    tag = answer.headers["etag"]
    assert answer.headers["cache-control"] == "public, max-age=3600"
    for given in (tag, f"W/{tag}", f'"x", {tag}', "*", f'W/"y",W/{tag}'):
        again = await http.get(path, headers={"If-None-Match": given})
        assert (again.status_code, again.content) == (304, b"")
        assert (again.headers["etag"], again.headers["cache-control"]) == (tag, "public, max-age=3600")
    for given in ('"x"', tag.strip('"'), ""):
        again = await http.get(path, headers={"If-None-Match": given})
        assert (again.status_code, again.content) == (200, answer.content)


async def test_a_kept_key_set_is_never_behind(
    http: httpx2.AsyncClient, make_client: MakeKnown, clock: ElapsingClock
) -> None:
    """A copy as old as it may be verifies what is signed then, also across the change of keys; then its tag changes."""
    known = await make_client()
    # To just before the next period of thirty days.
    period = 30 * 24 * 3600
    clock.advance(seconds=period - clock.time.timestamp() % period - 1800)
    before = await http.get(KEYS)
    clock.advance(seconds=3600)
    granted = await http.post("/oauth2/token", data={"grant_type": "client_credentials"}, headers=known.basic)
    token = granted.json()["access_token"]
    key = pyjwt.PyJWKSet.from_dict(before.json())[pyjwt.get_unverified_header(token)["kid"]]
    pyjwt.decode(token, key, algorithms=["ES256"], audience="rota", options={"verify_exp": False, "verify_iat": False})
    after = await http.get(KEYS, headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.headers["etag"] != before.headers["etag"]


@pytest.mark.parametrize("path", [KEYS, METADATA])
async def test_head_answers_as_get_does(served: Served, path: str) -> None:
    """Headers alike, and no body (RFC 9110 section 9.3.2); of a real server, which is what leaves the body out."""
    async with httpx2.AsyncClient(base_url=served.url) as http:
        got, looked = await http.get(path), await http.head(path)
        assert (looked.status_code, looked.content) == (200, b"")
        for name in ("content-type", "content-length", "etag", "cache-control"):
            assert looked.headers[name] == got.headers[name]
        known = await http.head(path, headers={"If-None-Match": got.headers["etag"]})
        assert known.status_code == 304
