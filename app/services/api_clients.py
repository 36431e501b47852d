"""API clients are made, get secrets, and are shut out."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from app.domain.api_clients import (
    OVERLAP_MAXIMUM,
    ApiClient,
    NewClient,
    SecretPlace,
    new_client_id,
    new_secret,
)
from app.domain.canonical_json import JsonValue
from app.domain.clients import ClientContext
from app.domain.errors import ClientHasNoSecrets, ClientNotFound, InputInvalid
from app.domain.events import Action, Actor, Event
from app.domain.pages import Page, Position, page_of
from app.observability.logs import get_logger
from app.repositories.api_clients import LockedClient
from app.repositories.database import Database, UnitOfWork
from app.security.keys import Keyring
from app.services.admin_reads import Cursors
from app.services.client_authentication import ClientAuthentication

log = get_logger()

_LIST: Final = b"clients, newest first"


@dataclass(frozen=True, slots=True)
class MadeClient:
    """A client and its newest secret, which is shown this once; a public client has none."""

    client: ApiClient
    secret: str | None


@dataclass(frozen=True, slots=True)
class ClientList:
    items: list[ApiClient]
    next: str | None


class ApiClients:
    """A client is referred to by its id or its client id, which never looks like one."""

    def __init__(self, database: Database, keyring: Keyring, authentication: ClientAuthentication) -> None:
        self._database = database
        self._keyring = keyring
        self._cursors = Cursors(keyring)
        self._authentication = authentication

    async def create(self, new: NewClient, *, actor: Actor, client: ClientContext) -> MadeClient:
        """
        Make a client, with a secret unless it is public.

        Raises:
            ClientIdTaken: another one has this name.
        """
        made_id, secret = uuid7(), None if new.public else new_secret()
        async with self._database.begin() as db:
            now = await db.now()
            made = ApiClient(
                id=made_id,
                client_id=new.client_id or new_client_id(),
                name=new.name,
                scopes=new.scopes,
                grants=new.all_grants,
                session_scopes=new.session_scopes,
                first_party=new.first_party,
                public=new.public,
                created_at=now,
                disabled_at=None,
                secret_created_at=now if secret else None,
                former_secret_created_at=None,
                former_secret_expires_at=None,
            )
            await db.api_clients.add(made, self._keyring.client_secret_hash(made_id, secret) if secret else None)
            detail: Mapping[str, JsonValue] = {
                "scopes": sorted(made.scopes),
                "grants": sorted(made.grants),
                "session_scopes": list(made.session_scopes),
                "first_party": made.first_party,
                "public": made.public,
            }
            await db.audit.add(_event(Action.CLIENT_CREATED, made, actor, client, detail), at=now)
            await db.commit()
        self._changed(Action.CLIENT_CREATED, made)
        return MadeClient(made, secret)

    async def get(self, reference: UUID | str) -> ApiClient:
        """
        One client, by id or client id.

        Raises:
            ClientNotFound: there is none.
        """
        async with self._database.begin() as db:
            return await self._read(db, reference)

    async def view(self, reference: UUID | str, *, actor: Actor, client: ClientContext) -> ApiClient:
        """
        As `get`, and that somebody looked is an event.

        Raises:
            ClientNotFound: there is none.
        """
        found = await self.get(reference)
        await self._record(str(found.id), 1, actor, client)
        return found

    async def list_page(self, *, after: str | None, limit: int, actor: Actor, client: ClientContext) -> ClientList:
        """
        All clients, newest first. That somebody looked is an event.

        Raises:
            InputInvalid: the cursor is none of this list.
        """
        before = self._cursors.read(after, _LIST) if after is not None else None
        async with self._database.begin() as db:
            rows = await db.api_clients.list_page(before=before, limit=limit + 1)
        page: Page[ApiClient] = page_of(rows, limit, lambda found: Position(found.created_at, found.id))
        await self._record(None, len(page.items), actor, client)
        return ClientList(page.items, self._cursors.write(page.after, _LIST) if page.after else None)

    async def rotate_secret(
        self, reference: UUID | str, overlap: timedelta | None, *, actor: Actor, client: ClientContext
    ) -> MadeClient:
        """
        Make a new secret. The one that was current works on for `overlap`, or until it is revoked (`None`).

        One that was former already ends now: a client has two at most. Whoever did not get the answer revokes the
        current one first (`revoke_secret`), or the secret that is in use would be the one that ends.

        Raises:
            ClientNotFound, ClientHasNoSecrets: as they say.
            InputInvalid: the overlap is negative or too long.
        """
        if overlap is not None and not timedelta(0) <= overlap <= OVERLAP_MAXIMUM:
            raise InputInvalid(f"The overlap must be 0 to {int(OVERLAP_MAXIMUM.total_seconds())} seconds.")
        secret = new_secret()
        async with self._database.begin() as db:
            locked = await self._lock(db, reference)
            now = await db.now()
            until = None if overlap is None else now + overlap
            await db.api_clients.push_secret(
                locked, self._keyring.client_secret_hash(locked.client.id, secret), now=now, former_until=until
            )
            if overlap == timedelta(0):
                await db.api_clients.drop_former(locked.client.id)
            detail = {"former_until": until.isoformat() if until else None}
            await db.audit.add(_event(Action.CLIENT_SECRET_ROTATED, locked.client, actor, client, detail), at=now)
            changed = await self._read(db, locked.client.id)
            await db.commit()
        self._changed(Action.CLIENT_SECRET_ROTATED, changed)
        return MadeClient(changed, secret)

    async def revoke_secret(
        self, reference: UUID | str, which: SecretPlace, *, actor: Actor, client: ClientContext
    ) -> tuple[ApiClient, bool]:
        """
        End a secret now. When the current one goes, a former one that still works becomes current again.

        Returns:
            The client, and false if it had no such secret.
        Raises:
            ClientNotFound, ClientHasNoSecrets: as they say.
        """
        async with self._database.begin() as db:
            locked = await self._lock(db, reference)
            now = await db.now()
            if (locked.former if which is SecretPlace.FORMER else locked.current) is None:
                return locked.client, False
            if which is SecretPlace.FORMER:
                await db.api_clients.drop_former(locked.client.id)
            else:
                until = locked.client.former_secret_expires_at
                await db.api_clients.drop_current(locked, former_works=until is None or now < until)
            revoked = _event(Action.CLIENT_SECRET_REVOKED, locked.client, actor, client, {"which": which.value})
            await db.audit.add(revoked, at=now)
            changed = await self._read(db, locked.client.id)
            await db.commit()
        self._changed(Action.CLIENT_SECRET_REVOKED, changed)
        return changed, True

    async def disable(self, reference: UUID | str, *, actor: Actor, client: ClientContext) -> tuple[ApiClient, bool]:
        """
        Shut a client out: by its secret, by the access tokens it got for itself, and its sessions cannot be refreshed.

        Returns:
            The client, and false if it was disabled already.
        Raises:
            ClientNotFound: there is none.
        """
        return await self._switch(reference, Action.CLIENT_DISABLED, actor, client)

    async def enable(self, reference: UUID | str, *, actor: Actor, client: ClientContext) -> tuple[ApiClient, bool]:
        """
        Let a disabled client come again.

        Returns:
            The client, and false if it was not disabled.
        Raises:
            ClientNotFound: there is none.
        """
        return await self._switch(reference, Action.CLIENT_ENABLED, actor, client)

    async def _switch(
        self, reference: UUID | str, action: Action, actor: Actor, client: ClientContext
    ) -> tuple[ApiClient, bool]:
        async with self._database.begin() as db:
            locked = await db.api_clients.lock(reference)
            if locked is None:
                raise ClientNotFound
            now = await db.now()
            at = now if action is Action.CLIENT_DISABLED else None
            if not await db.api_clients.set_disabled(locked.client.id, at):
                return locked.client, False
            await db.audit.add(_event(action, locked.client, actor, client), at=now)
            changed = await self._read(db, locked.client.id)
            await db.commit()
        self._changed(action, changed)
        return changed, True

    async def _lock(self, db: UnitOfWork, reference: UUID | str) -> LockedClient:
        locked = await db.api_clients.lock(reference)
        if locked is None:
            raise ClientNotFound
        if locked.client.public:
            raise ClientHasNoSecrets
        return locked

    async def _read(self, db: UnitOfWork, reference: UUID | str) -> ApiClient:
        found = await db.api_clients.find(reference)
        if found is None:
            raise ClientNotFound
        return found

    def _changed(self, action: Action, changed: ApiClient) -> None:
        self._authentication.forget(changed.client_id)
        log.info(action, client=changed.client_id)

    async def _record(self, which: str | None, count: int, actor: Actor, client: ClientContext) -> None:
        event = Event(Action.CLIENT_VIEWED, actor, client, detail={"client": which, "count": count})
        async with self._database.begin() as db:
            await db.audit.add(event, at=await db.now())
            await db.commit()


def _event(
    action: Action,
    made: ApiClient,
    actor: Actor,
    client: ClientContext,
    detail: Mapping[str, JsonValue] | None = None,
) -> Event:
    named: dict[str, JsonValue] = {"client": str(made.id), "client_id": made.client_id}
    return Event(action, actor, client, detail={**named, **(detail or {})})
