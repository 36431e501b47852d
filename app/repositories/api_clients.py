from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.api_clients import ApiClient, ClientGrant, ClientScope, SecretHash, StoredClient
from app.domain.errors import ClientIdTaken, StoredStateInvalid
from app.domain.pages import Position
from app.models import ApiClientRow

_COLUMNS = (
    ApiClientRow.id,
    ApiClientRow.client_id,
    ApiClientRow.name,
    ApiClientRow.scopes,
    ApiClientRow.grants,
    ApiClientRow.session_scopes,
    ApiClientRow.first_party,
    ApiClientRow.public,
    ApiClientRow.created_at,
    ApiClientRow.disabled_at,
    ApiClientRow.secret_created_at,
    ApiClientRow.former_secret_created_at,
    ApiClientRow.former_secret_expires_at,
)
_SECRETS = (
    ApiClientRow.secret_hash,
    ApiClientRow.secret_key_id,
    ApiClientRow.former_secret_hash,
    ApiClientRow.former_secret_key_id,
)


@dataclass(frozen=True, slots=True)
class LockedClient:
    """A client whose row is locked, with all its hashes, working or not."""

    client: ApiClient
    current: SecretHash | None
    former: SecretHash | None


class ApiClientRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def find_working(self, client_id: str, now: datetime) -> StoredClient | None:
        """By the name it speaks by, with the secrets that work at `now`; `None`: there is no such client."""
        found = select(*_COLUMNS, *_SECRETS).where(ApiClientRow.client_id == client_id)
        row = (await self._db.execute(found)).one_or_none()
        if row is None:
            return None
        expires_at = row.former_secret_expires_at
        works = expires_at is None or now < expires_at
        return StoredClient(
            _client(row),
            _hash(row.secret_hash, row.secret_key_id),
            _hash(row.former_secret_hash, row.former_secret_key_id) if works else None,
        )

    async def find(self, reference: UUID | str) -> ApiClient | None:
        """By id or by client id; which of both it is shows by its form."""
        row = (await self._db.execute(select(*_COLUMNS).where(_is(reference)))).one_or_none()
        return None if row is None else _client(row)

    async def lock(self, reference: UUID | str) -> LockedClient | None:
        """Lock the row until the end of the transaction: changes of a client come one after the other."""
        found = select(*_COLUMNS, *_SECRETS).where(_is(reference)).with_for_update(key_share=True)
        row = (await self._db.execute(found)).one_or_none()
        if row is None:
            return None
        return LockedClient(
            _client(row),
            _hash(row.secret_hash, row.secret_key_id),
            _hash(row.former_secret_hash, row.former_secret_key_id),
        )

    async def list_page(self, *, before: Position | None, limit: int) -> list[ApiClient]:
        """Newest first. There are a few dozen at most, so no index serves it."""
        found = select(*_COLUMNS).order_by(ApiClientRow.created_at.desc(), ApiClientRow.id.desc()).limit(limit)
        if before is not None:
            found = found.where(tuple_(ApiClientRow.created_at, ApiClientRow.id) < (before.at, before.id))
        return [_client(row) for row in await self._db.execute(found)]

    async def add(self, client: ApiClient, secret: SecretHash | None) -> None:
        """
        Store a new client.

        Raises:
            ClientIdTaken: another client has this name.
        """
        values = {
            "id": client.id,
            "client_id": client.client_id,
            "name": client.name,
            "scopes": sorted(client.scopes),
            "grants": sorted(client.grants),
            "session_scopes": list(client.session_scopes),
            "first_party": client.first_party,
            "public": client.public,
            "created_at": client.created_at,
            "secret_hash": secret and secret.digest,
            "secret_key_id": secret and secret.key_id,
            "secret_created_at": client.secret_created_at,
        }
        try:
            await self._db.execute(insert(ApiClientRow).values(values))
        except IntegrityError as conflict:
            if "uq_api_clients_client_id" in str(conflict.orig):
                raise ClientIdTaken from None
            raise

    async def set_disabled(self, client: UUID, at: datetime | None) -> bool:
        """Disable (`at`) or enable (`None`); false if the client was so already."""
        was = ApiClientRow.disabled_at.is_(None) if at else ApiClientRow.disabled_at.is_not(None)
        changed = update(ApiClientRow).where(ApiClientRow.id == client, was).values(disabled_at=at)
        return (await self._db.execute(changed)).rowcount == 1

    async def push_secret(
        self, locked: LockedClient, secret: SecretHash, *, now: datetime, former_until: datetime | None
    ) -> None:
        """Make a secret the current one and the current one the former. The caller holds the row's lock."""
        beside = locked.current is not None
        await self._set(
            locked.client.id,
            secret_hash=secret.digest,
            secret_key_id=secret.key_id,
            secret_created_at=now,
            former_secret_hash=locked.current and locked.current.digest,
            former_secret_key_id=locked.current and locked.current.key_id,
            former_secret_created_at=locked.client.secret_created_at,
            former_secret_expires_at=former_until if beside else None,
        )

    async def drop_former(self, client: UUID) -> None:
        """Only the current secret stays. The caller holds the row's lock."""
        await self._set(
            client,
            former_secret_hash=None,
            former_secret_key_id=None,
            former_secret_created_at=None,
            former_secret_expires_at=None,
        )

    async def drop_current(self, locked: LockedClient, *, former_works: bool) -> None:
        """Take back the newest secret: the former one is current again, if it works. The caller holds the lock."""
        former = locked.former if former_works else None
        await self._set(
            locked.client.id,
            secret_hash=former and former.digest,
            secret_key_id=former and former.key_id,
            secret_created_at=locked.client.former_secret_created_at if former else None,
        )
        await self.drop_former(locked.client.id)

    async def replace_hash(self, client: UUID, *, old: SecretHash, new: SecretHash) -> None:
        """Store the same secret under another key, wherever it still stands."""
        for digest, key_id in (
            (ApiClientRow.secret_hash, ApiClientRow.secret_key_id),
            (ApiClientRow.former_secret_hash, ApiClientRow.former_secret_key_id),
        ):
            changed = update(ApiClientRow).where(ApiClientRow.id == client, digest == old.digest)
            await self._db.execute(changed.values({digest: new.digest, key_id: new.key_id}))

    async def _set(self, client: UUID, **values: Any) -> None:
        await self._db.execute(update(ApiClientRow).where(ApiClientRow.id == client).values(**values))


def _is(reference: UUID | str) -> ColumnElement[bool]:
    if isinstance(reference, str):
        try:
            reference = UUID(reference)
        except ValueError:
            return ApiClientRow.client_id == reference
    return ApiClientRow.id == reference


def _hash(digest: bytes | None, key_id: int | None) -> SecretHash | None:
    return None if digest is None or key_id is None else SecretHash(digest, key_id)


def _client(row: Any) -> ApiClient:
    try:
        scopes, grants = frozenset(map(ClientScope, row.scopes)), frozenset(map(ClientGrant, row.grants))
    except ValueError:
        raise StoredStateInvalid(why="client scopes or grants") from None
    return ApiClient(
        id=row.id,
        client_id=row.client_id,
        name=row.name,
        scopes=scopes,
        grants=grants,
        session_scopes=tuple(row.session_scopes),
        first_party=row.first_party,
        public=row.public,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        secret_created_at=row.secret_created_at,
        former_secret_created_at=row.former_secret_created_at,
        former_secret_expires_at=row.former_secret_expires_at,
    )
