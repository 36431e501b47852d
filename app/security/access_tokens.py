"""
Access tokens: RFC 9068 JWTs, ES256. The only way in and out of python-jose.

python-jose does the signatures. Its `jwt.decode` is not used: it accepts a token without `aud` or `exp`, an audience in
a list, a member that stands twice, and with `require_exp` it always compares with the host's clock. Here the header is
read first and must be ours to the letter, the algorithm is fixed, and every claim is required and typed.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, TypeVar
from uuid import UUID

from jose import jws
from jose.exceptions import JOSEError

from app.domain.canonical_json import parse_strict
from app.domain.errors import AccessTokenRejected
from app.domain.families import Grant
from app.domain.users import Role
from app.security.signing_keys import ALGORITHM, SigningKey, SigningKeys
from app.security.verified_tokens import VerifiedTokens

T = TypeVar("T")

TYPE: Final = "at+jwt"
TOKEN_BYTES_MAXIMUM: Final = 8192
ISSUED_AHEAD: Final = timedelta(seconds=60)  # a failover may bring a database clock that is a little behind

_SEGMENT: Final = r"[A-Za-z0-9_-]+"
# 64 bytes of signature leave four spare bits in their 86th character; zero, or one token had sixteen spellings.
_SHAPE: Final = re.compile(rf"({_SEGMENT})\.{_SEGMENT}\.[A-Za-z0-9_-]{{85}}[AQgw]", re.ASCII)
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))
_OF_A_SESSION: Final = frozenset({"sid", "roles", "auth_time"})
_TIME_MAXIMUM: Final = 253_402_300_799  # the year 9999


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What a genuine access token says. Whether its session still lives is the caller's question."""

    user_id: UUID
    session_id: UUID
    client_id: str
    scope: str
    role: Role
    valid_from: datetime  # the later of `iat` and, which we do not issue, `nbf`
    expires_at: datetime
    authenticated_at: datetime
    amr: tuple[str, ...]
    acr: str | None
    id: str
    issued_at: datetime

    def check_time(self, now: datetime) -> None:
        """
        Compare with the clock that also wrote the times: the database's. So there is no leeway on the expiry.

        Raises:
            AccessTokenRejected: expired, or not valid yet.
        """
        _check_time(self.valid_from, self.expires_at, now)


@dataclass(frozen=True, slots=True)
class ClientClaims:
    """What an access token says that a client got for itself: of nobody's session, with nobody's role."""

    client_id: str
    scope: str
    id: str
    valid_from: datetime
    issued_at: datetime
    expires_at: datetime

    @property
    def client_scopes(self) -> frozenset[str]:
        return frozenset(self.scope.split())

    def check_time(self, now: datetime) -> None:
        """As `AccessClaims.check_time`."""
        _check_time(self.valid_from, self.expires_at, now)


class AccessTokens:
    def __init__(
        self,
        keys: SigningKeys,
        *,
        issuer: str,
        audience: str,
        lifetime: timedelta,
        new_id: Callable[[], UUID],
    ) -> None:
        self._keys = keys
        self.issuer = issuer
        self.audience = audience
        self._lifetime = lifetime
        self._new_id = new_id
        self._verified: VerifiedTokens[tuple[str, AccessClaims]] = VerifiedTokens()

    def issue(self, grant: Grant) -> tuple[str, int]:
        """
        The token, and its lifetime in whole seconds.

        It outlives neither limit of its session (RFC 9068 section 2.2), so whoever verifies it need not know them. How
        and when the person was authenticated is that of the session, refreshed or not (section 2.2.1).
        """
        issued = int(grant.now.timestamp())
        expires = int(min(grant.now + self._lifetime, grant.idle_expires_at, grant.expires_at).timestamp())
        key = self._keys.current(grant.now)
        claims: dict[str, object] = {
            "iss": self.issuer,
            "sub": str(grant.user_id),
            "aud": self.audience,
            "exp": expires,
            "iat": issued,
            "jti": str(self._new_id()),
            "client_id": grant.client_id,
            "scope": grant.scope,
            "sid": str(grant.family_id),
            "auth_time": int(grant.authenticated_at.timestamp()),
            "amr": grant.amr.split(" "),
            "roles": [grant.role.value],
        }
        if grant.acr is not None:
            claims["acr"] = grant.acr
        return _sign(key, claims), expires - issued

    def issue_for_client(self, client_id: str, scope: str, now: datetime) -> tuple[str, int]:
        """
        The token of a client itself, and its lifetime in whole seconds.

        It has no `sid` and no `roles`, and `sub` is the client (RFC 9068 section 2.2, RFC 6749 section 4.4): `verify`
        refuses it, so it never passes as a person's.
        """
        issued = int(now.timestamp())
        expires = int((now + self._lifetime).timestamp())
        claims = {
            "iss": self.issuer,
            "sub": client_id,
            "aud": self.audience,
            "exp": expires,
            "iat": issued,
            "jti": str(self._new_id()),
            "client_id": client_id,
            "scope": scope,
        }
        return _sign(self._keys.current(now), claims), expires - issued

    def verify(self, token: str, now: datetime) -> AccessClaims:
        """
        Check everything that needs no database, but for the times (`AccessClaims.check_time`).

        Args:
            now: Picks the published keys; 30 days of tolerance, so any clock will do.
        Raises:
            AccessTokenRejected: whatever is wrong; `why` is for the log.
        Source: RFC 9068 section 4, RFC 8725 section 3.
        """
        if len(token) > TOKEN_BYTES_MAXIMUM or not token.isascii():
            raise AccessTokenRejected(why="not a compact JWS")
        digest = sha256(token.encode()).digest()
        found = self._verified.find(digest)
        # The key may have left the published ones since.
        if found is not None and self._keys.find(found[0], now) is not None:
            return found[1]
        verified = self._verify(token, now, self._read)
        self._verified.add(digest, verified)
        return verified[1]

    def verify_client(self, token: str, now: datetime) -> ClientClaims:
        """
        As `verify`, for a token of a client itself: one of a person's session is refused here.

        Raises:
            AccessTokenRejected: whatever is wrong.
        """
        return self._verify(token, now, self._read_client)[1]

    def session_named_by(self, token: str) -> UUID | None:
        """What a token says that nobody vouches for; `None` of one that does not even say that it is ours."""
        shape = _SHAPE.fullmatch(token) if len(token) <= TOKEN_BYTES_MAXIMUM else None
        if shape is None:
            return None
        try:
            claims = parse_strict(jws.get_unverified_claims(token))
            return UUID(_text(self._ours(claims)["sid"]))
        except (JOSEError, KeyError, ValueError, TypeError):
            return None

    def _verify(self, token: str, now: datetime, read: Callable[[object], T]) -> tuple[str, T]:
        shape = _SHAPE.fullmatch(token) if len(token) <= TOKEN_BYTES_MAXIMUM else None
        if shape is None:
            raise AccessTokenRejected(why="not a compact JWS")
        key = self._keys.find(_key_id(shape.group(1)), now)
        if key is None:
            raise AccessTokenRejected(why="unknown key")
        try:
            return key.kid, read(parse_strict(jws.verify(token, key.public, [ALGORITHM])))
        except (JOSEError, KeyError, ValueError, TypeError) as refused:
            raise AccessTokenRejected(why=f"claims: {type(refused).__name__}") from None

    def _ours(self, claims: object) -> dict[str, Any]:
        if not isinstance(claims, dict) or not _text(claims["jti"]):
            raise TypeError("claims")
        if claims["aud"] != self.audience or claims["iss"] != self.issuer:
            raise ValueError("audience or issuer")
        return claims

    def _read_client(self, given: object) -> ClientClaims:
        claims = self._ours(given)
        client_id = _text(claims["client_id"])
        if claims["sub"] != client_id or not client_id or claims.keys() & _OF_A_SESSION:
            raise ValueError("not of a client itself")
        return ClientClaims(
            client_id=client_id,
            scope=_text(claims["scope"]),
            id=_text(claims["jti"]),
            valid_from=max(_time(claims["iat"]), _time(claims.get("nbf", 0))),
            issued_at=_time(claims["iat"]),
            expires_at=_time(claims["exp"]),
        )

    def _read(self, given: object) -> AccessClaims:
        claims = self._ours(given)
        (role,) = claims["roles"]
        return AccessClaims(
            user_id=UUID(_text(claims["sub"])),
            session_id=UUID(_text(claims["sid"])),
            client_id=_text(claims["client_id"]),
            scope=_text(claims["scope"]),
            role=Role(role),
            valid_from=max(_time(claims["iat"]), _time(claims.get("nbf", 0))),
            expires_at=_time(claims["exp"]),
            authenticated_at=_time(claims["auth_time"]),
            amr=tuple(map(_text, claims.get("amr", ()))),
            acr=_text(claims["acr"]) if "acr" in claims else None,
            id=_text(claims["jti"]),
            issued_at=_time(claims["iat"]),
        )


def _check_time(valid_from: datetime, expires_at: datetime, now: datetime) -> None:
    if now >= expires_at:
        raise AccessTokenRejected(why="expired")
    if valid_from > now + ISSUED_AHEAD:
        raise AccessTokenRejected(why="not valid yet")


def _sign(key: SigningKey, claims: dict[str, object]) -> str:
    signed = f"{_header(key.kid)}.{_base64url(_ENCODER.encode(claims).encode())}"
    return f"{signed}.{_base64url(key.private.sign(signed.encode()))}"


@lru_cache(maxsize=16)
def _header(kid: str) -> str:
    """The encoded header of all tokens of a key; `jws.sign` would build it anew for each."""
    return _base64url(_ENCODER.encode({"alg": ALGORITHM, "kid": kid, "typ": TYPE}).encode())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _key_id(segment: str) -> str:
    """
    The key id of a header that is ours to the letter: no other members, so no `jku`, `jwk`, `x5u` or `crit` either.

    Raises:
        AccessTokenRejected: any other header (RFC 8725 sections 3.1, 3.10, 3.11).
    """
    try:
        header = parse_strict(base64.b64decode(segment + "=" * (-len(segment) % 4), b"-_", validate=True))
    except (ValueError, binascii.Error):
        header = None
    if not isinstance(header, dict) or header.keys() != {"alg", "typ", "kid"}:
        raise AccessTokenRejected(why="header members")
    kid = header["kid"]
    if header["alg"] != ALGORITHM or header["typ"] != TYPE or not isinstance(kid, str):
        raise AccessTokenRejected(why="header values")
    return kid


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _time(value: object) -> datetime:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _TIME_MAXIMUM:
        raise TypeError("not a time")
    return datetime.fromtimestamp(value, UTC)
