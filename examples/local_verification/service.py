"""A service that verifies Rota's access tokens itself, and refuses those of sessions that have ended."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from revocations import Revocations

ROTA = os.environ.get("ROTA_URL", "http://127.0.0.1:8000")
ISSUER = os.environ.get("ROTA_ISSUER_NAME", "http://127.0.0.1:8000")
AUDIENCE = os.environ.get("ROTA_AUDIENCE_NAME", "rota")

# The one decision that nobody can take for you. When the feed is stale, sessions may have ended of which we know
# nothing: `refuse` answers 503 until it is back; `accept` goes on by signature and expiry alone, so that an ended
# session may work until its token expires.
WHEN_STALE = os.environ.get("WHEN_STALE", "refuse")
STALE_SECONDS = float(os.environ.get("STALE_SECONDS", "45"))

# Keys are fetched once and kept by their id: Rota may be away, and a new key shows a new id.
keys = jwt.PyJWKClient(f"{ROTA}/.well-known/jwks.json", cache_keys=True, timeout=5)
revocations = Revocations(
    ROTA, os.environ["FEED_CLIENT_ID"], os.environ["FEED_CLIENT_SECRET"], stale_after=STALE_SECONDS
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    if WHEN_STALE not in {"refuse", "accept"}:
        raise SystemExit("WHEN_STALE must be refuse or accept")
    following = asyncio.create_task(revocations.follow())
    yield
    following.cancel()


app = FastAPI(title="Local verification", lifespan=lifespan)
bearer = HTTPBearer(auto_error=False)


def signed_in(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> dict[str, Any]:
    """The claims of a good token. Not `async`: fetching a new key waits, and must not hold up the others."""
    if given is None:
        raise _refused()
    token = given.credentials
    try:
        # Of Rota's tokens only those of this type give access; the signature alone does not tell them apart.
        if jwt.get_unverified_header(token).get("typ") != "at+jwt":
            raise _refused()
        claims: dict[str, Any] = jwt.decode(
            token,
            keys.get_signing_key_from_jwt(token),
            algorithms=["ES256"],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={"require": ["exp", "iat", "sub", "aud", "iss", "jti", "sid"], "strict_aud": True},
        )
    except jwt.PyJWKClientConnectionError:
        raise HTTPException(503, "The keys cannot be fetched right now.", {"Retry-After": "1"}) from None
    except jwt.PyJWTError:
        raise _refused() from None
    if revocations.has_ended(claims["sid"]):
        raise _refused()
    if revocations.is_stale and WHEN_STALE == "refuse":
        raise HTTPException(503, "It is not known which sessions have ended.", {"Retry-After": "1"})
    return claims


def _refused() -> HTTPException:
    return HTTPException(401, "A valid access token is needed.", {"WWW-Authenticate": "Bearer"})


@app.get("/hello")
def hello(claims: Annotated[dict[str, Any], Depends(signed_in)]) -> dict[str, Any]:
    """Answers whoever is signed in. Rota is not asked."""
    return {"user": claims["sub"], "roles": claims["roles"]}


@app.get("/health")
def health() -> dict[str, Any]:
    return {"stale": revocations.is_stale, "ended_sessions": len(revocations)}
