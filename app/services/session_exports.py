"""Exporting sessions: all that match a filter, in constant memory, however slowly somebody reads."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from app.domain.canonical_json import JsonValue
from app.domain.clients import ClientContext
from app.domain.events import Action, Actor, Event
from app.domain.session_exports import ExportFormat, heading, lines
from app.domain.session_filters import SessionFilter
from app.repositories.database import Database
from app.services.session_search import SessionSearch

PIECE: Final = 100  # sessions written at a time: a few milliseconds in which the process answers nobody else


@dataclass(slots=True)
class Export:
    """An export under way: how many sessions have been handed on, and whether that was all."""

    wanted: SessionFilter
    form: ExportFormat
    newest_first: bool
    actor: Actor
    client: ClientContext
    count: int = 0
    whole: bool = False


class SessionExports:
    def __init__(self, database: Database, search: SessionSearch) -> None:
        self._database = database
        self._search = search

    async def begin(
        self,
        wanted: SessionFilter,
        form: ExportFormat,
        *,
        newest_first: bool,
        actor: Actor,
        client: ClientContext,
    ) -> Export:
        """Write down that somebody exports, before anything is read."""
        export = Export(wanted, form, newest_first, actor, client)
        await self._record(export, "begun")
        return export

    async def pieces(self, export: Export) -> AsyncIterator[str]:
        """
        The lines, piece by piece. Between two pieces no transaction is open and no connection is held.

        Raises:
            QueryTooBroad: as `SessionSearch.pages`.
        """
        yield heading(export.form)
        async for page in self._search.pages(export.wanted, newest_first=export.newest_first):
            for first in range(0, len(page.families), PIECE):
                piece = page.families[first : first + PIECE]
                export.count += len(piece)
                yield lines(export.form, piece, page.names, page.now)
                await asyncio.sleep(0)
        export.whole = True

    async def finish(self, export: Export) -> None:
        """Write down how it ended, and how many sessions were handed on."""
        await self._record(export, "finished" if export.whole else "broken_off")

    async def _record(self, export: Export, stage: str) -> None:
        detail: dict[str, JsonValue] = {
            "count": export.count,
            "filter": self._search.describe(export.wanted),
            "format": export.form,
            "stage": stage,
            "what": "sessions",
        }
        event = Event(Action.ADMIN_EXPORTED, export.actor, export.client, detail=detail)
        async with self._database.begin() as db:
            await db.audit.add(event, at=await db.now())
            await db.commit()
