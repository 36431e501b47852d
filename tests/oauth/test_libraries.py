"""Clients that nobody here wrote, in Python and in Node, against a server process."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jwt as pyjwt
import pytest
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from oauthlib.oauth2 import BackendApplicationClient, InvalidGrantError, InvalidScopeError, LegacyApplicationClient
from requests_oauthlib import OAuth2Session as OauthlibSession

from tests.conftest import PASSWORD
from tests.oauth.conftest import Known, Served

HERE = Path(__file__).parent
T = TypeVar("T")


@pytest.fixture(autouse=True)
def _plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """On loopback; both libraries insist on TLS otherwise."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")


async def in_thread(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)


async def make_app(served: Served, **more: Any) -> Known:
    values: dict[str, Any] = {
        "first_party": True,
        "grants": ["password", "refresh_token", "client_credentials"],
        "scopes": ["introspect", "revoke"],
        "session_scopes": ("read", "write"),
    }
    return await served.make_client(**{**values, **more})


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_authlib(served: Served, method: str) -> None:
    """Metadata, all grants, narrowing and widening, introspection, revocation: its own calls, both ways to say who."""
    known, person = await make_app(served), await served.make_person()

    def work() -> dict[str, Any]:
        said: dict[str, Any] = {}
        with AuthlibSession(
            known.client.client_id, known.secret, token_endpoint_auth_method=method, scope="read write"
        ) as session:
            told = session.get(f"{served.url}/.well-known/oauth-authorization-server", withhold_token=True).json()
            AuthorizationServerMetadata(told).validate()
            token = session.fetch_token(told["token_endpoint"], username=person, password=PASSWORD)
            said["first"] = dict(token)
            said["me"] = session.get(f"{served.url}/me").json()["username"]
            access = session.introspect_token(told["introspection_endpoint"], token=token["access_token"])
            said["access"] = access.json()
            narrow = session.refresh_token(told["token_endpoint"], token["refresh_token"], scope="read")
            said["narrow"] = dict(narrow)
            wide = {"grant_type": "refresh_token", "refresh_token": narrow["refresh_token"], "scope": "read admin"}
            said["wide"] = session.post(
                told["token_endpoint"], data=wide, auth=session.client_auth(method), withhold_token=True
            ).json()["error"]
            said["refresh"] = session.introspect_token(
                told["introspection_endpoint"], token=narrow["refresh_token"], token_type_hint="refresh_token"
            ).json()
            revoked = session.revoke_token(told["revocation_endpoint"], token=narrow["refresh_token"])
            said["revoked"] = revoked.status_code
            said["after"] = session.introspect_token(
                told["introspection_endpoint"], token=narrow["access_token"], token_type_hint="access_token"
            ).json()
        with AuthlibSession(
            known.client.client_id, known.secret, token_endpoint_auth_method=method, scope="introspect"
        ) as session:
            said["own"] = dict(session.fetch_token(told["token_endpoint"], grant_type="client_credentials"))
        return said

    said = await in_thread(work)
    assert said["first"]["scope"] == "read write"
    assert said["me"] == person
    assert (said["access"]["active"], said["access"]["client_id"]) == (True, known.client.client_id)
    assert said["narrow"]["scope"] == "read"
    assert said["narrow"]["refresh_token"] != said["first"]["refresh_token"]
    assert said["wide"] == "invalid_scope"
    assert (said["refresh"]["active"], said["refresh"]["scope"]) == (True, "read write")
    assert (said["revoked"], said["after"]) == (200, {"active": False})
    assert (said["own"]["scope"], "refresh_token" in said["own"]) == ("introspect", False)


async def test_oauthlib(served: Served) -> None:
    """Sign-in, refresh, its typed errors, and the client's own token."""
    known, other, person = await make_app(served), await make_app(served), await served.make_person()
    url = f"{served.url}/oauth2/token"

    def work() -> None:
        with OauthlibSession(client=LegacyApplicationClient(known.client.client_id, scope=["read"])) as session:
            token = session.fetch_token(url, username=person, password=PASSWORD, auth=auth(known))
            assert token["scope"] == ["read"]
            assert session.get(f"{served.url}/me").json()["username"] == person
            fresh = session.refresh_token(url, token["refresh_token"], auth=auth(known))
            assert fresh["refresh_token"] != token["refresh_token"]
            session.scope = ["write"]  # it asks for what the session wants, which is more than was granted
            with pytest.raises(InvalidScopeError):
                session.refresh_token(url, fresh["refresh_token"], auth=auth(known))
            session.scope = ["read"]
            with pytest.raises(InvalidGrantError):
                session.refresh_token(url, fresh["refresh_token"], auth=auth(other))
            again = session.refresh_token(url, fresh["refresh_token"], auth=auth(known))
            assert again["expires_in"] == 900
            with pytest.raises(InvalidGrantError):
                session.fetch_token(url, username=person, password="wrong", auth=auth(known))
        with OauthlibSession(client=BackendApplicationClient(known.client.client_id, scope=["revoke"])) as session:
            token = session.fetch_token(url, client_secret=known.secret, include_client_id=True)
            assert token["scope"] == ["revoke"]

    await in_thread(work)


def auth(known: Known) -> tuple[str, str]:
    return known.client.client_id, known.secret


async def test_pyjwt_follows_the_key_set(served: Served) -> None:
    """By the client it has for that; a person's and a client's token both verify, and only one has a session."""
    known, person = await make_app(served), await served.make_person()

    def work() -> tuple[dict[str, Any], dict[str, Any]]:
        keys = pyjwt.PyJWKClient(f"{served.url}/.well-known/jwks.json")

        def read(token: str) -> dict[str, Any]:
            read: dict[str, Any] = pyjwt.decode(
                token,
                keys.get_signing_key_from_jwt(token),
                algorithms=["ES256"],
                audience="rota",
                issuer=served.url,
                options={"require": ["exp", "iat", "sub", "aud", "iss", "jti"]},
            )
            return read

        with AuthlibSession(known.client.client_id, known.secret) as session:
            url = f"{served.url}/oauth2/token"
            persons = session.fetch_token(url, username=person, password=PASSWORD)["access_token"]
            own = session.fetch_token(url, grant_type="client_credentials")["access_token"]
        return read(persons), read(own)

    persons, own = await in_thread(work)
    assert persons["roles"] == ["user"]
    assert (own["sub"], "sid" in own, "roles" in own) == (known.client.client_id, False, False)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of `package.json`, versions pinned there, and the script that uses them."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail("node and npm are needed here")
        pytest.skip("there is no node")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "oracle.mjs"):
        shutil.copy(HERE / name, folder)
    words = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    subprocess.run(words, cwd=folder, check=True, timeout=150)
    return folder


async def test_openid_client_oauth4webapi_and_jose(served: Served, node: Path) -> None:
    """Discovery, every grant, introspection, revocation and verification by the libraries' own strict readers."""
    known, other, person = await make_app(served), await make_app(served), await served.make_person()
    given = {
        "url": served.url,
        "client": {"id": known.client.client_id, "secret": known.secret},
        "other": {"id": other.client.client_id, "secret": other.secret},
        "person": person,
        "password": PASSWORD,
    }
    run = subprocess.run
    done = await in_thread(
        lambda: run(
            ["node", "oracle.mjs", json.dumps(given)],
            cwd=node,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    dead = {"active": False}
    assert said["issuer"] == served.url
    assert said["credentials"] == {"basic": ["bearer", "introspect", 900], "post": ["bearer", "introspect", 900]}
    assert (said["access"]["active"], said["access"]["scope"]) == (True, "read write")
    assert (said["refresh"]["active"], said["refresh"]["aud"]) == (True, served.url)
    assert said["narrowed"] == "read"
    assert said["widened"] == ["invalid_scope", 400]
    assert said["anothers"] == ["invalid_grant", 400]
    assert said["wrongSecret"][0] in {"invalid_client", "OAUTH_WWW_AUTHENTICATE_CHALLENGE"}
    assert said["verified"] == [known.client.client_id, "read", "at+jwt"]
    assert said["validated"] == said["access"]["sub"]
    assert said["afterwards"] == [dead, dead]
    assert said["dead"] == ["invalid_grant", 400]
    assert said["openid"] == {
        "credentials": ["bearer", "introspect revoke", True],
        "rotated": True,
        "active": True,
        "afterwards": dead,
        "dead": ["invalid_grant", 400],
    }
