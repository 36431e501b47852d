"""Hostile JWTs: at introspection, as bearer of a client, as bearer of a person."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from jose import jwt
from uuid_utils.compat import uuid7

from app.container import Container
from app.domain.errors import AccessTokenRejected
from tests.oauth.conftest import ElapsingClock, Known, MakeKnown, Somebody, Vouch, bearer

DEAD = {"active": False}


def segment(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Forge:
    """Makes tokens that are nearly right, from one that is; signed by our own key where that is what is tried."""

    def __init__(self, container: Container, clock: ElapsingClock, token: str) -> None:
        self.key = container.signing_keys.current(clock.on_host())
        self.claims: dict[str, Any] = jwt.get_unverified_claims(token)
        self.header = {"alg": "ES256", "typ": "at+jwt", "kid": self.key.kid}

    def signed(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        claims = {name: value for name, value in {**self.claims, **changes}.items() if value is not ...}
        parts = f"{segment({**self.header, **(header or {})})}.{segment(claims)}"
        return f"{parts}.{segment(self.key.private.sign(parts.encode()))}"

    def unsigned(self, header: dict[str, Any], signature: str = "") -> str:
        return f"{segment({**self.header, **header})}.{segment(self.claims)}.{signature}"

    def by_hmac(self, secret: bytes) -> str:
        parts = f"{segment({**self.header, 'alg': 'HS256'})}.{segment(self.claims)}"
        return f"{parts}.{segment(hmac.digest(secret, parts.encode(), hashlib.sha256))}"

    def all(self, good: str) -> dict[str, str]:
        head, body, signature = good.split(".")
        stranger = ec.generate_private_key(ec.SECP256R1())
        der = stranger.sign(f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
        twice = segment(json.dumps(self.claims)[:-1].encode() + b', "scope": "introspect revoke sessions"}')
        twice_signed = f"{head}.{twice}"
        return {
            "none": self.unsigned({"alg": "none"}),
            "nOnE": self.unsigned({"alg": "nOnE"}, signature),
            "no signature": f"{head}.{body}.",
            "two parts": f"{head}.{body}",
            "five parts": f"{good}.x.y",
            "HS256 by the public key": self.by_hmac(json.dumps(self.key.jwk).encode()),
            "HS256 by nothing": self.by_hmac(b""),
            "zero signature": f"{head}.{body}.{segment(bytes(64))}",
            "a stranger's key": f"{head}.{body}.{segment(der)}",
            "a key of its own in the header": self.signed({"jwk": self.key.jwk}),
            "a key's address in the header": self.signed({"jku": "http://127.0.0.1:9/keys"}),
            "critical members": self.signed({"crit": ["exp"]}),
            "another type": self.signed({"typ": "JWT"}),
            "a logout token": self.signed({"typ": "logout+jwt"}),
            "a security event": self.signed({"typ": "secevent+jwt"}),
            "another key id": self.signed({"kid": "x"}),
            "a changed body": f"{head}.{segment({**self.claims, 'scope': 'introspect revoke sessions'})}.{signature}",
            "a second spelling": f"{good[:-1]}{'B' if good[-1] == 'A' else 'A' if good[-1] != 'A' else 'Q'}",
            "a scope that stands twice": f"{twice_signed}.{segment(self.key.private.sign(twice_signed.encode()))}",
            "padding": f"{good}==",
            "white space": f" {good}",
            "a line end": f"{good}\n",
            "very long": self.signed(jti="x" * 9000),
            "another issuer": self.signed(iss="https://evil.example"),
            "another audience": self.signed(aud="other"),
            "a list of audiences": self.signed(aud=["rota", "other"]),
            "expired": self.signed(exp=int(time.time()) - 1),
            "expires as text": self.signed(exp="2099"),
            "expires never": self.signed(exp=...),
            "expires at infinity": self.signed(exp=1e400),
            "not valid yet": self.signed(nbf=int(time.time()) + 3600),
            "issued in the future": self.signed(iat=int(time.time()) + 3600),
            "no id": self.signed(jti=...),
            "deep": segment(self.header) + "." + segment(b"[" * 3000) + "." + signature,
            "no JSON": segment(b"\xff\xfe") + "." + body + "." + signature,
        }


def over_http(tokens: dict[str, str]) -> dict[str, str]:
    """Without those that a header cannot hold: HTTP takes the white space off, and what is left is the good one."""
    return {name: token for name, token in tokens.items() if token == token.strip()}


async def of_client(http: httpx2.AsyncClient, known: Known) -> str:
    granted = await http.post("/oauth2/token", data={"grant_type": "client_credentials"}, headers=known.basic)
    token: str = granted.json()["access_token"]
    return token


async def assert_all_dead(http: httpx2.AsyncClient, known: Known, tokens: dict[str, str]) -> None:
    for name, token in tokens.items():
        answer = await http.post("/oauth2/introspect", data={"token": token}, headers=known.basic)
        assert (answer.status_code, answer.json()) == (200, DEAD), name
        revoked = await http.post("/oauth2/revoke", data={"token": token}, headers=known.basic)
        assert revoked.status_code == 200, name


async def test_a_persons_token_forged(
    http: httpx2.AsyncClient,
    container: Container,
    make_client: MakeKnown,
    somebody: Somebody,
    vouch: Vouch,
    clock: ElapsingClock,
) -> None:
    """Dead at introspection, without effect at revocation, 401 as bearer; the good one lives on afterwards."""
    known = await make_client(scopes=["introspect", "sessions", "revoke"])
    good = (await vouch(known, somebody))["access_token"]
    forge = Forge(container, clock, good)
    tokens = forge.all(good) | {
        "another person": forge.signed(sub=str(uuid7())),
        "another session": forge.signed(sid=str(uuid7())),
        "two roles": forge.signed(roles=["user", "admin"]),
        "no role": forge.signed(roles=...),
        "no session": forge.signed(sid=...),
    }
    await assert_all_dead(http, known, tokens)
    for name, token in over_http(tokens).items():
        for path in ("/me", "/admin/clients"):
            assert (await http.get(path, headers=bearer(token))).status_code == 401, name
    assert (await http.get("/me", headers=bearer(good))).status_code == 200


async def test_a_clients_token_forged(
    http: httpx2.AsyncClient,
    container: Container,
    make_client: MakeKnown,
    somebody: Somebody,
    vouch: Vouch,
    clock: ElapsingClock,
) -> None:
    """Likewise; and one that was made to look like a person's opens nothing of either kind."""
    known = await make_client(scopes=["introspect", "sessions"])
    other = await make_client(scopes=["introspect"])
    good = await of_client(http, known)
    session = (await vouch(known, somebody))["session_id"]
    forge = Forge(container, clock, good)
    tokens = forge.all(good) | {
        "another client's name": forge.signed(sub=other.client.client_id),
        "its name and another's": forge.signed(client_id=other.client.client_id),
        "a person as subject": forge.signed(sub=str(somebody.user.id)),
        "a client that there is not": forge.signed(sub="nobody", client_id="nobody"),
        "our own client": forge.signed(sub="first-party", client_id="first-party"),
        "an empty name": forge.signed(sub="", client_id=""),
        "a name that is a list": forge.signed(sub=["x"], client_id=["x"]),
        "with a role": forge.signed(roles=["admin"]),
        "with a session": forge.signed(sid=session),
        "with the time of a sign-in": forge.signed(auth_time=1),
        "a session and a role": forge.signed(sid=session, roles=["admin"], auth_time=1),
        "scope as a list": forge.signed(scope=["introspect"]),
        "no scope": forge.signed(scope=...),
    }
    await assert_all_dead(http, known, tokens)
    for name, token in over_http(tokens).items():
        answer = await http.post("/oauth2/introspect", data={"token": "x"}, headers=bearer(token))
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token"), name
        for path in ("/me", "/sessions", "/admin/clients"):
            assert (await http.get(path, headers=bearer(token))).status_code == 401, name
    answer = await http.post("/oauth2/introspect", data={"token": good}, headers=bearer(good))
    assert answer.json()["active"] is True


async def test_a_token_gives_no_scope_that_the_client_has_not(
    http: httpx2.AsyncClient, container: Container, make_client: MakeKnown, clock: ElapsingClock
) -> None:
    """Even under our own signature: what it says and what the client has, the smaller of both."""
    known = await make_client(scopes=["authz"])
    forge = Forge(container, clock, await of_client(http, known))
    wide = forge.signed(scope="authz introspect sessions")
    client = await container.client_authentication.authenticate_token(wide)
    assert {scope.value for scope in client.scopes} == {"authz"}


@pytest.mark.case(14)
@pytest.mark.parametrize("kind", ["person", "client"])
async def test_each_reader_takes_its_own_kind_only(
    http: httpx2.AsyncClient,
    container: Container,
    make_client: MakeKnown,
    somebody: Somebody,
    vouch: Vouch,
    clock: ElapsingClock,
    kind: str,
) -> None:
    """By the claims, before anything is looked up."""
    known = await make_client(scopes=["sessions"])
    tokens = container.client_authentication._access_tokens
    token = (await vouch(known, somebody))["access_token"] if kind == "person" else await of_client(http, known)
    with pytest.raises(AccessTokenRejected):
        (tokens.verify_client if kind == "person" else tokens.verify)(token, clock.on_host())
