"""
Security Event Tokens: the end of a session as a signed statement (RFC 8417, CAEP 1.0 `session-revoked`).

They are signed by the keys of access tokens, whose public halves every verifier has, and can be taken for nothing else:
the type is `secevent+jwt`, and there is neither `sub` nor `exp` (RFC 8417 sections 4.5 and 4.6), without which no
verifier of access tokens accepts one.
"""

import base64
import json
from datetime import datetime
from functools import lru_cache
from typing import Final

from app.domain.session_ends import WORDS, SessionEnd
from app.security.signing_keys import ALGORITHM, SigningKeys

TYPE: Final = "secevent+jwt"
SESSION_REVOKED: Final = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


class EventTokens:
    def __init__(self, keys: SigningKeys, *, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    def issue(self, end: SessionEnd, now: datetime) -> str:
        """
        The token of a session's end: the same in every process but for the signature.

        Args:
            now: Picks the signing key; any clock will do.
        """
        key = self._keys.current(now)
        signed = f"{_header(key.kid)}.{_base64url(_ENCODER.encode(self._claims(end)).encode())}"
        return f"{signed}.{_base64url(key.private.sign(signed.encode()))}"

    def _claims(self, end: SessionEnd) -> dict[str, object]:
        ended = int(end.ended_at.timestamp())
        to_admin, to_user = WORDS[end.reason_class]
        return {
            "iss": self._issuer,
            "iat": ended,
            "jti": end.event_id,
            "aud": self._audience,
            # RFC 9493 section 3.3 and CAEP 1.0 section 3.1: this session of this user.
            "sub_id": {
                "format": "complex",
                "user": {"format": "iss_sub", "iss": self._issuer, "sub": str(end.user_id)},
                "session": {"format": "opaque", "id": str(end.id)},
            },
            "events": {
                SESSION_REVOKED: {
                    "event_timestamp": ended,
                    "initiating_entity": end.initiator.value,
                    "reason_admin": to_admin,
                    "reason_user": to_user,
                }
            },
        }


@lru_cache(maxsize=16)
def _header(kid: str) -> str:
    return _base64url(_ENCODER.encode({"alg": ALGORITHM, "kid": kid, "typ": TYPE}).encode())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
