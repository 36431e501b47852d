"""Which API client is calling: a client id with its secret, or an access token it got for them."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.domain.api_clients import ApiClient, SecretHash, StoredClient, check_client_id
from app.domain.clock import Clock
from app.domain.errors import AccessTokenRejected, ClientRejected, InputInvalid, Unavailable
from app.observability.logs import get_logger
from app.repositories.database import Database
from app.security.access_tokens import AccessTokens, ClientClaims
from app.security.keys import Keyring

log = get_logger()

CACHE_SECONDS: Final = 1.0  # how long another process may take to see a change of a client
CACHE_SIZE: Final = 1024

# Compared with where there is nothing to compare with, so that this takes as long.
_NOBODY: Final = UUID(int=0)
_NOTHING: Final = SecretHash(bytes(32), -1)


@dataclass(frozen=True, slots=True)
class _Cached:
    stored: StoredClient | None  # that there is no such client is kept likewise, or its answers would be slower
    now: datetime  # the database's
    read_at: float  # by the clock that counts the seconds since


class ClientAuthentication:
    """
    Clients are read by their unique name and kept for `CACHE_SECONDS`, so a client under load costs a query a second.

    What an administrator changes is seen by the process that changed it at once, by others within that time. A client
    that cannot be read again is not taken from an older copy: the request fails with `Unavailable`.
    """

    def __init__(self, database: Database, keyring: Keyring, access_tokens: AccessTokens, clock: Clock) -> None:
        self._database = database
        self._keyring = keyring
        self._access_tokens = access_tokens
        self._clock = clock
        self._cache: OrderedDict[str, _Cached] = OrderedDict()

    async def authenticate(self, client_id: str, secret: str) -> ApiClient:
        """
        The client that this secret is of.

        Unknown client, wrong secret, revoked secret and disabled client take the same work and get the same answer:
        two keyed hashes, each compared in constant time.

        Raises:
            ClientRejected: whatever is wrong.
            Unavailable: the database cannot be asked.
        """
        stored = await self._find(client_id)
        row = stored.client.id if stored else _NOBODY
        hashes = ((stored.current if stored else None) or _NOTHING, (stored.former if stored else None) or _NOTHING)
        right = [self._keyring.is_client_secret(each, row, secret) for each in hashes]
        if stored is None or not any(right):
            if stored is None:  # the name may be a secret in the wrong place, so it is not repeated
                log.info("client.refused", why="unknown client")
                raise ClientRejected(why="unknown client")
            log.info("client.refused", client=client_id, why="wrong secret")
            raise ClientRejected(why="wrong secret")
        _check_enabled(stored.client)
        used = hashes[right.index(True)]
        if used.key_id != self._keyring.minting.key_id:
            await self._rehash(stored.client, used, secret)
        return stored.client

    async def identify_public(self, client_id: str) -> ApiClient:
        """
        The public client of that name; anybody can say to be it.

        Raises:
            ClientRejected: there is none, it is disabled, or it has a secret and did not show it.
        """
        stored = await self._find(client_id)
        if stored is None or not stored.client.public:
            log.info("client.refused", client=client_id if stored else None, why="no secret")
            raise ClientRejected(why="no secret")
        _check_enabled(stored.client)
        return stored.client

    async def authenticate_token(self, token: str) -> ApiClient:
        """
        The client behind an access token that it got for itself, with the scopes of that token only.

        Raises:
            AccessTokenRejected, Unavailable: as `examine_token`.
        """
        client, _ = await self.examine_token(token)
        return client

    async def examine_token(self, token: str) -> tuple[ApiClient, ClientClaims]:
        """
        The client behind an access token of the client credentials grant, and what the token says.

        The client has those of its scopes that the token has: fewer than either, if it was given fewer since.

        Raises:
            AccessTokenRejected: not such a token, expired, or its client is disabled.
            Unavailable: the database cannot be asked.
        """
        claims = self._access_tokens.verify_client(token, self._clock.on_host())
        cached = await self._lookup(claims.client_id)
        since = timedelta(seconds=self._clock.elapsed() - cached.read_at)
        claims.check_time(self._clock.for_database() or cached.now + since)
        if cached.stored is None or cached.stored.client.disabled_at is not None:
            raise AccessTokenRejected(why="unknown or disabled client")
        client = cached.stored.client
        return replace(client, scopes=client.scopes & claims.client_scopes), claims

    async def is_live(self, client_id: str) -> bool:
        """Whether a client is there and not disabled."""
        stored = await self._find(client_id)
        return stored is not None and stored.client.disabled_at is None

    def forget(self, client_id: str) -> None:
        """Read it anew the next time: this process has changed it."""
        self._cache.pop(client_id, None)

    async def _find(self, client_id: str) -> StoredClient | None:
        return (await self._lookup(client_id)).stored

    async def _lookup(self, client_id: str) -> _Cached:
        began = self._clock.elapsed()
        cached = self._cache.get(client_id)
        if cached is not None and began - cached.read_at < CACHE_SECONDS:
            return cached
        self._cache.pop(client_id, None)
        async with self._database.begin() as db:
            at = await db.now()
            stored = await db.api_clients.find_working(client_id, at) if _can_exist(client_id) else None
        # Dated by when the read began, so that it is never kept longer than it may be.
        self._cache[client_id] = read = _Cached(stored, at, began)
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return read

    async def _rehash(self, client: ApiClient, used: SecretHash, secret: str) -> None:
        """Move a hash to the newest server secret, so that the older one can be removed some day."""
        try:
            async with self._database.begin() as db:
                new = self._keyring.client_secret_hash(client.id, secret)
                await db.api_clients.replace_hash(client.id, old=used, new=new)
                await db.commit()
        except Unavailable as error:
            log.warning("client.rehash_delayed", client=client.client_id, why=error.why)
            return
        self.forget(client.client_id)
        log.info("client.rehashed", client=client.client_id)


def _check_enabled(client: ApiClient) -> None:
    if client.disabled_at is not None:
        log.info("client.refused", client=client.client_id, why="disabled")
        raise ClientRejected(why="disabled")


def _can_exist(client_id: str) -> bool:
    try:
        check_client_id(client_id)
    except InputInvalid:
        return False
    return True
