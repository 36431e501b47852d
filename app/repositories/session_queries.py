"""The conditions of a session filter, for reading and for changing."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, cast, false, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.orm import InstrumentedAttribute

from app.domain.event_filters import IpNetwork
from app.domain.events import Action
from app.domain.families import SessionState
from app.domain.session_filters import AddressScope, SessionFilter
from app.models import AuditEventRow, FamilyRow, UserRow

F = FamilyRow
E = AuditEventRow

# The events whose address is one that the session was used from. Not those of ends: an administrator's is none of it.
USES: Final = (
    Action.SESSION_CREATED,
    Action.SESSION_REFRESHED,
    Action.SESSION_REPLAYED,
    Action.SESSION_FAST_FORWARDED,
    Action.REFRESH_REUSED,
)

LAST_USED: Final[ColumnElement[datetime]] = func.coalesce(F.rotated_at, F.created_at)

# What may follow the name of a browser or a system in a session's row.
_VERSION: Final[ColumnElement[str]] = literal_column("'^([0-9][^ ]*|XP|Vista|NT|CE|ME|RT)$'")


def conditions(wanted: SessionFilter, now: datetime) -> list[ColumnElement[bool]]:
    """
    What a row of `families` must satisfy; for any SELECT, UPDATE or DELETE of that table alone.

    Args:
        now: Which sessions are active and which have lapsed depends on it.
    """
    if wanted.is_contradictory:
        return [false()]
    found = _equal(wanted)
    match wanted.state:
        case SessionState.ACTIVE:
            found += [F.ended_at.is_(None), F.idle_expires_at > now, F.expires_at > now]
        case SessionState.LAPSED:
            found += [F.ended_at.is_(None), or_(F.idle_expires_at <= now, F.expires_at <= now)]
        case SessionState.ENDED:
            found.append(F.ended_at.is_not(None))
        case None:
            pass
    if wanted.username is not None:
        found.append(F.user_id.in_(select(UserRow.id).where(UserRow.username_key == wanted.username)))
    if wanted.username_prefix is not None:
        found.append(F.user_id.in_(select(UserRow.id).where(named_like(wanted.username_prefix))))
    if wanted.network is not None:
        found.append(_from_network(wanted.network, wanted.scope))
    found += [
        column >= bound
        for column, bound in ((F.created_at, wanted.created_from), (LAST_USED, wanted.last_used_from))
        if bound is not None
    ]
    found += [
        column <= bound
        for column, bound in ((F.created_at, wanted.created_to), (LAST_USED, wanted.last_used_to))
        if bound is not None
    ]
    return found


def _equal(wanted: SessionFilter) -> list[ColumnElement[bool]]:
    pairs = (
        (F.user_id, wanted.user_id),
        (F.client_id, wanted.client_id),
        (F.role, wanted.role),
        (F.device, wanted.device),
        (F.end_reason, wanted.end_reason),
        (F.ended_by, wanted.ended_by),
    )
    found: list[ColumnElement[bool]] = [column == value for column, value in pairs if value is not None]
    if wanted.browser is not None:
        found.append(named(F.browser, wanted.browser))
    if wanted.os is not None:
        found.append(named(F.os, wanted.os))
    return found


def named(column: Any, name: str) -> ColumnElement[bool]:
    """A browser or system by its name, with or without its version."""
    version = func.substr(column, len(name) + 2)
    return or_(column == name, and_(column.like(f"{_literally(name)} %"), version.op("~")(_VERSION)))


def named_like(prefix: str) -> ColumnElement[bool]:
    """Users whose name begins so; served by the index for patterns."""
    return UserRow.username_key.like(f"{_literally(prefix)}%")


def _literally(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def of_network(column: InstrumentedAttribute[str | None], network: IpNetwork) -> ColumnElement[bool]:
    """By bounds, which an index knows."""
    first, last = (cast(str(end), INET) for end in (network.network_address, network.broadcast_address))
    return column == first if network.num_addresses == 1 else and_(column >= first, column <= last)


def _from_network(network: IpNetwork, scope: AddressScope) -> ColumnElement[bool]:
    first = of_network(F.created_ip, network)
    return first if scope is AddressScope.FIRST else or_(first, F.id.in_(used_from(network)))


def used_from(network: IpNetwork) -> Select[UUID | None]:
    """The sessions that the trail knows to have been used from a network."""
    return select(E.family_id).where(of_network(E.ip, network), E.action.in_(USES), E.family_id.is_not(None))
