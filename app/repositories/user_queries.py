"""Looking for users. Each filter has its index; names are compared byte by byte, so that no character is a pattern."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, exists, literal_column, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.pages import Position
from app.domain.user_filters import UserFilter
from app.domain.users import Role, User, prefix_end
from app.models import FamilyRow, UserRow
from app.repositories.users import COLUMNS, read_user

COUNT_LIMIT: Final = 100  # of one user's active sessions

U, F = UserRow, FamilyRow

# The counts of a page in one statement, each bounded, whatever somebody has heaped up.
COUNTS: Final = f"""
SELECT wanted.id, (
         SELECT count(*) FROM (
           SELECT 1 FROM families AS f
            WHERE f.user_id = wanted.id AND f.ended_at IS NULL AND f.idle_expires_at > $2 AND f.expires_at > $2
            LIMIT {COUNT_LIMIT + 1}) AS counted)
  FROM unnest($1::uuid[]) AS wanted (id)
"""  # noqa: S608 - a constant of ours


class UserQueryRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def list_page(
        self, wanted: UserFilter, *, now: datetime, newest_first: bool, after: Position | None, limit: int
    ) -> list[User]:
        """Users that match, by time of creation."""
        found = select(*COLUMNS).where(*_conditions(wanted, now))
        place = tuple_(U.created_at, U.id)
        if after is not None:
            found = found.where(place < (after.at, after.id) if newest_first else place > (after.at, after.id))
        order = (U.created_at.desc(), U.id.desc()) if newest_first else (U.created_at, U.id)
        return [read_user(row) for row in await self._db.execute(found.order_by(*order).limit(limit))]

    async def count_active_sessions(self, people: Sequence[UUID], *, now: datetime) -> dict[UUID, int]:
        """How many sessions of each are active, but no more than `COUNT_LIMIT` + 1."""
        values: Any = (list(people), now)
        rows: Any = await self._db.exec_driver_sql(COUNTS, values)
        return {row[0]: row[1] for row in rows}


def _conditions(wanted: UserFilter, now: datetime) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [U.deleted_at.is_not(None) if wanted.deleted else U.deleted_at.is_(None)]
    if wanted.deleted:
        conditions.append(U.disabled_at.is_not(None))  # always so, and the index on the disabled has them
    if wanted.prefix is not None:
        conditions += _begins(wanted.prefix)
    if wanted.role is not None:
        # Words of a closed list stand in the statement: a value would hide the partial index.
        conditions.append(U.role == literal_column(f"'{Role(wanted.role).value}'"))
    if wanted.disabled is not None:
        conditions.append(U.disabled_at.is_not(None) if wanted.disabled else U.disabled_at.is_(None))
    if wanted.created_from is not None:
        conditions.append(U.created_at >= wanted.created_from)
    if wanted.created_to is not None:
        conditions.append(U.created_at <= wanted.created_to)
    if wanted.has_active_sessions is not None:
        active = exists().where(F.user_id == U.id, F.ended_at.is_(None), F.idle_expires_at > now, F.expires_at > now)
        conditions.append(active if wanted.has_active_sessions else ~active)
    return conditions


def _begins(prefix: str) -> list[ColumnElement[bool]]:
    """
    By bounds and not by LIKE: there is nothing to escape, and a bound value can use the index, which a pattern that is
    only known at run time cannot.
    """
    end = prefix_end(prefix)
    conditions: list[ColumnElement[bool]] = [U.username_key.op("~>=~", is_comparison=True)(prefix)]
    if end is not None:
        conditions.append(U.username_key.op("~<~", is_comparison=True)(end))
    return conditions
