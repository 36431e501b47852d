"""The pair of tokens that a sign-in or a refresh hands out, and reading the one that comes back."""

from dataclasses import dataclass
from uuid import UUID

from app.domain import refresh_token
from app.domain.errors import RefreshTokenRejected
from app.domain.families import Grant
from app.domain.refresh_token import RefreshToken
from app.observability.logs import get_logger
from app.security.access_tokens import AccessTokens
from app.security.keys import Keyring

log = get_logger()


@dataclass(frozen=True, slots=True)
class IssuedTokens:
    """
    Lifetimes in whole seconds from now; the refresh token's is the idle limit, within the session's own end.

    `device_token` comes with a sign-in only, of a device that had none.
    """

    session_id: UUID
    access_token: str
    expires_in: int
    refresh_token: str
    refresh_expires_in: int
    scope: str
    device_token: str | None = None


class TokenPairs:
    def __init__(self, keyring: Keyring, access_tokens: AccessTokens) -> None:
        self.keyring = keyring
        self._access_tokens = access_tokens

    def issue(self, grant: Grant) -> IssuedTokens:
        """The pair of a generation. The refresh token is the same each time; the access token is new."""
        access_token, expires_in = self._access_tokens.issue(grant)
        presented = refresh_token.build(
            self.keyring.minting,
            user_id=grant.user_id,
            family_id=grant.family_id,
            generation=grant.generation,
            seed=grant.seed,
        )
        return IssuedTokens(
            session_id=grant.family_id,
            access_token=access_token,
            expires_in=expires_in,
            refresh_token=presented,
            refresh_expires_in=int((grant.idle_expires_at - grant.now).total_seconds()),
            scope=grant.scope,
        )

    def find(self, presented: str) -> RefreshToken | None:
        """What a token says, or `None` if no server with these keys has made it; the database is not asked."""
        return refresh_token.parse(presented, self.keyring.token_keys)

    def read(self, presented: str) -> RefreshToken:
        """
        What a token says.

        Raises:
            RefreshTokenRejected: no server with these keys has made this.
        """
        token = self.find(presented)
        if token is None:
            log.info("refresh.noise")
            raise RefreshTokenRejected(why="noise")
        return token

    def half_proof(self, token: RefreshToken) -> bytes:
        mint = self.keyring.token_keys[token.key_id].mint
        return refresh_token.half_proof(mint, token.user_id, token.family_id, token.generation)

    def proves(self, token: RefreshToken, seed: bytes) -> bool:
        """Whether the token is the one of its generation, past, live or future."""
        return refresh_token.is_proof(token, seed, self.half_proof(token))
