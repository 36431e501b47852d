"""Exporting users for leaving again: all that another Rota, or another system, needs to let them in."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from app.domain.canonical_json import JsonValue
from app.domain.clients import ClientContext
from app.domain.events import Action, Actor, Event
from app.domain.import_lines import heading, write_line, write_time
from app.domain.user_imports import ImportFormat
from app.domain.users import User
from app.repositories.database import Database

PAGE: Final = 1000


@dataclass(slots=True)
class UserExport:
    """An export under way: how many users have been handed on, and whether that was all."""

    form: ImportFormat
    actor: Actor
    client: ClientContext
    count: int = 0
    whole: bool = False


class UserExports:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, form: ImportFormat, *, actor: Actor, client: ClientContext) -> UserExport:
        """Write down that somebody exports, before anything is read."""
        export = UserExport(form, actor, client)
        await self._record(export, "begun")
        return export

    async def pieces(self, export: UserExport) -> AsyncIterator[str]:
        """
        All users who were not deleted, in the order of their ids, a thousand at a time: no transaction is open between.

        A one-time password is left out: it is good for a day, and would be good for ever where it is imported.
        """
        yield heading(export.form)
        after = UUID(int=0)
        while True:
            async with self._database.begin() as db:
                users = await db.users.list_after(after, limit=PAGE)
            if not users:
                break
            after = users[-1].id
            export.count += len(users)
            yield "".join(write_line(export.form, _values(user)) for user in users)
        export.whole = True

    async def finish(self, export: UserExport) -> None:
        """Write down how it ended, and how many users were handed on."""
        await self._record(export, "finished" if export.whole else "broken_off")

    async def _record(self, export: UserExport, stage: str) -> None:
        detail: dict[str, JsonValue] = {
            "count": export.count,
            "filter": {},
            "format": export.form,
            "stage": stage,
            "what": "users",
        }
        event = Event(Action.ADMIN_EXPORTED, export.actor, export.client, detail=detail)
        async with self._database.begin() as db:
            await db.audit.add(event, at=await db.now())
            await db.commit()


def _values(user: User) -> dict[str, Any]:
    return {
        "username": user.username,
        "password_hash": None if user.must_change_password else user.password_hash,
        "role": user.role.value,
        "disabled": user.disabled_at is not None,
        "created_at": write_time(user.created_at),
    }
