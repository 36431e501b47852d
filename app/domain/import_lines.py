"""
One line of a file of users, and back: CSV (RFC 4180) or a JSON object.

No field can hold a line break, so each physical line is read by itself: a quote that is not closed spoils its own line
and none after it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from app.domain.errors import UsernameRefused
from app.domain.spreadsheet_cells import bare, guarded
from app.domain.user_imports import COLUMNS, Entry, Field, ImportFormat, Reason
from app.domain.users import Role, username_key

# A field, and what ends it: quoted, with each quote within doubled, or without any quote (RFC 4180, section 2).
_CELL: Final = re.compile(r'(?:"((?:[^"]|"")*)"|([^",]*))(,|$)')
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_ROLES: Final[Mapping[str, Role]] = {role.value: role for role in Role}
_BOOLEANS: Final = {"true": True, "false": False, "": False}

CheckHash = Callable[[str], Reason | None]
Row = Mapping[str, Any]


class LineFaulty(Exception):
    """A line, or the heading, cannot be taken; all that is wrong with it, in the order of the columns."""

    def __init__(self, *found: tuple[Field, Reason], unknown: Sequence[str] = ()) -> None:
        super().__init__()
        self.found = found
        self.unknown = unknown


def split_cells(text: str) -> list[str]:
    """
    The fields of a line without its end.

    Raises:
        LineFaulty: a quote where none may stand, or one that is not closed.
    """
    if '"' not in text:
        return text.split(",")
    cells, place = [], 0
    while True:
        found = _CELL.match(text, place)
        if found is None:
            raise LineFaulty((Field.LINE, Reason.UNBALANCED_QUOTES))
        quoted, plain, end = found.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        if not end:
            return cells
        place = found.end()


def read_heading(text: str) -> tuple[str, ...]:
    """
    The columns of a CSV file, in any order.

    Raises:
        LineFaulty: a column that is not known, twice there, or no `username`.
    """
    columns = tuple(cell.strip().lower() for cell in split_cells(text))
    if Field.USERNAME not in columns:  # no heading, but perhaps a line of data: nothing of it is told
        raise LineFaulty((Field.USERNAME, Reason.MISSING))
    if unknown := [column for column in columns if column not in _NAMES]:
        raise LineFaulty((Field.LINE, Reason.UNKNOWN_MEMBER), unknown=unknown)
    if len(set(columns)) < len(columns):
        raise LineFaulty((Field.LINE, Reason.DUPLICATE_MEMBER))
    return columns


def read_csv(text: str, columns: Sequence[str]) -> dict[str, Any]:
    """
    A line's fields by column. What an export has put before a formula is taken off again.

    Raises:
        LineFaulty: quotes, or more or fewer fields than columns.
    """
    cells = split_cells(text)
    if len(cells) != len(columns):
        raise LineFaulty((Field.LINE, Reason.WRONG_COLUMN_COUNT))
    row: dict[str, Any] = {column: bare(cell) for column, cell in zip(columns, cells, strict=True)}
    if (disabled := row.get(Field.DISABLED)) is not None:
        row[Field.DISABLED] = _BOOLEANS.get(disabled.lower(), disabled)
    return row


def read_object(text: str) -> dict[str, Any]:
    """
    A line's members.

    Raises:
        LineFaulty: no JSON object, a member that is not known or is there twice.
    """
    try:
        row = json.loads(text, object_pairs_hook=_members, parse_constant=_refuse_constant)
    except RecursionError:
        raise LineFaulty((Field.LINE, Reason.TOO_DEEP)) from None
    except ValueError:
        raise LineFaulty((Field.LINE, Reason.NOT_JSON)) from None
    if not isinstance(row, dict):
        raise LineFaulty((Field.LINE, Reason.NOT_AN_OBJECT))
    if unknown := [name for name in row if name not in _NAMES]:
        raise LineFaulty((Field.LINE, Reason.UNKNOWN_MEMBER), unknown=unknown)
    return row


def read_entry(row: Row, *, check_hash: CheckHash, now: datetime) -> Entry:
    """
    The user whom a line tells of.

    Raises:
        LineFaulty: all fields that are wrong.
    """
    found: list[tuple[Field, Reason]] = []
    values: dict[Field, Any] = {}
    for field, read in _READERS:
        try:
            values[field] = read(row.get(field))
        except _Wrong as wrong:
            found.append((field, wrong.reason))
    if (text := values.get(Field.PASSWORD_HASH)) is not None and (reason := check_hash(text)) is not None:
        found.append((Field.PASSWORD_HASH, reason))
    created_at = values.get(Field.CREATED_AT)
    if created_at is not None and created_at > now:
        found.append((Field.CREATED_AT, Reason.IN_THE_FUTURE))
    if found:
        raise LineFaulty(*sorted(found, key=lambda each: COLUMNS.index(each[0])))
    username, key = values[Field.USERNAME]
    return Entry(
        username, key, values[Field.PASSWORD_HASH], values[Field.ROLE], values[Field.DISABLED], values[Field.CREATED_AT]
    )


def heading(form: ImportFormat) -> str:
    """What stands before the first user of an export."""
    return ",".join(COLUMNS) + "\r\n" if form is ImportFormat.CSV else ""


def write_line(form: ImportFormat, values: Row) -> str:
    """A user of an export, with the end of the line: what an import reads as the very same values."""
    if form is ImportFormat.NDJSON:
        return json.dumps({column: values[column] for column in COLUMNS}, ensure_ascii=False) + "\n"
    return ",".join(_cell(values[column]) for column in COLUMNS) + "\r\n"


def write_time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class _Wrong(Exception):
    def __init__(self, reason: Reason) -> None:
        super().__init__()
        self.reason = reason


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise LineFaulty((Field.LINE, Reason.DUPLICATE_MEMBER))
    return row


def _refuse_constant(_name: str) -> None:
    raise ValueError


def _text(value: object) -> str:
    """A text, or empty for what is not there."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _Wrong(Reason.NOT_TEXT)
    if "\0" in value:
        raise _Wrong(Reason.NUL)
    if not value.isascii() and _SURROGATE.search(value):
        raise _Wrong(Reason.SURROGATE)
    return value


def _username(value: object) -> tuple[str, str]:
    name = _text(value)
    if not name:
        raise _Wrong(Reason.MISSING)
    try:
        return name, username_key(name)
    except UsernameRefused:
        raise _Wrong(Reason.USERNAME_REFUSED) from None


def _password_hash(value: object) -> str | None:
    return _text(value) or None


def _role(value: object) -> Role:
    name = _text(value)
    if not name:
        return Role.USER
    if name not in _ROLES:
        raise _Wrong(Reason.UNKNOWN_ROLE)
    return _ROLES[name]


def _disabled(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise _Wrong(Reason.NOT_A_BOOLEAN)


def _created_at(value: object) -> datetime | None:
    text = _text(value)
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise _Wrong(Reason.NOT_A_TIME)
        at = at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _Wrong(Reason.NOT_A_TIME) from None
    if at < _FIRST_TIME:
        raise _Wrong(Reason.NOT_A_TIME)
    return at


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    cell = guarded("" if value is None else str(value))
    if any(character in cell for character in '",\r\n'):
        return '"' + cell.replace('"', '""') + '"'
    return cell


_FIRST_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES: Final = frozenset(column.value for column in COLUMNS)
_READERS: Final[tuple[tuple[Field, Callable[[object], Any]], ...]] = (
    (Field.USERNAME, _username),
    (Field.PASSWORD_HASH, _password_hash),
    (Field.ROLE, _role),
    (Field.DISABLED, _disabled),
    (Field.CREATED_AT, _created_at),
)
