"""
Lists of sessions: of all ways into the table the one that has least to look through.

Where several conditions are given, the way is chosen by its density where the page begins: how far it gets with a
thousand entries. That costs some index entries and no statistics, and holds where values come and go with time. What
the other conditions leave of it is looked at in stretches of known length, so that a page has its price whatever is
asked: see `app/services/session_search.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Text,
    cast,
    extract,
    func,
    literal,
    literal_column,
    select,
    true,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.event_filters import IpNetwork
from app.domain.families import Family
from app.domain.pages import Position
from app.domain.session_filters import AddressScope, SessionFilter
from app.models import AuditEventRow, FamilyRow, UserRow
from app.repositories.families import FAMILY_COLUMNS, read_family
from app.repositories.session_queries import LAST_USED, conditions, named, named_like, of_network, used_from
from app.repositories.session_ways import (
    Span,
    Way,
    by_address,
    by_equality,
    by_ids,
    by_set,
    by_state,
    by_user,
    by_value,
    everything,
    last_of,
)

F = FamilyRow
E = AuditEventRow

SORT_LIMIT: Final = 10_000  # sessions that are sorted by a time on which no index may stand
USERS_LIMIT: Final = 2_000  # whose name begins alike, asked one by one
NETWORK_LIMIT: Final = 50_000  # sessions of a network, sorted by creation
USES_LIMIT: Final = 5_000  # events from a network
NAMES_LIMIT: Final = 64  # versions of a browser, asked one by one
PROBE: Final = 1_000  # entries by which ways are compared
STATEMENT_MILLISECONDS: Final = 2_000

LIFE_SECONDS: Final[ColumnElement[Any]] = cast(extract("epoch", F.expires_at - F.created_at), BigInteger)


@dataclass(frozen=True, slots=True)
class Stretch:
    """
    What was found in one stretch of a way.

    Args:
        end: The last session looked at, from which to go on; `None`: there was none.
        seen: How many were looked at. Fewer than asked for: there are no more.
    """

    families: list[Family]
    end: UUID | None
    seen: int


class SessionListRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def begin(self) -> None:
        """For this transaction: plans for the values at hand, and an end to what takes too long."""
        # A plan for any value would be one for the common value, and walk the table for the rare one.
        settings = {"plan_cache_mode": "force_custom_plan", "statement_timeout": str(STATEMENT_MILLISECONDS)}
        await self._db.execute(select(*(func.set_config(name, value, True) for name, value in settings.items())))

    async def find_ways(self, wanted: SessionFilter) -> list[Way] | None:
        """
        Ways that each lead to all sessions that match.

        `None`: the network was used too often to be looked up in the trail.
        """
        ways = list(by_equality(wanted))
        for name, column, value in (("browser", F.browser, wanted.browser), ("os", F.os, wanted.os)):
            if value is not None and len(names := await self._find_names(column, value)) <= NAMES_LIMIT:
                ways.append(by_value(name, column, Text(), names))
        if wanted.username is not None or wanted.username_prefix is not None:
            people = await self._find_people(wanted)
            if len(people) <= USERS_LIMIT:
                ways.append(by_user("username", people, wanted))
        if wanted.network is not None:
            way = await self._find_network(wanted.network, wanted)
            if way is None and wanted.scope is AddressScope.ANY:
                return None
            ways += [way] if way else []
        return [*ways, *by_state(wanted)] or [everything()]

    async def choose(self, ways: Sequence[Way], span: Span) -> Way:
        """The way that has least to look through from where the span begins."""
        if len(ways) == 1:
            return ways[0]
        statement = select(*(last_of(way, span, PROBE).scalar_subquery() for way in ways))
        best, reached = ways[0], None
        for way, end in zip(ways, (await self._db.execute(statement)).one(), strict=True):
            if end is None:  # it has less than that altogether
                return way
            if reached is None or span.farther(end, reached):
                best, reached = way, end
        return best

    async def look(
        self, way: Way, wanted: SessionFilter, now: datetime, span: Span, *, length: int, limit: int
    ) -> Stretch:
        """At most `limit` matching sessions of the next `length` of a way, in order."""
        stretch = way.walk(span, length).cte("stretch").prefix_with("MATERIALIZED")
        # Each by its id, in order and as far as is needed, behind an OFFSET through which the planner cannot see: by
        # its own estimates it would rather intersect whole indexes.
        in_order = select(stretch.c.id).order_by(span.order(stretch.c.id)).subquery("in_order")
        it = select(*FAMILY_COLUMNS).where(F.id == in_order.c.id, *conditions(_left(way, wanted), now))
        matching = it.offset(literal_column("0")).lateral("matching")
        page = select(*matching.c).select_from(in_order).join(matching, true())
        found = page.order_by(span.order(in_order.c.id)).limit(limit).subquery("found")
        last = stretch.c.id.desc() if not span.newest_first else stretch.c.id.asc()
        end = select(stretch.c.id).order_by(last).limit(1).scalar_subquery()
        seen = select(func.count()).select_from(stretch).scalar_subquery()
        ends = select(end.label("stretch_end"), seen.label("seen")).subquery("ends")
        both = select(ends.c.stretch_end, ends.c.seen, *found.c).select_from(ends).outerjoin(found, true())
        both = both.order_by(span.order(found.c.id))
        rows = (await self._db.execute(both)).all()
        return Stretch([read_family(row) for row in rows if row.id is not None], rows[0].stretch_end, rows[0].seen)

    async def list_by_last_use(
        self,
        ways: Sequence[Way],
        wanted: SessionFilter,
        now: datetime,
        span: Span,
        *,
        after: Position | None,
        limit: int,
    ) -> list[Family] | None:
        """Matching sessions by their last use; `None`: no way is short enough to be sorted."""
        for way in ways:
            if (await self._db.execute(last_of(way, span, SORT_LIMIT + 1))).first() is None:
                break
        else:
            return None
        bounded = way.walk(span, SORT_LIMIT).cte("bounded").prefix_with("MATERIALIZED")
        found = select(*FAMILY_COLUMNS).join(bounded, bounded.c.id == F.id)
        found = found.where(*conditions(_left(way, wanted), now))
        if after is not None:
            place, given = tuple_(LAST_USED, F.id), tuple_(literal(after.at), literal(after.id))
            found = found.where(place < given if span.newest_first else place > given)
        rows = await self._db.execute(found.order_by(span.order(LAST_USED), span.order(F.id)).limit(limit))
        return [read_family(row) for row in rows]

    async def find_longest_life(self) -> timedelta:
        """The longest that any session was given at its beginning, in whole seconds. Served by its index."""
        seconds: int | None = (await self._db.execute(select(func.max(LIFE_SECONDS)))).scalar_one_or_none()
        return timedelta(seconds=seconds or 0)

    async def find(self, session_id: UUID) -> Family | None:
        row = (await self._db.execute(select(*FAMILY_COLUMNS).where(F.id == session_id))).one_or_none()
        return None if row is None else read_family(row)

    async def _find_names(self, column: Any, name: str) -> list[str]:
        """
        The values that a browser or a system of this name has: one step in the index each.

        Whatever the order of the database's collation, those that begin with the same letters stand together.
        """
        letters = "".join(character for character in name.lower() if character.isalnum())
        names = (
            select(column.label("name")).where(column >= name).order_by(column).limit(1).cte("names", recursive=True)
        )
        following = select(column).where(column > names.c.name).order_by(column).limit(1).scalar_subquery()
        its_letters = func.lower(func.regexp_replace(names.c.name, "[^[:alnum:]]", "", "g"))
        names = names.union_all(select(following).where(its_letters.startswith(letters, autoescape=True)))
        found = select(names.c.name).where(named(names.c.name, name)).limit(NAMES_LIMIT + 1)
        return list((await self._db.execute(found)).scalars())

    async def _find_people(self, wanted: SessionFilter) -> list[UUID]:
        """Those whose name is it, or begins so."""
        found = select(UserRow.id).limit(USERS_LIMIT + 1)
        if wanted.username is not None:
            found = found.where(UserRow.username_key == wanted.username)
        if wanted.username_prefix is not None:
            found = found.where(named_like(wanted.username_prefix))
        return list((await self._db.execute(found)).scalars())

    async def _find_network(self, network: IpNetwork, wanted: SessionFilter) -> Way | None:
        """The sessions of a network; `None`: there are too many of them."""
        first = select(F.id.label("id")).where(of_network(F.created_ip, network))
        if wanted.scope is AddressScope.FIRST and network.num_addresses == 1:
            return by_address(str(network.network_address))
        many = first.order_by(F.created_ip, F.id).offset(NETWORK_LIMIT).limit(1)
        if (await self._db.execute(many)).first() is not None:
            return None
        if wanted.scope is AddressScope.FIRST:
            return by_set("network", first)
        used = used_from(network)
        if wanted.created_from is not None:
            used = used.where(E.occurred_at >= wanted.created_from)
        uses = list((await self._db.execute(used.order_by(E.ip, E.occurred_at).limit(USES_LIMIT + 1))).scalars())
        if len(uses) > USES_LIMIT:
            return None
        return by_ids("used_from", {*uses, *(await self._db.execute(first)).scalars()} - {None})


def _left(way: Way, wanted: SessionFilter) -> SessionFilter:
    """What is still to be checked of those that a way leads to."""
    return replace(wanted, network=None, scope=AddressScope.FIRST) if way.of_network else wanted
