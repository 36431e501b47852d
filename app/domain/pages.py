"""Keyset pages: a cursor names the last row seen, so nothing is skipped or repeated while rows come and go."""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Generic, TypeVar
from uuid import UUID

from app.domain.errors import InputInvalid

T = TypeVar("T")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LATEST: Final = 253_402_300_799_999_999  # the last microsecond of the year 9999
_CURSOR_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]{32}", re.ASCII)  # 24 bytes: 8 of time, 16 of id


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list that is ordered by time, then id."""

    at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: list[T]
    after: Position | None  # where the next page starts; `None` on the last


def page_of(rows: list[T], limit: int, position: Callable[[T], Position]) -> Page[T]:
    """Cut `limit + 1` fetched rows to a page; the one row too many only tells that there is more."""
    items = rows[:limit]
    return Page(items, position(items[-1]) if len(rows) > limit else None)


def pack_position(position: Position) -> bytes:
    """24 bytes: microseconds since 1970, id."""
    return ((position.at - _EPOCH) // _MICROSECOND).to_bytes(8) + position.id.bytes


def unpack_position(raw: bytes) -> Position:
    """
    The position in 24 bytes.

    Raises:
        InputInvalid: a time beyond the year 9999.
    """
    micros = int.from_bytes(raw[:8])
    if micros > _LATEST:
        raise InputInvalid("The cursor is not valid.", field="after")
    return Position(_EPOCH + micros * _MICROSECOND, UUID(bytes=raw[8:24]))


def write_cursor(position: Position) -> str:
    return base64.urlsafe_b64encode(pack_position(position)).decode("ascii")


def read_cursor(cursor: str) -> Position:
    """
    The position that a cursor names.

    Raises:
        InputInvalid: not a cursor of ours.
    """
    if not _CURSOR_SHAPE.fullmatch(cursor):
        raise InputInvalid("The cursor is not valid.", field="after")
    try:
        raw = base64.urlsafe_b64decode(cursor)
    except binascii.Error:  # pragma: no cover - the shape leaves nothing to refuse
        raise InputInvalid("The cursor is not valid.", field="after") from None
    return unpack_position(raw)
