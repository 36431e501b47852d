"""Security Event Tokens: what they say, who verifies them, and that none passes for another kind of token."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2
import jwt as pyjwt
import pytest
from uuid_utils.compat import uuid7

from app.domain.clock import Clock
from app.domain.errors import AccessTokenRejected
from app.domain.families import EndReason
from app.domain.session_ends import SessionEnd
from app.domain.snapshots import BEGINNING, FeedCursor, Snapshot
from app.security.access_tokens import AccessTokens
from app.security.event_tokens import SESSION_REVOKED, EventTokens
from app.security.keys import Keyring
from app.security.signing_keys import SigningKeys
from app.services.feed_batches import SIGNED_MAXIMUM, FeedWriter
from tests.conftest import Person

NOW = datetime.now(UTC)
ISSUER, AUDIENCE = "https://rota.example", "api"
KEYS = SigningKeys([b"n" * 32])
TOKENS = EventTokens(KEYS, issuer=ISSUER, audience=AUDIENCE)
ACCESS = AccessTokens(KEYS, issuer=ISSUER, audience=AUDIENCE, lifetime=timedelta(minutes=15), new_id=uuid7)
ENDED = SessionEnd(uuid7(), uuid7(), NOW - timedelta(seconds=3), EndReason.ADMIN, 4711)


def by_pyjwt(token: str) -> dict[str, Any]:
    """As a consumer verifies it, by an independent library."""
    kid = pyjwt.get_unverified_header(token)["kid"]
    key = next(pyjwt.PyJWK(known.jwk) for known in KEYS.published(NOW) if known.kid == kid)
    options: Any = {"require": ["iss", "iat", "jti", "aud", "events", "sub_id"], "strict_aud": True}
    claims: dict[str, Any] = pyjwt.decode(
        token, key, algorithms=["ES256"], audience=AUDIENCE, issuer=ISSUER, options=options
    )
    return claims


@pytest.mark.case(100)
def test_what_a_token_says() -> None:
    """RFC 8417 section 2, RFC 9493 section 3.3, CAEP 1.0 section 3.1; and neither `exp` nor `sub`."""
    token = TOKENS.issue(ENDED, NOW)
    assert pyjwt.get_unverified_header(token) == {
        "alg": "ES256",
        "typ": "secevent+jwt",
        "kid": KEYS.current(NOW).kid,
    }
    claims = by_pyjwt(token)
    ended = int(ENDED.ended_at.timestamp())
    assert claims == {
        "iss": ISSUER,
        "iat": ended,
        "jti": ENDED.event_id,
        "aud": AUDIENCE,
        "sub_id": {
            "format": "complex",
            "user": {"format": "iss_sub", "iss": ISSUER, "sub": str(ENDED.user_id)},
            "session": {"format": "opaque", "id": str(ENDED.id)},
        },
        "events": {
            SESSION_REVOKED: {
                "event_timestamp": ended,
                "initiating_entity": "admin",
                "reason_admin": {"en": "An administrator ended the session."},
                "reason_user": {"en": "An administrator has ended your session."},
            }
        },
    }


def test_the_exact_reason_is_not_told() -> None:
    """Reasons of one class give the same token but for its id: bulk end, disabled user, changed role."""
    said = [
        by_pyjwt(TOKENS.issue(replace(ENDED, reason=reason), NOW))
        for reason in (EndReason.ADMIN, EndReason.BULK_ADMIN, EndReason.USER_DISABLED, EndReason.ROLE_CHANGE)
    ]
    assert all(each == said[0] for each in said)


@pytest.mark.case(100)
def test_it_is_no_access_token() -> None:
    """Ours refuses it by type; another library, by the claims that it lacks (RFC 8417 section 4.5)."""
    token = TOKENS.issue(ENDED, NOW)
    with pytest.raises(AccessTokenRejected):
        ACCESS.verify(token, NOW)
    with pytest.raises(AccessTokenRejected):
        ACCESS.verify_client(token, NOW)
    key = pyjwt.PyJWK(KEYS.current(NOW).jwk)
    options: Any = {"require": ["exp", "iat", "sub", "aud", "iss", "jti"]}  # as the README tells services to
    with pytest.raises(pyjwt.MissingRequiredClaimError):
        pyjwt.decode(token, key, algorithms=["ES256"], audience=AUDIENCE, issuer=ISSUER, options=options)


@pytest.mark.case(14)
async def test_the_api_takes_none(http: httpx2.AsyncClient, person: Person) -> None:
    """A token about a live session of the very person who shows it opens no route, as a refresh token neither."""
    issued = await person.sign_in()
    services = person.services
    tokens = EventTokens(services.signing_keys, issuer=services.settings.issuer, audience=services.settings.audience)
    ended = replace(ENDED, user_id=person.user.id, id=issued.session_id)
    token = tokens.issue(ended, services.clock.on_host())
    for path in ("/me", "/sessions", "/revocations", "/revocations/stream"):
        answer = await http.get(path, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401, path
    assert (await http.post("/refresh", json={"refresh_token": token})).status_code == 401


async def test_an_end_is_signed_once_in_a_process() -> None:
    """However many ask; and what is kept is bounded."""
    writer = FeedWriter(TOKENS, Keyring([b"n" * 32]), Clock())
    target = Snapshot(5000, 5000)

    def batch(*ends: SessionEnd) -> Any:
        return writer.batch(ends, BEGINNING, FeedCursor(target), target, b"history!")

    first = await writer.sign(batch(ENDED))
    again, both = await asyncio.gather(
        writer.sign(batch(ENDED)), writer.sign(batch(ENDED, replace(ENDED, id=UUID(int=1))))
    )
    assert both.tokens is not None
    assert first.tokens == again.tokens == both.tokens[:1]
    many = [replace(ENDED, id=UUID(int=n)) for n in range(SIGNED_MAXIMUM + 10)]
    writer._tokens = type("Cheap", (), {"issue": lambda *_: "x"})()
    await writer.sign(batch(*many))
    assert len(writer._signed) == SIGNED_MAXIMUM
