"""Starts and stops in the trail: with which settings and which keys a process served."""

import asyncio
from typing import Final

from pydantic import SecretStr

from app import __version__
from app.domain.canonical_json import JsonValue
from app.domain.errors import Unavailable
from app.domain.events import NO_CLIENT, SYSTEM, Action, Event
from app.observability.logs import get_logger
from app.repositories.database import Database
from app.security.keys import Keyring, spell_key_id
from app.services.database_paths import find_obstacle
from app.settings import Settings

log = get_logger()

START_SECONDS: Final = 5  # less than a pool's own deadlines together: it shall not keep a process from starting,
STOP_SECONDS: Final = 2  # or from ending


class Lifecycle:
    """Comparing the settings of one start with those of the next shows each change of configuration or keys."""

    def __init__(self, database: Database, settings: Settings, keyring: Keyring) -> None:
        self._database = database
        self._settings = settings
        self._keyring = keyring

    async def started(self) -> None:
        """Write the start. A database that is away keeps nobody from starting: nothing can be changed then either."""
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._warn_of_power()
                await self._warn_of_pooler()
                await self._write_start()
        except TimeoutError:
            log.warning("lifecycle.not_written", action=Action.SERVER_STARTED, why="no answer")

    async def _warn_of_pooler(self) -> None:
        if (obstacle := await find_obstacle(self._settings)) is not None:
            log.error("database.pooler_in_the_way", message=obstacle.message)

    async def _write_start(self) -> None:
        detail: dict[str, JsonValue] = {
            "version": __version__,
            "key_ids": [spell_key_id(key_id) for key_id in self._keyring.token_keys],
            "settings": self._shown(),
        }
        await self._write(Event(Action.SERVER_STARTED, SYSTEM, NO_CLIENT, detail=detail))

    async def stopped(self) -> None:
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._write(Event(Action.SERVER_STOPPED, SYSTEM, NO_CLIENT))
        except TimeoutError:
            log.warning("lifecycle.not_written", action=Action.SERVER_STOPPED, why="no answer")

    async def _warn_of_power(self) -> None:
        """The trail is append-only for the server's role; a login that can leave it makes that a matter of trust."""
        try:
            async with self._database.begin() as db:
                powerful = await db.jobs.login_is_superuser()
        except Unavailable:
            return  # said below
        if powerful:
            log.warning("database.login_is_superuser", advice="give the server a login that is in rota_app only")

    def _shown(self) -> dict[str, JsonValue]:
        """All that is no secret. A secret shows by whether it is set."""
        shown: dict[str, JsonValue] = {}
        for name in type(self._settings).model_fields:
            value = getattr(self._settings, name)
            shown[name] = bool(value.get_secret_value()) if isinstance(value, SecretStr) else value
        return shown

    async def _write(self, event: Event) -> None:
        try:
            async with self._database.begin() as db:
                await db.audit.add(event, at=await db.now())
                await db.commit()
        except Unavailable as error:
            log.warning("lifecycle.not_written", action=event.action, why=error.why)
