"""What is noted of each statement: that it was slow, that it failed, a span. Never a value."""

import re
from functools import lru_cache
from typing import Final

from app.observability.logs import get_logger
from app.observability.metrics import SLOW_STATEMENTS
from app.observability.traces import Traces

log = get_logger()

SHAPE_CHARACTERS: Final = 400
_TARGET: Final = re.compile(
    r"\b(INSERT\s+INTO|UPDATE|DELETE\s+FROM|FROM|INTO|TABLE)\s+(?:ONLY\s+)?\"?([a-z_][a-z0-9_]*)", re.IGNORECASE
)
_CHANGE: Final = re.compile(
    r"\b(INSERT)\s+INTO\s|\b(DELETE)\s+FROM\s|\b(UPDATE)\s+\"?[a-z_]+\"?\s+(?:AS\s+\w+\s+)?SET\b", re.IGNORECASE
)
_CALLED: Final = re.compile(r"\bSELECT\s+\"?([a-z_][a-z0-9_]*)\(", re.IGNORECASE)
_MONTH: Final = re.compile(r"_\d{4}_\d{2}\b")
_LITERAL: Final = re.compile(r"\$(\w*)\$.*?\$\1\$|[EeBbXxUu]?&?'(?:[^']|'')*'|(?<![\w$])\d+(?:\.\d+)?\b", re.DOTALL)
_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


class StatementWatch:
    """
    Args:
        slow_seconds: A statement that takes longer is told of in the log.
    """

    def __init__(self, *, slow_seconds: float, traces: Traces | None) -> None:
        self._slow_seconds = slow_seconds
        self._traces = traces

    def note(self, statement: str, seconds: float, failure: str | None = None) -> None:
        """A statement is over. `failure`: the class of what it failed with."""
        if self._traces is not None:
            self._traces.statement(operation_of(statement), seconds, failure)
        if seconds >= self._slow_seconds:
            SLOW_STATEMENTS.add()
            log.warning(
                "statement.slow",
                operation=operation_of(statement),
                milliseconds=round(1000 * seconds),
                shape=shape_of(statement),
                failure=failure,
            )


@lru_cache(maxsize=1024)
def operation_of(statement: str) -> str:
    """A name for a statement: what it does to which table, such as `UPDATE families`."""
    bare = _COMMENT.sub(" ", statement).strip()
    word = bare.partition(" ")[0].partition("\n")[0].upper()
    if word == "WITH":
        change = _CHANGE.search(bare)
        word = next((found.upper() for found in change.groups() if found), "SELECT") if change else "SELECT"
    if word not in {"SELECT", "INSERT", "UPDATE", "DELETE"}:
        return word if word.isalpha() else "OTHER"
    target = None
    if word == "SELECT":
        target = next((m for m in _TARGET.finditer(bare) if m.group(1).upper() == "FROM"), None) or _CALLED.search(bare)
    else:
        target = next((m for m in _TARGET.finditer(bare) if m.group(1).upper().startswith(word)), None)
    name = target.group(target.lastindex or 1).lower() if target else ""
    return f"{word} {_MONTH.sub('', name)}".strip()


@lru_cache(maxsize=256)
def shape_of(statement: str) -> str:
    """A statement without comments, literals and line breaks; parameters stay what they are, `$1`."""
    bare = " ".join(_LITERAL.sub("?", _COMMENT.sub(" ", statement)).split())
    return bare if len(bare) <= SHAPE_CHARACTERS else bare[:SHAPE_CHARACTERS] + "…"
