"""
Connections through a transaction pooler, such as PgBouncer's `pool_mode = transaction`.

Each transaction may get another session of the server, which others have used and will use. So nothing that is set for
a session holds, and nothing may be left in one: who acts and what is bounded is set for each transaction, in the same
message that begins it, and prepared statements have no name. What is not in a transaction is refused, since it would
run as whoever used that session before us.
"""

from collections.abc import Mapping
from typing import Any

import asyncpg


class OutsideTransaction(Exception):
    """A defect of ours: a statement for a pooled connection that began no transaction."""


class PooledConnection(asyncpg.Connection):
    """asyncpg's connection, whose transactions begin with `SET LOCAL` of role and bounds; one round trip for both."""

    _begins: str

    def begin_as(self, role: str, settings: Mapping[str, str]) -> None:
        """Say who acts in each transaction, and what bounds it. To be called before any."""
        self._begins = f"SET LOCAL ROLE {role}"
        for name, value in settings.items():
            self.bound(name, value)

    def bound(self, name: str, value: str) -> None:
        """One more setting for each transaction, in place of what was said of it before."""
        self._begins += f"; SET LOCAL {name} = '{value}'"

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109 - signature of the driver
        if query.startswith("BEGIN"):
            try:
                return await super().execute(f"{query.rstrip(';')}; {self._begins}", timeout=timeout)
            except asyncpg.PostgresError:  # it was begun, and what it begins with refused: it stays open, and is no use
                self.terminate()
                raise
        self._require_transaction()
        return await super().execute(query, *args, timeout=timeout)

    async def prepare(self, query: str, **options: Any) -> Any:
        self._require_transaction()
        return await super().prepare(query, **options)

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        self._require_transaction()
        return await super().fetch(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        self._require_transaction()
        return await super().fetchrow(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        self._require_transaction()
        return await super().fetchval(query, *args, **options)

    async def run_alone(self, statement: str, arguments: tuple[object, ...]) -> Any:
        """
        One statement in a transaction of its own: the first row or `None`.

        When the server refuses it, the connection is as good as before; whatever else breaks it off, it is not.
        """
        transaction = self.transaction(isolation="read_committed")
        await transaction.start()
        try:
            row = await self.fetchrow(statement, *arguments)
        except asyncpg.PostgresError:
            await transaction.rollback()
            raise
        await transaction.commit()
        return row

    def _require_transaction(self) -> None:
        if not self.is_in_transaction():
            raise OutsideTransaction


def as_pooled(driver: object) -> PooledConnection | None:
    """The connection if it is one of these. `isinstance` holds for all of asyncpg's, by its own metaclass."""
    return driver if type(driver) is PooledConnection else None


def unnamed() -> str:
    """The name of a prepared statement that the next one replaces, and that leaves nothing in the server's session."""
    return ""
