"""Sessions as lines for other programs: one JSON object a line, or CSV that no spreadsheet runs."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from app.domain.families import Family
from app.domain.spreadsheet_cells import harmless

COLUMNS: Final = (
    "id",
    "user_id",
    "username",
    "state",
    "client_id",
    "scope",
    "role",
    "label",
    "device",
    "browser",
    "os",
    "user_agent",
    "first_ip",
    "last_ip",
    "generation",
    "authenticated_at",
    "created_at",
    "last_used_at",
    "idle_expires_at",
    "expires_at",
    "ended_at",
    "end_reason",
    "ended_by",
)


class ExportFormat(StrEnum):
    CSV = "csv"
    NDJSON = "ndjson"


def session_values(family: Family, username: str | None, now: datetime) -> dict[str, Any]:
    """A session's values by column, as JSON knows them."""
    return {
        "id": str(family.id),
        "user_id": str(family.user_id),
        "username": username,
        "state": family.state(now).value,
        "client_id": family.client_id,
        "scope": family.scope,
        "role": family.role.value,
        "label": family.label,
        "device": family.device,
        "browser": family.browser,
        "os": family.os,
        "user_agent": family.user_agent,
        "first_ip": _text(family.created_ip),
        "last_ip": _text(family.last_ip),
        "generation": family.generation,
        "authenticated_at": _time(family.authenticated_at),
        "created_at": _time(family.created_at),
        "last_used_at": _time(family.rotated_at or family.created_at),
        "idle_expires_at": _time(family.idle_expires_at),
        "expires_at": _time(family.expires_at),
        "ended_at": _time(family.ended_at),
        "end_reason": family.end_reason or family.expiry(now),
        "ended_by": _text(family.ended_by),
    }


def heading(form: ExportFormat) -> str:
    """What stands before the first session."""
    return _csv([COLUMNS]) if form is ExportFormat.CSV else ""


def lines(form: ExportFormat, families: Iterable[Family], names: Mapping[UUID, str], now: datetime) -> str:
    """Sessions as lines, each with its end (RFC 4180: CRLF)."""
    rows = [session_values(family, names.get(family.user_id), now) for family in families]
    if form is ExportFormat.CSV:
        return _csv([harmless(row[name]) for name in COLUMNS] for row in rows)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def _time(at: datetime | None) -> str | None:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z") if at else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
