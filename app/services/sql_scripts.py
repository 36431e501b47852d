"""Revisions as SQL that a DBA can read, keep and run with psql."""

import io
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.domain.errors import InputInvalid
from app.domain.schema import BASE, Revision
from app.repositories.migrations import LOCK_TIMEOUT, LOCKS, RUNNER, STATEMENT_TIMEOUT, UNBOUNDED, WORKER
from app.services.migrations import configuration

WIDTH: Final = 116

_BOUNDED: Final = f"SET lock_timeout = '{LOCK_TIMEOUT}';\nSET statement_timeout = '{STATEMENT_TIMEOUT}';\n"
_UNBOUNDED: Final = "SET lock_timeout = 0;\nSET statement_timeout = 0;"
_LOCK: Final = f"""\
-- The lock of `rota db upgrade`: no runner begins beside this script.
DO $$
BEGIN
  IF NOT (pg_try_advisory_lock({LOCKS}, {RUNNER}) AND pg_try_advisory_lock({LOCKS}, {WORKER})) THEN
    RAISE EXCEPTION 'another migration is running';
  END IF;
END
$$;
"""
_UNLOCK: Final = f"""\
DO $$
BEGIN
  PERFORM pg_advisory_unlock({LOCKS}, {RUNNER}), pg_advisory_unlock({LOCKS}, {WORKER});
END
$$;
"""
_AT: Final = """\
-- The database must be where this script begins.
DO $$
BEGIN
  IF {condition} THEN
    RAISE EXCEPTION 'the database is not at {revision}';
  END IF;
END
$$;
"""


def describe(revision: Revision) -> str:
    """What a DBA wants to know before it runs."""
    notes = revision.notes
    lines = [f"{revision.id}  {notes.title}", ""]
    rows = {
        "why": notes.why,
        "locks": notes.locks,
        "how long": notes.how_long,
        "rewrites": "yes: a table is written anew" if revision.rewrites else "no table",
        "phase": f"{revision.phase}; Rota {revision.oldest_release} and later run on it",
        "back": notes.back,
        **({"needs": notes.needs} if notes.needs else {}),
    }
    for name, words in rows.items():
        lines += textwrap.wrap(words, WIDTH - 14, initial_indent=f"  {name:<10}", subsequent_indent=" " * 12)
    return "\n".join(lines)


def statements(revision: Revision, path: Path | None = None) -> str:
    """One revision: what `plan` says of it as a comment, then its statements with transactions and bookkeeping."""
    from alembic import command  # noqa: PLC0415 - half a second that most commands need not spend
    from alembic.config import Config  # noqa: PLC0415 - likewise

    printed = io.StringIO()
    config = Config(str(path or configuration()), output_buffer=printed)
    config.attributes["database_url"] = ""  # it connects to nothing
    command.upgrade(config, f"{revision.before}:{revision.id}", sql=True)
    body = re.sub(r"^-- Running upgrade .*\n+|[ \t]+$", "", printed.getvalue(), flags=re.MULTILINE)
    said = "\n".join(f"-- {line}".rstrip() for line in describe(revision).splitlines())
    return f"{said}\n\n{_BOUNDED}\n{_unbound(body)}"


def _unbound(body: str) -> str:
    """Lift the bounds around statements that stand outside any transaction and keep nobody waiting."""
    made: list[str] = []
    lifted = False
    for part in re.sub(r"\n{3,}", "\n\n", body.strip()).split("\n\n"):
        free = UNBOUNDED.match(part) is not None and _is_outside("\n".join(made))
        if free != lifted:
            made.append(_UNBOUNDED if free else _BOUNDED.strip())
        lifted = free
        made.append(part)
    return "\n\n".join(made) + "\n"


def _is_outside(before: str) -> bool:
    words = re.findall(r"^(BEGIN|COMMIT);$", before, re.MULTILINE)
    return bool(words) and words[-1] == "COMMIT"


def script(revisions: Sequence[Revision]) -> str:
    """
    These revisions, which follow each other, for psql.

    It stops at the first error, keeps runners out, and refuses a database that is somewhere else. Each revision is a
    transaction; what was committed before an error stays, and the rest can be printed again.
    """
    if not revisions:
        return "-- Nothing is pending.\n"
    first = revisions[0].before
    condition = (
        "to_regclass('alembic_version') IS NOT NULL"
        if first == BASE
        else f"(SELECT string_agg(version_num, ',') FROM alembic_version) IS DISTINCT FROM '{first}'"  # noqa: S608 - ours
    )
    head = f"\\set ON_ERROR_STOP on\n\n{_LOCK}\n{_AT.format(condition=condition, revision=first)}"
    return "\n".join([head, *(statements(revision) for revision in revisions), _UNLOCK])


def between(revisions: Sequence[Revision], span: str) -> list[Revision]:
    """
    The revisions after FROM up to and with TO; a side that is left out is the beginning or the end.

    Raises:
        InputInvalid: not `FROM:TO`, or a revision that there is not.
    """
    after, colon, to = span.partition(":")
    known = [BASE, *(revision.id for revision in revisions)]
    to = known[-1] if to in {"", "head"} else to
    after = after or BASE
    if not colon or after not in known or to not in known:
        raise InputInvalid(f"A range is FROM:TO, each {BASE} or one of {', '.join(known[1:])}.")
    return list(revisions[known.index(after) : known.index(to)])
