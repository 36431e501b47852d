"""Imports of users: how far each has come, and which names there are."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Final

from sqlalchemy import Text, any_, bindparam, insert, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.errors import StoredStateInvalid
from app.domain.events import Actor
from app.domain.user_imports import ImportFormat, UserImport
from app.models import UserImportRow, UserRow

R = UserImportRow

_COLUMNS: Final = tuple(getattr(R, field.name) for field in fields(UserImport))


class UserImportRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def add(self, begun: UserImport, actor: Actor) -> None:
        """Store a new one. Whoever adds one holds the file: see `Holds`."""
        values = {field.name: getattr(begun, field.name) for field in fields(UserImport)}
        values |= {"skipped_lines": list(begun.skipped_lines), "actor_kind": actor.kind, "actor_id": actor.id}
        await self._db.execute(insert(R).values(values))

    async def find(self, digest: bytes) -> UserImport | None:
        """By what is in the file."""
        row = (await self._db.execute(select(*_COLUMNS).where(R.digest == digest))).one_or_none()
        return None if row is None else _read(row)

    async def find_broken_off(self, place: bytes) -> UserImport | None:
        """One that is not finished, by where its file lies."""
        found = select(*_COLUMNS).where(R.place == place, R.finished_at.is_(None)).order_by(R.started_at.desc())
        row = (await self._db.execute(found.limit(1))).one_or_none()
        return None if row is None else _read(row)

    async def advance(self, done: UserImport, *, former: UserImport) -> bool:
        """Write how far it has come; false if somebody else has gone on with it meanwhile."""
        names = ("lines_done", "users", "admins", "disabled", "skipped", "worked_at", "finished_at")
        values = {name: getattr(done, name) for name in names} | {"skipped_lines": list(done.skipped_lines)}
        changed = update(R).where(R.id == done.id, R.lines_done == former.lines_done, R.finished_at.is_(None))
        return (await self._db.execute(changed.values(values))).rowcount == 1

    async def find_taken(self, keys: Sequence[str]) -> set[str]:
        """Which of the names somebody has, in their canonical form."""
        found = select(UserRow.username_key).where(UserRow.username_key == _any(keys))
        return {str(key) for key in (await self._db.execute(found)).scalars()}


def _any(keys: Sequence[str]) -> Any:
    """One parameter, however many there are."""
    return any_(bindparam(None, list(keys), type_=ARRAY(Text)))


def _read(row: Any) -> UserImport:
    try:
        form = ImportFormat(row.form)
    except ValueError:
        raise StoredStateInvalid(why="import format") from None
    found = UserImport(**row._asdict())
    return replace(found, form=form, skipped_lines=tuple(row.skipped_lines))
