"""
Hostile JWTs, by number of the list: on real routes over HTTP, against the verifier, and as PyJWT sees them.

Each is made from a good token of somebody who is signed in, mostly under our own signing key: what is refused is
refused for what it says, and not for want of a signature.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import jwt as pyjwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI
from jose import jwt

from app.domain.errors import AccessTokenRejected
from tests.conftest import MovableClock, Person

MEGABYTE = 2**20


def segment(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass
class Bench:
    """A good token, what it is made of, and our own key to sign others with."""

    app: FastAPI
    http: httpx2.AsyncClient
    good: str
    now: int
    listener: str

    def __post_init__(self) -> None:
        services = self.app.state.container
        self.tokens = services.client_authentication._access_tokens
        self.key = services.signing_keys.current(services.clock.on_host())
        self.published = services.signing_keys.published(services.clock.on_host())
        self.claims: dict[str, Any] = jwt.get_unverified_claims(self.good)
        self.header: dict[str, Any] = {"alg": "ES256", "typ": "at+jwt", "kid": self.key.kid}

    def sign(self, header: object, body: object) -> str:
        parts = f"{segment(header)}.{segment(body)}"
        return f"{parts}.{segment(self.key.private.sign(parts.encode()))}"

    def said(self, **claims: Any) -> str:
        """Our signature under other claims; `...` leaves one out."""
        return self.sign(self.header, {n: v for n, v in {**self.claims, **claims}.items() if v is not ...})

    def headed(self, **members: Any) -> str:
        """Our signature under another header."""
        return self.sign({n: v for n, v in {**self.header, **members}.items() if v is not ...}, self.claims)

    def spelled(self, name: str, value: str) -> str:
        """Our signature under a member that stands twice, in a spelling of one's own."""
        return self.sign(self.header, f'{json.dumps(self.claims)[:-1]}, "{name}": {value}}}'.encode())

    def by(self, algorithm: str, sign: Callable[[bytes], bytes], **members: Any) -> str:
        parts = f"{segment({**self.header, 'alg': algorithm, **members})}.{segment(self.claims)}"
        return f"{parts}.{segment(sign(parts.encode()))}"

    def public_texts(self) -> dict[str, bytes]:
        """Our public key in every form in which somebody could hold it."""
        x, y = (base64.urlsafe_b64decode(self.key.jwk[name] + "==") for name in ("x", "y"))
        numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1())
        public = numbers.public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return {
            "PEM": pem,
            "PEM without its line end": pem.strip(),
            "PEM of one line": pem.replace(b"\n", b""),
            "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "OpenSSH": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
            "a point": public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
            "a compressed point": public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint),
            "JWK": json.dumps(self.key.jwk).encode(),
            "JWK, compact": json.dumps(self.key.jwk, separators=(",", ":")).encode(),
            "JWK, sorted": json.dumps(self.key.jwk, separators=(",", ":"), sort_keys=True).encode(),
            "x": x,
            "x as text": str(self.key.jwk["x"]).encode(),
            "kid": self.key.kid.encode(),
            "nothing": b"",
        }


Case = Callable[[Bench], dict[str, str]]


def algorithm_none(bench: Bench) -> dict[str, str]:
    _, body, signature = bench.good.split(".")
    found = {}
    for name in ("none", "None", "nOnE", "NONE", "none ", "", None, ...):
        header = {n: v for n, v in {**bench.header, "alg": name}.items() if v is not ...}
        found[f"{name} unsigned"] = f"{segment(header)}.{body}."
        found[f"{name} with the signature"] = f"{segment(header)}.{body}.{signature}"
        found[f"{name}, signed"] = bench.headed(alg=name)
    return found | {"no signature": bench.good.rpartition(".")[0], "an empty one": f"{bench.good.rpartition('.')[0]}."}


def public_key_as_secret(bench: Bench) -> dict[str, str]:
    digests = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
    return {
        f"{algorithm} by {name}": bench.by(algorithm, lambda parts, s=secret, d=digest: hmac.digest(s, parts, d))  # type: ignore[misc]
        for name, secret in bench.public_texts().items()
        for algorithm, digest in digests.items()
    }


def other_algorithms(bench: Bench) -> dict[str, str]:
    p384, ours_or_not = ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)

    def raw(parts: bytes, size: int, digest: hashes.HashAlgorithm) -> bytes:
        r, s = decode_dss_signature(p384.sign(parts, ec.ECDSA(digest)))
        return r.to_bytes(48)[-size:] + s.to_bytes(48)[-size:]

    def pss(parts: bytes) -> bytes:
        return ours_or_not.sign(parts, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())

    return {
        "ES384 by a P-384 key": bench.by("ES384", lambda parts: raw(parts, 48, hashes.SHA384())),
        "ES256 by a P-384 key": bench.by("ES256", lambda parts: raw(parts, 48, hashes.SHA256())),
        "ES256 by a P-384 key, cut": bench.by("ES256", lambda parts: raw(parts, 32, hashes.SHA256())),
        "RS256": bench.by("RS256", lambda parts: ours_or_not.sign(parts, padding.PKCS1v15(), hashes.SHA256())),
        "PS256": bench.by("PS256", pss),
        "RS256 by a PS256 signature": bench.by("RS256", pss),
        "EdDSA": bench.by("EdDSA", ed25519.Ed25519PrivateKey.generate().sign),
        "ES256K": bench.headed(alg="ES256K"),
        "es256": bench.headed(alg="es256"),
        "ES256 in a list": bench.headed(alg=["ES256"]),
        "a signature of zeros": f"{bench.good.rpartition('.')[0]}.{segment(bytes(64))}",
    }


def key_ids(bench: Bench) -> dict[str, str]:
    names: list[Any] = [
        "../../../dev/null", "/dev/null", "file:///etc/passwd", "' OR 1=1 --", "x' UNION SELECT 'a", "a" * 10_000,
        "", "\0", f"{bench.key.kid}\0", f"{bench.key.kid} ", bench.key.kid.lower(), [bench.key.kid],
        {"kid": bench.key.kid}, None, 0, True, ...,
    ]  # fmt: skip
    return {repr(name)[:40]: bench.headed(kid=name) for name in names}


def keys_in_the_header(bench: Bench) -> dict[str, str]:
    stranger = ec.generate_private_key(ec.SECP256R1())
    numbers = stranger.public_key().public_numbers()
    jwk = {"kty": "EC", "crv": "P-256", "x": segment(numbers.x.to_bytes(32)), "y": segment(numbers.y.to_bytes(32))}

    def by_stranger(parts: bytes) -> bytes:
        r, s = decode_dss_signature(stranger.sign(parts, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)

    places = [bench.listener, "http://169.254.169.254/latest/meta-data", "file:///etc/passwd"]
    found = {f"{name} {url[:20]}": bench.headed(**{name: url}) for name in ("jku", "x5u") for url in places}
    found |= {f"a stranger's, {name}": bench.by("ES256", by_stranger, **{name: places[0]}) for name in ("jku", "x5u")}
    return found | {
        "a stranger's jwk": bench.by("ES256", by_stranger, jwk=jwk),
        "a stranger's jwk and kid": bench.by("ES256", by_stranger, jwk=jwk, kid="mine"),
        "our jwk": bench.headed(jwk=bench.key.jwk),
        "x5c": bench.headed(x5c=["MIIB"]),
        "x5t": bench.headed(x5t="AAAA"),
    }


def critical_members(bench: Bench) -> dict[str, str]:
    return {
        "unknown": bench.headed(crit=["x"], x=1),
        "b64": bench.headed(crit=["b64"], b64=False),
        "known": bench.headed(crit=["exp"], exp=1),
        "empty": bench.headed(crit=[]),
        "no list": bench.headed(crit="exp"),
        "null": bench.headed(crit=None),
    }


def encrypted(bench: Bench) -> dict[str, str]:
    header = {"alg": "dir", "enc": "A256GCM", "zip": "DEF", "typ": "at+jwt", "kid": bench.key.kid}
    found = {}
    for megabytes in (6, 250):
        packing = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = b"".join(packing.compress(bytes(MEGABYTE)) for _ in range(megabytes)) + packing.flush()
        found[f"{megabytes} MB"] = f"{segment(header)}..{segment(bytes(12))}.{segment(bomb)}.{segment(bytes(16))}"
        found[f"{megabytes} MB as a body"] = f"{segment({**bench.header, 'zip': 'DEF'})}.{segment(bomb)}.{'A' * 86}"
    return found | {"an empty one": f"{segment(header)}....", "of ours": bench.headed(zip="DEF", enc="A256GCM")}


def json_forms(bench: Bench) -> dict[str, str]:
    protected, payload, signature = bench.good.split(".")
    forged = segment({**bench.claims, "roles": ["admin"]})
    flat = {"protected": protected, "payload": payload, "signature": signature}
    return {
        "flattened": json.dumps(flat),
        "general": json.dumps({"payload": payload, "signatures": [{"protected": protected, "signature": signature}]}),
        "mixed": json.dumps({f"  {protected}.{forged}.": "", **flat}),
        "mixed, at the end": json.dumps({**flat, "x": f".{forged}."}),
        "the compact one in a string": json.dumps(bench.good),
        "with an unprotected header": json.dumps({**flat, "header": {"alg": "none"}}),
        "a member behind": f'{bench.good}{{"payload":"{forged}"}}',
        "two tokens": f"{bench.good}~{bench.good}",
    }


def issuers_and_audiences(bench: Bench) -> dict[str, str]:
    issuer, audience = bench.claims["iss"], bench.claims["aud"]
    issuers = [
        f"{issuer}.evil.example",
        issuer[:-1],
        f"{issuer}/",
        issuer.upper(),
        [issuer],
        {issuer: 1},
        "",
        None,
        ...,
    ]
    audiences = [
        [audience, "other"], ["other", audience], [audience], [], "other", f"{audience} other", audience.upper(),
        "", None, ...,
    ]  # fmt: skip
    return {f"iss {value!r}": bench.said(iss=value) for value in issuers} | {
        f"aud {value!r}": bench.said(aud=value) for value in audiences
    }


def expiries(bench: Bench) -> dict[str, str]:
    later = bench.now + 600
    values = [str(later), float(later), -1, 2**63, 2**64 - 1, 10**400, 0, True, None, [later], ...]
    found = {f"exp {str(value)[:12]} {type(value).__name__}": bench.said(exp=value) for value in values}
    spellings = {"1e400": "1e400", "1E9999": "1E9999", "Infinity": "Infinity", "NaN": "NaN", "twice": str(later)}
    found |= {name: bench.spelled("exp", value) for name, value in spellings.items()}
    return found | {
        "once, infinite": bench.sign(
            bench.header, json.dumps({**bench.claims, "exp": "@"}).replace('"@"', "1e400").encode()
        )
    }


def moments(bench: Bench) -> dict[str, str]:
    return {
        "issued in an hour": bench.said(iat=bench.now + 3600, exp=bench.now + 7200),
        "issued in 62 seconds": bench.said(iat=bench.now + 62),
        # One clock writes and compares: nothing is forgiven on the expiry, where others would allow a minute.
        "a second ago": bench.said(exp=bench.now - 1),
        "61 seconds ago": bench.said(exp=bench.now - 61),
        "now": bench.said(exp=bench.now),
        "iat as text": bench.said(iat=str(bench.now)),
    }


def not_before(bench: Bench) -> dict[str, str]:
    values = [bench.now + 3600, str(bench.now), None, 1e300, [1]]
    return {f"nbf {value!r}": bench.said(nbf=value) for value in values}


def sizes(bench: Bench) -> dict[str, str]:
    return {
        "20,000 dots": "." * 20_000,
        "a megabyte of header": f"{segment(b'x' * MEGABYTE)}.{bench.good.partition('.')[2]}",
        "a megabyte of ours": bench.said(jti="x" * MEGABYTE),
        "just too long": bench.said(jti="x" * 6200),
        "a deep header": f"{segment(b'[' * 5000)}.{bench.good.partition('.')[2]}",
        "a deep body": bench.sign(bench.header, b"[" * 5000),
    }


CASES = [
    pytest.param(algorithm_none, marks=pytest.mark.case(23), id="23"),
    pytest.param(public_key_as_secret, marks=pytest.mark.case(24), id="24"),
    pytest.param(other_algorithms, marks=pytest.mark.case(25), id="25"),
    pytest.param(key_ids, marks=pytest.mark.case(26), id="26"),
    pytest.param(keys_in_the_header, marks=pytest.mark.case(27), id="27"),
    pytest.param(critical_members, marks=pytest.mark.case(28), id="28"),
    pytest.param(encrypted, marks=pytest.mark.case(29), id="29"),
    pytest.param(json_forms, marks=pytest.mark.case(30), id="30"),
    pytest.param(issuers_and_audiences, marks=pytest.mark.case(31), id="31"),
    pytest.param(expiries, marks=pytest.mark.case(32), id="32"),
    pytest.param(moments, marks=pytest.mark.case(33), id="33"),
    pytest.param(not_before, marks=pytest.mark.case(34), id="34"),
    pytest.param(sizes, marks=pytest.mark.case(35), id="35"),
]


@pytest_asyncio.fixture
async def callers() -> AsyncIterator[tuple[str, list[bytes]]]:
    """An address that a token may name, and whoever comes there."""
    seen: list[bytes] = []

    async def called(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(b"called")
        writer.close()

    server = await asyncio.start_server(called, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys", seen
    server.close()
    await server.wait_closed()


@pytest_asyncio.fixture
async def bench(
    app: FastAPI, http: httpx2.AsyncClient, person: Person, clock: MovableClock, callers: tuple[str, list[bytes]]
) -> Bench:
    return Bench(app, http, (await person.sign_in()).access_token, int(clock.time.timestamp()), callers[0])


ROUTES = [("GET", "/me"), ("GET", "/sessions"), ("GET", "/admin/users"), ("POST", "/logout"), ("PUT", "/me/password")]


@pytest.mark.parametrize("make", CASES)
async def test_refused_on_every_route_and_by_the_verifier(
    bench: Bench, callers: tuple[str, list[bytes]], clock: MovableClock, make: Case
) -> None:
    """401s that are all one answer; nothing is fetched, nothing unpacked; and the good token is as good as before."""
    tokens = make(bench)
    assert len(tokens) == len(set(tokens.values())) > 3
    refusal = await bench.http.get("/me", headers={"Authorization": "Bearer noise"})
    for name, token in tokens.items():
        tracemalloc.start()
        try:
            with pytest.raises(AccessTokenRejected):
                bench.tokens.verify(token, clock.time).check_time(clock.time)
            assert tracemalloc.get_traced_memory()[1] < MEGABYTE + 2 * len(token), name
        finally:
            tracemalloc.stop()
        with pytest.raises(AccessTokenRejected):
            bench.tokens.verify_client(token, clock.time).check_time(clock.time)
        for method, path in ROUTES:
            answer = await bench.http.request(method, path, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 401, (name, path)
            assert token[:200] not in answer.text
        answer = await bench.http.get("/me", headers={"Authorization": f"Bearer {token}"})
        assert {**answer.json(), "request_id": 0} == {**refusal.json(), "request_id": 0}, name
        presented = await bench.http.post("/refresh", json={"refresh_token": token})
        assert presented.status_code in {401, 413, 422}, name
    assert callers[1] == []
    assert (await bench.http.get("/me", headers={"Authorization": f"Bearer {bench.good}"})).status_code == 200


async def test_the_tests_own_tokens_are_good_but_for_what_is_tried(bench: Bench, clock: MovableClock) -> None:
    """The same way of making, with nothing changed, gives a token that we and PyJWT accept."""
    token = bench.said()
    bench.tokens.verify(token, clock.time).check_time(clock.time)
    assert (await bench.http.get("/me", headers={"Authorization": f"Bearer {token}"})).status_code == 200
    assert accepted_by_pyjwt(bench, token)
    for allowed in (bench.said(nbf=bench.now), bench.said(iat=bench.now + 59), bench.said(exp=bench.now + 1)):
        bench.tokens.verify(allowed, clock.time).check_time(clock.time)


@pytest.mark.parametrize("make", [case for case in CASES if case.id in {"23", "24", "25", "28", "30", "31"}])
async def test_an_independent_library_refuses_them_too(bench: Bench, make: Case) -> None:
    """
    As the README tells services to verify: what concerns signature, algorithm, critical members, issuer and audience.

    Of the other numbers PyJWT lets something through that we do not: a time written as text, a token of a megabyte,
    members of the header that it does not look at.
    """
    for name, token in make(bench).items():
        assert not accepted_by_pyjwt(bench, token), name


def accepted_by_pyjwt(bench: Bench, token: str) -> bool:
    options: Any = {"require": ["iss", "sub", "aud", "exp", "iat", "jti"], "strict_aud": True}
    issuer, audience = bench.claims["iss"], bench.claims["aud"]
    try:
        key = next(pyjwt.PyJWK(known.jwk) for known in bench.published if known.kid == bench.key.kid)
        pyjwt.decode(token, key, algorithms=["ES256"], audience=audience, issuer=issuer, options=options)
    except (pyjwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
        return False
    return True
