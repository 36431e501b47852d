"""`rota users import` and `export`: bringing users along with their hashes, and leaving with them."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TextIO

import typer

from app.cli.exits import Exit
from app.cli.running import AsJson, progress, run
from app.domain.errors import Unavailable
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.user_imports import BATCH, MOST_IN_A_BATCH, Fault, ImportFormat

if TYPE_CHECKING:
    from app.container import Container
    from app.services.import_checks import FaultLog
    from app.services.user_imports import Brought, Checked

FAULTS_SHOWN: Final = 50  # to a person

File = Annotated[Path, typer.Argument(help="CSV with a heading, or one JSON object a line", metavar="FILE")]
Form = Annotated[ImportFormat | None, typer.Option("--format", help="If the file's name does not say it")]
OfForm = Annotated[ImportFormat, typer.Option("--format", help="NDJSON is exact for every program")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Only check the file")]
Size = Annotated[int, typer.Option("--batch", min=1, max=MOST_IN_A_BATCH, help="Users in one transaction")]
Output = Annotated[Path | None, typer.Option(help="A new file, which only you can read", metavar="FILE")]
ToTerminal = Annotated[bool, typer.Option("--to-terminal", help="Print password hashes on the screen")]


def import_users(
    file: File,
    form: Form = None,
    dry_run: Dry = False,  # noqa: FBT002 - Typer's form
    batch: Size = BATCH,
    as_json: AsJson = False,  # noqa: FBT002 - likewise
) -> None:
    """
    Make an account for each line: username, password_hash, role, disabled, created_at; only the first is needed.

    The whole file is checked first, and nothing is written if any line is faulty. Broken off, the same command goes on
    where it was. Which hashes are understood stands in docs/administration/importing.md.
    """
    brought = _bring(file, form, dry_run=dry_run, batch=batch)
    checked = brought.checked
    if checked is not None and checked.faults:
        _report(checked, as_json=as_json)
        raise typer.Exit(Exit.CHECK_FAILED)
    data = _summary(brought, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps(data))
        return
    typer.echo(_words(data, file))
    if lines := data["skipped_lines"]:
        told = ", ".join(str(line) for line in lines[:FAULTS_SHOWN])
        more = data["skipped"] - len(lines[:FAULTS_SHOWN])
        typer.echo(
            f"Left out, since somebody had taken the name meanwhile (taken): line {told}"
            + (f", and {more} more" if more else ""),
            err=True,
        )


def export_users(
    form: OfForm = ImportFormat.NDJSON,
    output: Output = None,
    to_terminal: ToTerminal = False,  # noqa: FBT002 - Typer's form
) -> None:
    """
    Write all users with their password hashes, as `import` reads them. That you did is an event.

    Deleted users are not in it, and neither are one-time passwords.
    """
    if output is None and sys.stdout.isatty() and not to_terminal:
        raise typer.BadParameter("this prints password hashes: say --output FILE, or --to-terminal")

    async def work(services: "Container") -> int:
        from app.services.user_exports import UserExport  # noqa: PLC0415 - as the services, only when needed

        with _opened(output) as target:
            export: UserExport = await services.user_exports.begin(form, actor=SYSTEM, client=NO_CLIENT)
            try:
                with progress("exporting") as told:
                    async for piece in services.user_exports.pieces(export):
                        target.write(piece)
                        told(export.count, export.count)
                target.flush()
            except BaseException:
                export.whole = False
                raise
            finally:
                await services.user_exports.finish(export)
        return export.count

    try:
        count = run(work, quiet=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of it must not fail again
        raise typer.Exit(Exit.FAILURE) from None
    typer.echo(f"users: {count}", err=True)


def _bring(file: Path, form: ImportFormat | None, *, dry_run: bool, batch: int) -> "Brought":
    try:
        with progress(file.name, rate=True) as draw:

            async def work(services: "Container") -> "Brought":
                return await services.user_imports.bring(
                    file,
                    form,
                    actor=SYSTEM,
                    client=NO_CLIENT,
                    dry_run=dry_run,
                    size=batch,
                    told=lambda what, done, total: draw(done, total, what),
                )

            return run(work, quiet=True)
    except (KeyboardInterrupt, Unavailable) as broken:
        typer.echo("Broken off; what is written stays. The same command goes on where it was.", err=True)
        if isinstance(broken, Unavailable):
            raise
        raise typer.Exit(Exit.TRY_AGAIN) from None


def _report(checked: "Checked", *, as_json: bool) -> None:
    faults = checked.faults
    if as_json:
        _report_json(checked)
    else:
        for shown, fault in enumerate(faults):
            if shown == FAULTS_SHOWN:
                typer.echo(f"and {len(faults) - shown} more; --json tells of all")
                break
            first = f" (first in line {fault.first_line})" if fault.first_line else ""
            typer.echo(f"line {fault.line}: {fault.field}: {fault.reason}{first}")
        if faults.unknown:
            typer.echo(f"columns that are not known: {', '.join(faults.unknown)}")
    typer.echo(f"Nothing was written: faults: {len(faults)}, in {faults.lines} of the file's lines.", err=True)


def _report_json(checked: "Checked") -> None:
    """Piece by piece: there may be a million."""
    faults = checked.faults
    head = {
        "written": False,
        "users": checked.total,
        "faulty_lines": faults.lines,
        "fault_count": len(faults),
        "faults_not_told": faults.not_told,
        "unknown_columns": faults.unknown,
    }
    sys.stdout.write(json.dumps(head)[:-1] + ', "faults": [')
    for number, piece in enumerate(_plain_faults(faults)):
        sys.stdout.write((", " if number else "") + json.dumps(piece))
    sys.stdout.write("]}\n")


def _plain_faults(faults: "FaultLog") -> Iterator[dict[str, Any]]:
    fault: Fault
    for fault in faults:
        plain: dict[str, Any] = {"line": fault.line, "field": fault.field, "reason": fault.reason}
        if fault.first_line is not None:
            plain["first_line"] = fault.first_line
        yield plain


def _summary(brought: "Brought", *, dry_run: bool) -> dict[str, Any]:
    done, checked = brought.done, brought.checked
    counts: Any = done if done is not None and (not dry_run or checked is None) else checked
    return {
        "id": str(done.id) if done else None,
        "written": not dry_run and checked is not None,
        "done_before": checked is None,
        "resumed": done is not None and checked is not None and done.lines_done > 0 and brought.before > 0,
        "users": checked.total if counts is checked and checked is not None else counts.users,
        "users_before": brought.before,
        "admins": counts.admins,
        "disabled": counts.disabled,
        "without_password": checked.without_password if checked else None,
        "skipped": done.skipped if done else 0,
        "skipped_lines": list(done.skipped_lines) if done else [],
        "faults": [],
        "fault_count": 0,
    }


def _words(data: dict[str, Any], file: Path) -> str:
    counts = f"{data['users']} (administrators: {data['admins']}, disabled: {data['disabled']})"
    if data["done_before"]:
        return f"{file.name} is imported already; users: {counts}"
    if not data["written"]:
        return f"{file.name} can be imported; users: {counts}"
    earlier = f", of them {data['users_before']} by an earlier run" if data["users_before"] else ""
    return f"Imported users: {counts}{earlier}"


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """
    Standard output, or a new file that only its owner can read; one that was not written to the end is removed.

    Raises:
        typer.BadParameter: there is something of that name.
    """
    if output is None:
        yield sys.stdout
        return
    try:
        made = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise typer.BadParameter(f"{output} is there already") from None
    except OSError as error:
        raise typer.BadParameter(f"{output} cannot be written: {error.strerror}") from None
    whole = False
    try:
        with open(made, "w", encoding="utf-8", newline="") as target:  # noqa: PTH123 - a descriptor
            yield target
            target.flush()
            os.fsync(made)
        whole = True
    finally:
        if not whole:
            output.unlink(missing_ok=True)
