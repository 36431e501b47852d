"""
Signing keys: a function of the secret and the calendar.

The P-256 key of period n (30 days) comes from HKDF(secret, "sign", n), so rotation needs no storage, no coordination
and no operator. The key set shows the previous, the current and the next period of every listed secret, so a
verifier's cached copy is never behind.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jose import jwk
from jose.constants import ALGORITHMS

from app.security.keys import derive

PERIOD_SECONDS: Final = 30 * 24 * 3600
ALGORITHM: Final = ALGORITHMS.ES256

_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256 (FIPS 186-5)
_SEED_BYTES: Final = 48  # 128 bits more than the order, so that the reduction's bias is below 2^-128


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One period's key of one secret: jose keys built once, and the public half as a JWK."""

    kid: str
    private: Any
    public: Any
    jwk: dict[str, str]


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A line of the calendar: whose key, its name, and the period in which its secret would sign with it."""

    secret: int  # its position in the list
    kid: str
    starts_at: datetime
    ends_at: datetime
    published_from: datetime
    published_until: datetime


class SigningKeys:
    """The keys of every listed secret; the first secret signs, all verify."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)
        # Three periods of few secrets are in use at a time; the cache keeps some more for clocks that are moved.
        self._key = lru_cache(maxsize=64)(self._derive)
        self._window = lru_cache(maxsize=4)(self._build_window)

    def current(self, now: datetime) -> SigningKey:
        """The key that signs at this moment."""
        return self._key(0, _period(now))

    def find(self, kid: str, now: datetime) -> SigningKey | None:
        """The published key of that id; looked up in a fixed table and nowhere else."""
        return self._window(_period(now)).get(kid)

    def published(self, now: datetime) -> list[SigningKey]:
        """Previous, current and next period of every secret."""
        return list(self._window(_period(now)).values())

    def calendar(self, now: datetime) -> list[Scheduled]:
        """What is published, in order: each secret's previous, current and next period."""
        current = _period(now)
        return [
            Scheduled(
                index,
                self._key(index, period).kid,
                _start(period),
                _start(period + 1),
                published_from=_start(period - 1),
                published_until=_start(period + 2),
            )
            for index in range(len(self._secrets))
            for period in (current - 1, current, current + 1)
        ]

    def _build_window(self, period: int) -> dict[str, SigningKey]:
        keys = [self._key(i, n) for i in range(len(self._secrets)) for n in (period - 1, period, period + 1)]
        return {key.kid: key for key in keys}

    def _derive(self, index: int, period: int) -> SigningKey:
        # FIPS 186-5 A.2.1: reduce a longer random number, then add one.
        number = int.from_bytes(derive(self._secrets[index], f"sign/{period}", _SEED_BYTES))
        private = ec.derive_private_key(number % (_ORDER - 1) + 1, ec.SECP256R1())
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        key = jwk.construct(pem, ALGORITHM)
        point = private.public_key().public_numbers()
        public = {"crv": "P-256", "kty": "EC", "x": _base64url(point.x), "y": _base64url(point.y)}
        kid = _thumbprint(public)
        described = {**public, "alg": "ES256", "use": "sig", "kid": kid}
        return SigningKey(kid, private=key, public=key.public_key(), jwk=described)


def _period(now: datetime) -> int:
    return int(now.timestamp()) // PERIOD_SECONDS


def _start(period: int) -> datetime:
    return datetime.fromtimestamp(period * PERIOD_SECONDS, UTC)


def _base64url(coordinate: int) -> str:
    return base64.urlsafe_b64encode(coordinate.to_bytes(32)).rstrip(b"=").decode("ascii")


def _thumbprint(members: dict[str, str]) -> str:
    """RFC 7638 section 3: SHA-256 over the required members, sorted, without white space."""
    text = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(sha256(text.encode()).digest()).rstrip(b"=").decode("ascii")
