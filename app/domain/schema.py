"""What a revision of the database's schema declares, and whether a release can serve a schema."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.domain.errors import RotaError

SECTIONS: Final = ("Why", "Locks", "How long", "Back", "Needs")  # the last may be missing
BASE: Final = "base"  # an empty database

_RELEASE: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)")


class Phase(StrEnum):
    """
    When a revision may run, seen from the release that brings it.

    The former release runs on what `EXPAND` and `MIGRATE` make; `CONTRACT` takes away what only it needed.
    """

    EXPAND = "expand"
    MIGRATE = "migrate"
    CONTRACT = "contract"


class MigrationRunning(RotaError):
    """Somebody else migrates this database, and went on longer than we were to wait."""

    code = "migration_running"
    message = "Another migration is running."


class MigrationBlocked(RotaError):
    """A revision did not get its locks; it was rolled back and can be run again."""

    code = "migration_blocked"


class MigrationLockLost(RotaError):
    """The connection that holds the runner's lock is gone, so somebody else may begin: all work was stopped."""

    code = "migration_lock_lost"
    message = "The connection that holds the migration's lock was lost; the work was stopped. Run it again."


class MigrationFailed(RotaError):
    """A statement of a revision was refused by the database."""

    code = "migration_failed"


class PoolerInTheWay(RotaError):
    """Between us and the database stands something that hands each transaction to another of its sessions."""

    code = "pooler_in_the_way"
    message = (
        "A transaction pooler stands before the database, where a migration's lock protects nothing: "
        "set ROTA_MIGRATION_DATABASE_URL to a URL that leads to the database itself."
    )


class SchemaUnsound(RotaError):
    """The schema has something that no revision means to leave behind."""

    code = "schema_unsound"


class SchemaTooOld(RotaError):
    code = "schema_too_old"


class SchemaTooNew(RotaError):
    code = "schema_too_new"


class DocstringInvalid(ValueError):
    """A revision's docstring is not in the form that `plan` prints."""


@dataclass(frozen=True, slots=True)
class Notes:
    """A revision's docstring: one sentence, then its sections, each a paragraph of one line."""

    title: str
    why: str
    locks: str
    how_long: str
    back: str
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of the schema, as its file declares it. `oldest_release` is the oldest that may run after it."""

    id: str
    before: str  # the revision before it, or `BASE`
    phase: Phase
    oldest_release: str
    rewrites: bool
    notes: Notes
    source: str


@dataclass(frozen=True, slots=True)
class Applied:
    """A revision that a database has, as whoever applied it declared it."""

    id: str
    oldest_release: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a schema stands to a release. `refusal` says in one sentence why it cannot be served, and what to do."""

    pending: tuple[Revision, ...]
    unknown: tuple[str, ...]
    oldest_release: str
    refusal: SchemaTooOld | SchemaTooNew | None


def read_notes(docstring: str) -> Notes:
    """
    Read a revision's docstring: a title, an empty line, then `Why:`, `Locks:`, `How long:`, `Back:`, perhaps `Needs:`.

    Raises:
        DocstringInvalid: a section is missing, empty, unknown, out of order or there twice.
    """
    title, _, body = docstring.strip().partition("\n\n")
    found: dict[str, str] = {}
    for line in body.splitlines():
        name, colon, text = line.partition(": ")
        if colon and name in SECTIONS:
            if name in found:
                raise DocstringInvalid(f"{name} stands twice")
            found[name] = text
        elif found and line.strip():
            last = next(reversed(found))
            found[last] += " " + line.strip()
        elif line.strip():
            raise DocstringInvalid(f"{line.strip()!r} belongs to no section")
    wanted = [name for name in SECTIONS if name in found or name != "Needs"]
    if list(found) != wanted:
        raise DocstringInvalid(f"its sections must be {', '.join(SECTIONS[:-1])}, in this order")
    sentences = [" ".join(title.split()), *(text.strip() for text in found.values())]
    if not all(sentences):
        raise DocstringInvalid("a section is empty")
    return Notes(*sentences)


def release_order(release: str) -> tuple[int, ...]:
    """
    What releases compare by.

    Raises:
        ValueError: not `1.2.3`, with or without a suffix.
    """
    found = _RELEASE.match(release)
    if found is None:
        raise ValueError(f"not a release: {release!r}")
    return tuple(int(part) for part in found.groups())


def expanding(pending: Iterable[Revision]) -> list[Revision]:
    """Those that may run while the former release still serves: up to the first that is not `EXPAND`."""
    taken: list[Revision] = []
    for revision in pending:
        if revision.phase is not Phase.EXPAND:
            break
        taken.append(revision)
    return taken


def judge(known: Sequence[Revision], applied: Collection[Applied], release: str) -> Verdict:
    """
    Whether a release can serve a schema.

    Args:
        known: The release's own revisions, in order.
        applied: What the database has; a newer release's revisions say for themselves who may run on them.
    """
    have = {one.id for one in applied}
    pending = tuple(revision for revision in known if revision.id not in have)
    unknown = tuple(sorted(have - {revision.id for revision in known}))
    oldest = max((one.oldest_release for one in applied), key=release_order, default="0.0.0")
    refusal: SchemaTooOld | SchemaTooNew | None = None
    if any(revision.phase is Phase.EXPAND for revision in pending):
        what = "has no schema" if not have else f"lacks {', '.join(revision.id for revision in pending)}"
        refusal = SchemaTooOld(f"The database {what}; run `rota db upgrade`.")
    if release_order(oldest) > release_order(release):
        refusal = SchemaTooNew(
            f"The database's schema is too new for Rota {release}: it needs {oldest} or later; "
            "run that release, or go back with its `rota db downgrade`."
        )
    return Verdict(pending, unknown, oldest, refusal)
