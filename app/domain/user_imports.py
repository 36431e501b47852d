"""Bringing users along: what a line of a file may say, and what can be wrong with it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from app.domain.users import Role

LINE_BYTES: Final = 16_384
BATCH: Final = 2000
MOST_IN_A_BATCH: Final = 10_000
MOST_FAULTS: Final = 1_000_000  # that are told of, even to a program; the rest is counted
SKIPPED_TOLD: Final = 1000  # lines that were left out, by their numbers; the rest is counted


class ImportFormat(StrEnum):
    CSV = "csv"
    NDJSON = "ndjson"


class Field(StrEnum):
    """The columns of a file; `line`: not one of them is to blame."""

    USERNAME = "username"
    PASSWORD_HASH = "password_hash"  # noqa: S105 - a column, not a password
    ROLE = "role"
    DISABLED = "disabled"
    CREATED_AT = "created_at"
    LINE = "line"


COLUMNS: Final = tuple(field for field in Field if field is not Field.LINE)


class Reason(StrEnum):
    """Why a line cannot be taken. Stable codes."""

    # of the line
    LINE_TOO_LONG = "line_too_long"
    NOT_UTF8 = "not_utf8"
    NUL = "nul"
    UNBALANCED_QUOTES = "unbalanced_quotes"
    WRONG_COLUMN_COUNT = "wrong_column_count"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    TOO_DEEP = "too_deep"
    DUPLICATE_MEMBER = "duplicate_member"
    UNKNOWN_MEMBER = "unknown_member"
    # of a field
    MISSING = "missing"
    NOT_TEXT = "not_text"
    NOT_A_BOOLEAN = "not_a_boolean"
    SURROGATE = "surrogate"
    USERNAME_REFUSED = "username_refused"
    DUPLICATE = "duplicate"
    TAKEN = "taken"
    UNKNOWN_ROLE = "unknown_role"
    NOT_A_TIME = "not_a_time"
    IN_THE_FUTURE = "in_the_future"
    HASH_UNKNOWN = "hash_unknown"
    HASH_MALFORMED = "hash_malformed"
    HASH_UNSAFE = "hash_unsafe"
    HASH_AMBIGUOUS = "hash_ambiguous"
    HASH_TOO_COSTLY = "hash_too_costly"
    HASH_DISABLED = "hash_disabled"


@dataclass(frozen=True, slots=True)
class Entry:
    """A user as a line has them. Without a hash they sign in elsewhere, or are yet to be given a password."""

    username: str
    key: str
    password_hash: str | None
    role: Role
    disabled: bool
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class Fault:
    """
    What is wrong with a line, without a word of what it says.

    Args:
        first_line: Of a duplicate: where the name stands first.
    """

    line: int
    field: Field
    reason: Reason
    first_line: int | None = None


@dataclass(frozen=True, slots=True)
class UserImport:
    """
    How far an import has come.

    Args:
        digest: SHA-256 of the file.
        place: SHA-256 of where the file lies: one that was altered there is told apart from a new one.
        lines_done: The last line of the file that is done with.
        total: How many users there are in the file.
        skipped: Lines left out since somebody had taken the name meanwhile; `skipped_lines` are the first of them.
    """

    id: UUID
    digest: bytes
    place: bytes
    size: int
    form: ImportFormat
    total: int
    lines_done: int
    users: int
    admins: int
    disabled: int
    skipped: int
    skipped_lines: tuple[int, ...]
    started_at: datetime
    worked_at: datetime
    finished_at: datetime | None
