"""Access tokens: ours to the letter, or refused; and PyJWT, which we do not use, agrees."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Self
from unittest.mock import patch

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jose import jwt
from uuid_utils.compat import uuid7

from app.domain.errors import AccessTokenRejected
from app.domain.families import Grant
from app.domain.users import Role
from app.security.access_tokens import AccessTokens
from app.security.signing_keys import PERIOD_SECONDS, SigningKeys

NOW = datetime.now(UTC).replace(microsecond=0)
SECRETS = [b"n" * 32, b"o" * 32]
KEYS = SigningKeys(SECRETS)
ISSUER, AUDIENCE = "https://rota.example", "api"
TOKENS = AccessTokens(KEYS, issuer=ISSUER, audience=AUDIENCE, lifetime=timedelta(minutes=15), new_id=uuid7)
GRANT = Grant(
    now=NOW,
    user_id=uuid7(),
    family_id=uuid7(),
    generation=0,
    seed=b"s" * 32,
    client_id="first-party",
    scope="read",
    role=Role.AUDITOR,
    authenticated_at=NOW,
    amr="pwd",
    acr=None,
    idle_expires_at=NOW + timedelta(days=1),
    expires_at=NOW + timedelta(days=2),
)
KEY = KEYS.current(NOW)


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, changed; `None` leaves one out."""
    good = jwt.get_unverified_claims(TOKENS.issue(GRANT)[0])
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def signed(header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A token signed with our key, whatever it says."""
    head = {"alg": "ES256", "typ": "at+jwt", "kid": KEY.kid, **(header or {})}
    parts = ".".join(segment(json.dumps(part).encode()) for part in (head, claims(**changes)))
    return f"{parts}.{segment(KEY.private.sign(parts.encode()))}"


def segment(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class AtNow(datetime):
    """The library's clock: a whole run of the tests takes longer than a token lives."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls.fromtimestamp(NOW.timestamp(), tz)


@patch("jwt.api_jwt.datetime", AtNow)
def pyjwt_accepts(token: str) -> bool:
    try:
        kid = pyjwt.get_unverified_header(token)["kid"]
        key = next(pyjwt.PyJWK(known.jwk) for known in KEYS.published(NOW) if known.kid == kid)
        pyjwt.decode(
            token,
            key,
            algorithms=["ES256"],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={"require": ["iss", "sub", "aud", "exp", "iat", "jti"], "strict_aud": True},
        )
    except (pyjwt.PyJWTError, KeyError, StopIteration, ValueError):
        return False
    return True


def test_what_is_issued_is_accepted_here_and_by_others() -> None:
    """All claims of RFC 9068 section 2.2 are there, and an independent library verifies them by our key set."""
    token, lifetime = TOKENS.issue(GRANT)
    read = TOKENS.verify(token, NOW)
    assert lifetime == 900
    assert (read.user_id, read.session_id, read.role) == (GRANT.user_id, GRANT.family_id, Role.AUDITOR)
    assert (read.valid_from, read.expires_at) == (NOW, NOW + timedelta(minutes=15))
    assert pyjwt_accepts(token)
    names = {"iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope", "sid", "auth_time", "amr", "roles"}
    assert claims().keys() == names
    assert pyjwt.get_unverified_header(token) == {"alg": "ES256", "typ": "at+jwt", "kid": KEY.kid}


def test_how_the_person_was_authenticated() -> None:
    """`amr` and, if it is known, `acr` (RFC 9068 section 2.2.1); tokens of a release that wrote neither stay good."""
    read = TOKENS.verify(TOKENS.issue(replace(GRANT, amr="hwk mfa", acr="urn:example:gold"))[0], NOW)
    assert (read.amr, read.acr) == (("hwk", "mfa"), "urn:example:gold")
    read = TOKENS.verify(signed(amr=None), NOW)
    assert (read.amr, read.acr) == ((), None)


def test_a_token_never_outlives_its_session() -> None:
    """`exp` is the session's end when that comes first."""
    _, lifetime = TOKENS.issue(replace(GRANT, expires_at=NOW + timedelta(seconds=100)))
    assert lifetime == 100


@pytest.mark.parametrize(
    "claim", ["iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope", "sid", "auth_time", "roles"]
)
def test_a_missing_claim_is_refused(claim: str) -> None:
    """Every claim is required (RFC 9068 section 4)."""
    with pytest.raises(AccessTokenRejected):
        TOKENS.verify(signed(**{claim: None}), NOW)


WRONG_CLAIMS = [
    ("iss", "https://rota.example.evil"),
    ("iss", "https://rota.exampl"),
    ("iss", [ISSUER]),
    ("aud", [AUDIENCE]),
    ("aud", [AUDIENCE, "other"]),
    ("aud", "other"),
    ("sub", "not-a-uuid"),
    ("sub", 7),
    ("sid", "x"),
    ("sid", 1),
    ("exp", "soon"),
    ("exp", 1e400),
    ("exp", -1),
    ("exp", 2**63),
    ("exp", True),
    ("exp", 12.5),
    ("iat", "now"),
    ("iat", 2**70),
    ("auth_time", "x"),
    ("amr", 1),
    ("amr", [1]),
    ("acr", ["x"]),
    ("roles", []),
    ("roles", ["user", "admin"]),
    ("roles", ["root"]),
    ("roles", "admin"),
    ("roles", None),
    ("roles", [["admin"]]),
    ("scope", 1),
    ("client_id", {}),
    ("nbf", "later"),
]


@pytest.mark.parametrize(("claim", "value"), WRONG_CLAIMS)
def test_a_claim_of_the_wrong_kind_is_refused(claim: str, value: Any) -> None:
    """Types and values are checked, even under our own signature."""
    with pytest.raises(AccessTokenRejected):
        TOKENS.verify(signed(**{claim: value}), NOW)


WRONG_HEADERS = [
    {"alg": "none"},
    {"alg": "None"},
    {"alg": "nOnE"},
    {"alg": ""},
    {"alg": None},
    {"alg": "HS256"},
    {"alg": "ES384"},
    {"alg": "RS256"},
    {"typ": "JWT"},
    {"typ": "AT+JWT"},
    {"typ": "secevent+jwt"},
    {"typ": None},
    {"kid": "../../../dev/null"},
    {"kid": "' OR 1=1 --"},
    {"kid": "x" * 4000},
    {"kid": [KEY.kid]},
    {"kid": None},
    {"jku": "http://127.0.0.1:9/keys"},
    {"x5u": "http://127.0.0.1:9/cert"},
    {"jwk": KEY.jwk},
    {"crit": ["exp"]},
    {"crit": ["b64"], "b64": False},
    {"zip": "DEF"},
    {"cty": "JWT"},
]


@pytest.mark.parametrize("header", WRONG_HEADERS, ids=str)
def test_a_header_that_is_not_ours_to_the_letter_is_refused(header: dict[str, Any]) -> None:
    """No other algorithm, type, key or member (RFC 8725 sections 3.1, 3.10, 3.11)."""
    with pytest.raises(AccessTokenRejected):
        TOKENS.verify(signed(header), NOW)


@pytest.mark.case(24)
def test_public_keys_are_no_hmac_secrets() -> None:
    """HS256 under any spelling of our public key is refused (CVE-2024-33663)."""
    public = (
        KEY.public.prepared_key.public_key()
        if hasattr(KEY.public.prepared_key, "public_key")
        else KEY.public.prepared_key
    )
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    ssh = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    raw = json.dumps(KEY.jwk).encode()
    import hashlib  # noqa: PLC0415 - only here
    import hmac  # noqa: PLC0415 - only here

    for secret in (pem, ssh, raw, b""):
        head = {"alg": "HS256", "typ": "at+jwt", "kid": KEY.kid}
        parts = ".".join(segment(json.dumps(part).encode()) for part in (head, claims()))
        token = f"{parts}.{segment(hmac.digest(secret, parts.encode(), hashlib.sha256))}"
        with pytest.raises(AccessTokenRejected):
            TOKENS.verify(token, NOW)


def test_a_doubled_header_member_is_refused() -> None:
    """What another parser might read differently is not read at all."""
    head = segment(f'{{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"{KEY.kid}"}}'.encode())
    parts = f"{head}.{segment(json.dumps(claims()).encode())}"
    with pytest.raises(AccessTokenRejected):
        TOKENS.verify(f"{parts}.{segment(KEY.private.sign(parts.encode()))}", NOW)


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "." * 20_000,
        "x" * 1_000_000,
        "e30.e30.",
        '{"payload":"e30","signatures":[]}',
        "a.b.c.d.e",
    ],
    ids=["empty", "dot", "dots", "letters", "20,000 dots", "a megabyte", "no signature", "JSON form", "JWE form"],
)
def test_noise_is_refused(token: str) -> None:
    """Size and shape come first."""
    with pytest.raises(AccessTokenRejected):
        TOKENS.verify(token, NOW)


def test_the_signature_has_one_spelling() -> None:
    """The spare bits of the last character must be zero: changing it never leaves a good token."""
    token, _ = TOKENS.issue(GRANT)
    for character in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=":
        if character != token[-1]:
            with pytest.raises(AccessTokenRejected):
                TOKENS.verify(token[:-1] + character, NOW)


def test_foreign_keys_are_unknown() -> None:
    """A token of another secret is refused, one of our second secret accepted."""
    stranger = AccessTokens(
        SigningKeys([b"x" * 32]), issuer=ISSUER, audience=AUDIENCE, lifetime=timedelta(60), new_id=uuid7
    )
    older = AccessTokens(
        SigningKeys([b"o" * 32]), issuer=ISSUER, audience=AUDIENCE, lifetime=timedelta(60), new_id=uuid7
    )
    with pytest.raises(AccessTokenRejected):
        TOKENS.verify(stranger.issue(GRANT)[0], NOW)
    assert TOKENS.verify(older.issue(GRANT)[0], NOW).user_id == GRANT.user_id


@pytest.mark.case(34)
def test_a_token_may_say_from_when_it_is_valid() -> None:
    """We issue no `nbf`, and honour one (RFC 7519 section 4.1.5)."""
    later = TOKENS.verify(signed(nbf=int(NOW.timestamp()) + 300), NOW)
    with pytest.raises(AccessTokenRejected):
        later.check_time(NOW)
    later.check_time(NOW + timedelta(seconds=300))


@pytest.mark.case(33)
@pytest.mark.parametrize(
    ("after", "accepted"),
    [
        pytest.param(timedelta(minutes=15) - timedelta(microseconds=1), True, id="last moment"),
        pytest.param(timedelta(minutes=15), False, id="at its end"),
        pytest.param(-timedelta(seconds=60), True, id="clock a minute behind"),
        pytest.param(-timedelta(seconds=61), False, id="issued in the future"),
    ],
)
def test_times_are_compared_with_the_given_clock(after: timedelta, *, accepted: bool) -> None:
    """The expiry is exact, since one clock writes and reads it; a small step back is forgiven."""
    read = TOKENS.verify(TOKENS.issue(GRANT)[0], NOW)
    if accepted:
        read.check_time(NOW + after)
    else:
        with pytest.raises(AccessTokenRejected):
            read.check_time(NOW + after)


@given(
    st.dictionaries(
        st.sampled_from(["iss", "aud", "sub", "exp", "iat", "jti", "typ", "alg"]).map(str),
        st.none() | st.integers(-(2**40), 2**40) | st.text(max_size=8) | st.just(AUDIENCE) | st.just(ISSUER),
        max_size=2,
    )
)
def test_what_we_accept_an_independent_library_accepts(changes: dict[str, Any]) -> None:
    """Our verdict is never laxer than PyJWT's."""
    header: dict[str, Any] = {name: changes.pop(name) for name in ("typ", "alg") if name in changes}
    token = signed(header, **changes)
    try:
        TOKENS.verify(token, NOW).check_time(NOW)
    except AccessTokenRejected:
        return
    assert pyjwt_accepts(token)


def test_keys_follow_the_calendar() -> None:
    """The next period's key is published before it signs, the previous one while its tokens live."""
    start = datetime.fromtimestamp(1000 * PERIOD_SECONDS, UTC)
    before, after = start - timedelta(seconds=1), start
    old, new = KEYS.current(before), KEYS.current(after)
    assert old.kid != new.kid
    assert {old.kid, new.kid} <= {key.kid for key in KEYS.published(before)}
    assert {old.kid, new.kid} <= {key.kid for key in KEYS.published(after)}
    assert KEYS.find(old.kid, start + timedelta(days=60)) is None
    assert len(KEYS.published(start)) == 3 * len(SECRETS)
    assert SigningKeys(SECRETS).current(start).kid == new.kid


def test_the_key_set_has_no_private_part() -> None:
    """Only the members of a public EC key."""
    for key in KEYS.published(NOW):
        assert key.jwk.keys() == {"kty", "crv", "x", "y", "alg", "use", "kid"}
        private = key.private.prepared_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        assert base64.b64encode(private).decode() not in json.dumps(key.jwk)
