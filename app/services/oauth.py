"""What the standard surface adds to sign-in and refresh: tokens of clients themselves, introspection, revocation."""

from datetime import datetime

from app.domain.api_clients import ApiClient, ClientGrant, ClientScope, read_scope, write_scope
from app.domain.canonical_json import JsonValue
from app.domain.clients import ClientContext
from app.domain.errors import (
    AccessTokenRejected,
    GrantNotPermitted,
    InputInvalid,
    InvalidScope,
    TokenOfAnotherClient,
    UnsupportedTokenType,
)
from app.domain.events import Actor, ActorKind
from app.domain.families import FIRST_PARTY_CLIENT, EndReason, Family, SessionState
from app.domain.refresh_token import PREFIX, RefreshToken
from app.observability.logs import get_logger
from app.repositories.database import Database
from app.security.access_tokens import AccessTokens
from app.services.authentication import Authentication
from app.services.client_authentication import ClientAuthentication
from app.services.opening import Terms
from app.services.refresh import Refresh
from app.services.sessions import Sessions
from app.services.sign_in import SignIn
from app.services.tokens import IssuedTokens, TokenPairs

log = get_logger()


class OAuth:
    def __init__(
        self,
        database: Database,
        access_tokens: AccessTokens,
        pairs: TokenPairs,
        authentication: Authentication,
        clients: ClientAuthentication,
        sign_in: SignIn,
        refresh: Refresh,
        sessions: Sessions,
    ) -> None:
        self._database = database
        self._access_tokens = access_tokens
        self._pairs = pairs
        self._authentication = authentication
        self._clients = clients
        self._sign_in = sign_in
        self._refresh = refresh
        self._sessions = sessions

    async def sign_in(
        self,
        api_client: ApiClient,
        username: str,
        password: str,
        scope: str,
        *,
        client: ClientContext,
        device_token: str | None = None,
    ) -> IssuedTokens:
        """
        The password grant, for first-party clients that have it.

        Raises:
            GrantNotPermitted: this client may not handle passwords.
            InvalidScope: more than its sessions may be granted; without a scope they get all of that.
            InvalidCredentials, TooManyAttempts, TooBusy: as at any sign-in.
        Source: RFC 6749 section 4.3.
        """
        _check_grant(api_client, ClientGrant.PASSWORD)
        granted = grantable(scope, api_client.session_scopes)
        terms = Terms(client_id=api_client.client_id, scope=write_scope(granted))
        return await self._sign_in.with_password(
            username, password, client=client, terms=terms, device_tokens=[device_token] if device_token else []
        )

    async def rotate(
        self, api_client: ApiClient, presented: str, scope: str, *, idempotency_key: str | None, client: ClientContext
    ) -> IssuedTokens:
        """
        The refresh grant: the family must be this client's, and the scope a part of what it was granted.

        Raises:
            GrantNotPermitted: this client may not refresh.
            InvalidScope, RefreshTokenRejected, Unavailable: as `Refresh.rotate`.
        Source: RFC 6749 section 6.
        """
        _check_grant(api_client, ClientGrant.REFRESH_TOKEN)
        return await self._refresh.rotate(
            presented,
            idempotency_key=idempotency_key,
            client=client,
            client_id=api_client.client_id,
            scope=_wanted(scope),
        )

    async def client_token(self, api_client: ApiClient, scope: str) -> tuple[str, int, str]:
        """
        An access token of the client itself: the token, its lifetime in seconds, its scope.

        Raises:
            GrantNotPermitted: this client may not ask for one.
            InvalidScope: more than the client has; without a scope it gets all of that.
        Source: RFC 6749 section 4.4: with no refresh token.
        """
        _check_grant(api_client, ClientGrant.CLIENT_CREDENTIALS)
        granted = write_scope(grantable(scope, tuple(sorted(api_client.scopes))))
        async with self._database.begin() as db:
            now = await db.now()
        token, lifetime = self._access_tokens.issue_for_client(api_client.client_id, granted, now)
        log.info("client.token_issued", client=api_client.client_id, scope=granted)
        return token, lifetime, granted

    async def revoke(self, token: str, api_client: ApiClient, *, client: ClientContext) -> None:
        """
        End the session that an access token or any refresh token is of. A token that is none, or dead, is no error.

        A client ends its own sessions; with the scope `revoke` also those of our own sign-in routes, which belong to
        no client.

        Raises:
            TokenOfAnotherClient: the token is live and of another client's session, which stays as it is.
            UnsupportedTokenType: a token of a client itself.
        Source: RFC 7009 section 2.
        """
        family = await (self._family_of_refresh(token) if token.startswith(PREFIX) else self._family_of_access(token))
        if family is None or family.ended_at is not None:
            return
        ours = family.client_id == FIRST_PARTY_CLIENT and ClientScope.REVOKE in api_client.scopes
        if family.client_id != api_client.client_id and not ours:
            log.info("revocation.refused", client=api_client.client_id, session=str(family.id))
            raise TokenOfAnotherClient(why="another client's token")
        actor = Actor(ActorKind.CLIENT, api_client.id)
        await self._sessions.end(
            family.user_id, family.id, actor=actor, client=client, reason=EndReason.OAUTH_REVOCATION
        )

    async def introspect(self, token: str) -> dict[str, JsonValue]:
        """
        What a live token says; of any other only that it is not active.

        An access token needs no query where the view of ended sessions is fresh. A refresh token is looked at, not
        spent, and is active only as the live one of its family: what this tells of a spent one is nothing.

        Source: RFC 7662 section 2.2.
        """
        if token.startswith(PREFIX):
            told = await self._introspect_refresh(token)
        else:
            told = await self._introspect_access(token)
        return {"active": False} if told is None else {"active": True, **told, "iss": self._access_tokens.issuer}

    async def _introspect_access(self, token: str) -> dict[str, JsonValue] | None:
        try:
            claims = await self._authentication.examine(token)
        except AccessTokenRejected:
            return await self._introspect_client_token(token)
        told: dict[str, JsonValue] = {
            "token_use": "access_token",
            "token_type": "Bearer",
            "sub": str(claims.user_id),
            "sid": str(claims.session_id),
            "client_id": claims.client_id,
            "scope": claims.scope,
            "roles": [claims.role.value],
            "aud": self._access_tokens.audience,
            "iat": int(claims.issued_at.timestamp()),
            "exp": int(claims.expires_at.timestamp()),
            "auth_time": int(claims.authenticated_at.timestamp()),
            "amr": list(claims.amr),
            "jti": claims.id,
        }
        return told if claims.acr is None else {**told, "acr": claims.acr}

    async def _introspect_client_token(self, token: str) -> dict[str, JsonValue] | None:
        try:
            client, claims = await self._clients.examine_token(token)
        except AccessTokenRejected:
            return None
        return {
            "token_use": "access_token",
            "token_type": "Bearer",
            "sub": claims.client_id,
            "client_id": claims.client_id,
            "scope": write_scope(sorted(client.scopes)),
            "aud": self._access_tokens.audience,
            "iat": int(claims.issued_at.timestamp()),
            "exp": int(claims.expires_at.timestamp()),
            "jti": claims.id,
        }

    async def _introspect_refresh(self, presented: str) -> dict[str, JsonValue] | None:
        found = await self._find_proven(presented)
        if found is None:
            return None
        token, family, now = found
        if token.generation != family.generation or family.state(now) is not SessionState.ACTIVE:
            return None
        if family.client_id != FIRST_PARTY_CLIENT and not await self._clients.is_live(family.client_id):
            return None  # nobody could spend it
        # Nobody but we may take it: a service that checks `aud` will not let a refresh token pass as an access token.
        told: dict[str, JsonValue] = {
            "token_use": "refresh_token",
            "sub": str(family.user_id),
            "sid": str(family.id),
            "client_id": family.client_id,
            "scope": family.scope,
            "aud": self._access_tokens.issuer,
            "iat": int((family.rotated_at or family.created_at).timestamp()),
            "exp": int(family.idle_expires_at.timestamp()),
            "auth_time": int(family.authenticated_at.timestamp()),
            "amr": list(family.amr.split(" ")),
        }
        return told if family.acr is None else {**told, "acr": family.acr}

    async def _family_of_refresh(self, presented: str) -> Family | None:
        """The family of a token of any generation: whoever held any of its tokens may end it."""
        found = await self._find_proven(presented)
        return found[1] if found else None

    async def _find_proven(self, presented: str) -> tuple[RefreshToken, Family, datetime] | None:
        """A refresh token whose proof is right, live or not, with its family and the moment at which that was so."""
        token = self._pairs.find(presented)
        if token is None:
            return None
        async with self._database.begin() as db:
            seed = await db.families.find_seed(token.user_id, token.family_id)
            if seed is None or not self._pairs.proves(token, seed):
                return None
            family = await db.families.find(token.user_id, token.family_id)
            return (token, family, await db.now()) if family else None

    async def _family_of_access(self, token: str) -> Family | None:
        try:
            claims = await self._authentication.examine(token)
        except AccessTokenRejected:
            await self._refuse_client_token(token)
            return None
        async with self._database.begin() as db:
            return await db.families.find(claims.user_id, claims.session_id)

    async def _refuse_client_token(self, token: str) -> None:
        try:
            await self._clients.examine_token(token)
        except AccessTokenRejected:
            return
        raise UnsupportedTokenType


def grantable(scope: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """
    What is asked for, if it is allowed; without a question, all that is.

    Raises:
        InvalidScope: malformed, or more than is allowed (RFC 6749 section 5.2).
    """
    wanted = _wanted(scope)
    if not set(wanted) <= set(allowed):
        raise InvalidScope
    return wanted or allowed


def _wanted(scope: str) -> tuple[str, ...]:
    try:
        return read_scope(scope)
    except InputInvalid as malformed:
        raise InvalidScope(why=malformed.message) from None


def _check_grant(api_client: ApiClient, grant: ClientGrant) -> None:
    if grant not in api_client.grants:
        raise GrantNotPermitted
