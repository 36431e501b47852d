"""`rota db`: the schema's migrations, as whoever deploys and whoever owns the database see them."""

import asyncio
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.exits import Exit
from app.cli.running import AsJson, say
from app.cli.schema import downgrade_schema, find_drift, upgrade_schema
from app.domain.errors import InputInvalid, RotaError
from app.observability.logs import configure_logs
from app.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.domain.schema import Revision
    from app.services.migrations import Moved, Status

commands = typer.Typer(help="The database's schema. Uses ROTA_MIGRATION_DATABASE_URL, else ROTA_DATABASE_URL.")


class Extent(StrEnum):
    EXPAND = "expand"
    ALL = "all"


Wait = Annotated[float, typer.Option(help="Seconds to wait for another migration", min=0, max=86_400)]


@commands.command()
def upgrade(
    phase: Annotated[
        Extent, typer.Option(help="expand: only what the release that serves now also runs on")
    ] = Extent.ALL,
    to: Annotated[str, typer.Option(help="The last revision to apply")] = "head",
    wait: Wait = 300,
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """
    Apply what is pending.

    Any number may run at once: one works, the others wait and find nothing to do. Killed, it can be run again. Exit
    codes: 5 the schema has an INVALID index or a constraint that was not validated, 75 try again.
    """
    configure_logs("console")
    _said(upgrade_schema(load_settings().migration_url, to, phase=phase, wait_seconds=wait), "applied", as_json)


@commands.command(context_settings={"ignore_unknown_options": True})
def downgrade(
    to: Annotated[str, typer.Argument(metavar="REV", help="The revision to go back to, `base`, or -N steps")] = "-1",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,  # noqa: FBT002 - Typer's form
    wait: Wait = 300,
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """Go back. What this takes away is what `rota db plan --all` says under `back`."""
    configure_logs("console")
    settings = load_settings()
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("this may drop data: say --yes")
        typer.confirm(f"Go back to {to}? This may drop data.", abort=True, err=True)
    _said(downgrade_schema(settings.migration_url, to, wait_seconds=wait), "undone", as_json)


@commands.command()
def status(as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Where the schema is, what is pending, and whether this release can serve it."""
    revisions, found = _look()
    data = _as_data(revisions, found)
    lines = [f"at {data['current']}, this release's last is {data['head']}"]
    if data["pending"]:
        lines.append(f"pending: {', '.join(data['pending'])}")
    if data["unknown"]:
        lines.append(
            f"of a newer release: {', '.join(data['unknown'])}; it needs Rota {data['oldest_release']} or later"
        )
    lines += found.findings
    lines.append(data["why"] or f"Rota {data['release']} can serve it.")
    say(data, "\n".join(lines), as_json)


@commands.command()
def check(as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Exit with 5 if anything is pending, differs from the models, or was left INVALID or NOT VALID."""
    revisions, found = _look()
    findings = found.findings
    if found.verdict.pending:
        findings.append(f"pending: {', '.join(revision.id for revision in found.verdict.pending)}")
    elif not found.verdict.unknown and (drift := find_drift(load_settings().migration_url)) is not None:
        findings.append(f"drift: {drift}")
    if found.verdict.refusal is not None and not found.verdict.pending:
        findings.append(found.verdict.refusal.message)
    say({**_as_data(revisions, found), "findings": findings}, "\n".join(findings) or "nothing to do", as_json)
    if findings:
        raise typer.Exit(Exit.CHECK_FAILED)


@commands.command()
def wait(timeout: Annotated[float, typer.Option(help="Seconds", min=0, max=86_400)] = 60) -> None:
    """Wait until this release can serve the schema; exit with 75 if it cannot by then. For the server's own login."""
    from app.services.migrations import read_revisions, wait_until_served  # noqa: PLC0415 - as below

    configure_logs("console")
    try:
        asyncio.run(wait_until_served(load_settings().direct_url, read_revisions(), seconds=timeout))
    except RotaError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(Exit.REFUSED if error.code == "schema_too_new" else Exit.TRY_AGAIN) from None


@commands.command()
def plan(
    all_: Annotated[bool, typer.Option("--all", help="Every revision; needs no database")] = False,  # noqa: FBT002 - Typer's form
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """Say of each pending revision what it does, which locks it takes, whether it rewrites, and how to go back."""
    from app.services.sql_scripts import describe  # noqa: PLC0415 - as below

    chosen = _all_or_pending(every=all_)
    words = "\n\n".join(describe(revision) for revision in chosen) or "Nothing is pending."
    say({"pending": [_revision_data(revision) for revision in chosen]}, words, as_json)


@commands.command()
def sql(
    span: Annotated[str | None, typer.Argument(metavar="[FROM:TO]", help="Which revisions; needs no database")] = None,
) -> None:
    """Print what is pending, or a range such as base:head, as SQL for psql."""
    from app.services.migrations import read_revisions  # noqa: PLC0415 - as below
    from app.services.sql_scripts import between, script  # noqa: PLC0415 - as below

    try:
        chosen = _all_or_pending(every=False) if span is None else between(read_revisions(), span)
    except InputInvalid as error:
        raise typer.BadParameter(error.message) from None
    typer.echo(script(chosen), nl=False)


def _all_or_pending(*, every: bool) -> "Sequence[Revision]":
    from app.services.migrations import read_revisions  # noqa: PLC0415 - as below

    return read_revisions() if every else _look()[1].verdict.pending


def _look() -> "tuple[list[Revision], Status]":
    from app.services.migrations import look, read_revisions  # noqa: PLC0415 - the database's libraries, only here

    configure_logs("console")
    revisions = read_revisions()
    return revisions, asyncio.run(look(load_settings().migration_url, revisions))


def _as_data(revisions: "Sequence[Revision]", found: "Status") -> dict[str, Any]:
    from app import __version__  # noqa: PLC0415 - beside its only use

    refusal = found.verdict.refusal
    return {
        "release": __version__,
        "current": found.current,
        "head": revisions[-1].id,
        "pending": [revision.id for revision in found.verdict.pending],
        "unknown": list(found.verdict.unknown),
        "oldest_release": found.verdict.oldest_release,
        "served": refusal is None,
        "why": refusal.message if refusal else None,
        "invalid_indexes": list(found.invalid_indexes),
        "unvalidated_constraints": list(found.unvalidated),
    }


def _revision_data(revision: "Revision") -> dict[str, Any]:
    notes = revision.notes
    return {
        "revision": revision.id,
        "after": revision.before,
        "title": notes.title,
        "why": notes.why,
        "locks": notes.locks,
        "how_long": notes.how_long,
        "rewrites": revision.rewrites,
        "phase": revision.phase,
        "oldest_release": revision.oldest_release,
        "back": notes.back,
        "needs": notes.needs or None,
    }


def _said(moved: "Moved", word: str, as_json: bool) -> None:  # noqa: FBT001 - handed through
    data = {"from": moved.before, "to": moved.after, word: list(moved.steps), "duration_ms": moved.duration_ms}
    steps = f"{word} {', '.join(moved.steps)}" if moved.steps else "nothing to do"
    say(data, f"The schema is at {moved.after}: {steps} ({moved.duration_ms / 1000:.1f} s).", as_json)
