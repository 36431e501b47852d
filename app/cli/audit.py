"""`rota audit`: sealing, exporting, proving and reading the trail."""

import asyncio
import csv
import gc
import json
import os
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TextIO
from uuid import UUID

import typer

from app.cli.exits import Exit
from app.cli.running import AsJson, parse_time, progress, run, say
from app.cli.trail import plain, search, tail
from app.cli.verify import verify, verify_folder
from app.domain.entries import SealedFields
from app.domain.errors import RotaError
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.spreadsheet_cells import harmless
from app.observability.logs import get_logger
from app.security.notes import NoteSigner, new_key
from app.settings import SettingsInvalid, load_settings

if TYPE_CHECKING:
    from app.container import Container
    from app.services.publishing import Publishing
    from app.services.reconciliation import Reconciled

commands = typer.Typer(help="The audit trail.", no_args_is_help=True)
commands.command("verify")(verify)
commands.command("search")(search)
commands.command("tail")(tail)

From = Annotated[str | None, typer.Option("--from", help="ISO 8601, UTC unless it says otherwise; inclusive")]
To = Annotated[str | None, typer.Option("--to", help="likewise, inclusive to the microsecond")]

SEAL_SECONDS: Final = 0.5
DELAYED_SECONDS: Final = 2.0

log = get_logger()


class Format(StrEnum):
    BUNDLE = "bundle"
    NDJSON = "ndjson"
    CSV = "csv"


@commands.command("new-key")
def make_key(path: Annotated[Path, typer.Argument(help="Where to write the private key; must not exist")]) -> None:
    """Make a key for signing checkpoints, and print the public key that auditors need."""
    key = new_key()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(key + "\n")
    except FileExistsError:
        typer.echo(f"{path} is there already; nothing was changed", err=True)
        raise typer.Exit(Exit.REFUSED) from None
    typer.echo("The private key is in the file. `rota audit key` prints the public key for auditors.", err=True)


@commands.command("key")
def show_key() -> None:
    """Print the public key (vkey) of each incarnation of this log, for `rota audit verify --keys`."""

    async def work(services: "Container") -> list[str]:
        return await services.sealing.list_origins()

    settings = load_settings()
    signer = _signer(settings.audit_signing_key.get_secret_value())
    for origin in run(work) or [settings.log_origin]:
        typer.echo(str(signer.key(origin)))


@commands.command()
def seal(
    watch: Annotated[bool, typer.Option(help="Go on until stopped")] = False,  # noqa: FBT002 - Typer's form
) -> None:
    """
    Seal what has committed, sign it and publish it: with --watch as a process of its own.

    Exit code 5 if the published history is not a beginning of this database's.
    """

    gc.set_threshold(200_000, 20, 50)  # rows by the thousand and no cycles: a fifth faster than with the usual ones

    async def work(services: "Container") -> None:
        publishing = _publishing(services)
        while True:
            try:
                while await services.sealing.seal():
                    pass
                await publishing.publish()
                if not watch:
                    return
                await publishing.beat()
                await services.sealing.watch()
            except RotaError as error:
                # What passes is waited out; a history that is not ours is for the operator.
                if not watch or error.code not in {"temporarily_unavailable", "sink_unavailable"}:
                    raise
                log.warning("audit.delayed", code=error.code, why=error.why)
                await asyncio.sleep(DELAYED_SECONDS)
            await asyncio.sleep(SEAL_SECONDS)

    run(work)


@commands.command("status")
def show_status(as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """How far the trail is sealed and signed, and who holds it up."""

    async def work(services: "Container") -> dict[str, Any]:
        status = await services.sealing.status()
        if status is None:
            return {}
        return {
            "origin": status.origin,
            "epoch": status.epoch,
            "tree_size": status.tree_size,
            "lag_seconds": round(status.lag_seconds, 3),
            "blockers": [
                {
                    "kind": holder.kind,
                    "pid": holder.pid,
                    "database": holder.database,
                    "login": holder.username,
                    "application": holder.application,
                    "state": holder.state,
                    "since": holder.since and holder.since.isoformat(),
                }
                for holder in status.holders
            ],
            "checkpoint_size": status.checkpoint_size,
            "checkpoint_at": status.checkpoint_at and status.checkpoint_at.isoformat(),
        }

    found = run(work)
    words = "\n".join(f"{name}: {value}" for name, value in found.items()) if found else "Nothing is sealed yet."
    say(found, words, as_json)


@commands.command("open-epoch")
def open_epoch(
    reason: Annotated[str, typer.Option(help="Why: it becomes part of the log's first entry")],
) -> None:
    """
    After a restore: begin a further incarnation of the log, whose first entry names the last published checkpoint.

    Needs ROTA_MAINTENANCE_DATABASE_URL. Everything in the database is sealed anew under the new name.
    """
    if not 3 <= len(reason) <= 500:  # noqa: PLR2004 - a sentence
        raise typer.BadParameter("a reason has 3 to 500 characters")

    async def work(services: "Container") -> tuple[str, "Publishing"]:
        publishing = _publishing(services)
        return await publishing.open_epoch(reason, maintenance=services.maintenance), publishing

    origin, _ = run(work)
    signer = _signer(load_settings().audit_signing_key.get_secret_value())
    typer.echo(f"The log is now {origin}. Its public key for auditors:", err=True)
    typer.echo(str(signer.key(origin)))


@commands.command()
def export(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to; a bundle needs it")] = None,
    form: Annotated[Format, typer.Option("--format", help="bundle: with proofs, for `verify`")] = Format.BUNDLE,
    since: From = None,
    until: To = None,
    personal: Annotated[  # noqa: FBT002 - Typer's form
        bool, typer.Option("--personal-data/--no-personal-data", help="Whether addresses and agents go with it")
    ] = True,
) -> None:
    """Export the trail: a bundle that anybody can verify offline, or a list for other programs."""
    start, end = parse_time(since), parse_time(until)
    if form is Format.BUNDLE and output is None:
        raise typer.BadParameter("a bundle is a directory: say where with --output")

    async def work(services: "Container") -> None:
        await services.exports.announce(form.value, start, end, actor=SYSTEM, client=NO_CLIENT)
        with progress(f"exporting {form}") as tell:
            if form is Format.BUNDLE and output is not None:
                span = await services.exports.span(start, end)
                manifest = await services.exports.write_bundle(
                    output, span, since=start, until=end, personal=personal, progress=tell
                )
                typer.echo(f"{output}: entries {manifest.first} to {manifest.last - 1} of {manifest.size}", err=True)
                return
            total, done = await services.exports.count(start, end), 0
            with _opened(output) as file:
                lines = _Lines(file, form, personal=personal)
                async for page in services.exports.pages(start, end):
                    lines.write(page)
                    done += len(page)
                    tell(done, total)

    try:
        run(work)
    except OSError as error:
        typer.echo(f"The export cannot be written: {error.strerror or error}", err=True)
        raise typer.Exit(Exit.FAILURE) from None


@commands.command()
def prove(
    event: Annotated[UUID, typer.Argument(help="The event's id")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to; else standard output")] = None,
) -> None:
    """Write the proof that an event is in the signed tree: a C2SP tlog-proof, whose extra data is the entry."""

    async def work(services: "Container") -> str:
        proof = await services.proofs.prove(event)
        await services.trail.record("proof", {"event": str(event)}, 1, SYSTEM, NO_CLIENT)
        return proof.text()

    text = run(work)
    with _opened(output) as file:
        file.write(text)


@commands.command()
def reconcile(as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Fold the events into states and compare them with the tables. Exit code 5 if anything differs."""

    async def work(services: "Container") -> "Reconciled":
        with progress("reconciling users") as tell:
            return await services.reconciliation.run(progress=tell, actor=SYSTEM, client=NO_CLIENT)

    found = run(work)
    differences = [{"place": place, "what": what} for place, what in found.differences]
    data = {
        "users": found.users,
        "sessions": found.sessions,
        "removed": found.removed,
        "events": found.events,
        "differences": differences,
    }
    words = [f"{place}: {what}" for place, what in found.differences]
    words.append(
        f"{found.users} users, {found.sessions} sessions and {found.removed} removed, {found.events} events, "
        f"{len(differences)} differences"
    )
    say(data, "\n".join(words), as_json)
    raise typer.Exit(Exit.CHECK_FAILED if differences else Exit.OK)


@commands.command()
def check(as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Check triggers, partitions, and that nothing came or went behind the seal. Exit code 5 if anything is wrong."""

    async def work(services: "Container") -> list[tuple[str, str]]:
        return await services.guard.check_all()

    found = run(work)
    words = "\n".join(f"{reason}: {what}" for reason, what in found) or "nothing is wrong"
    say({"findings": [{"reason": reason, "what": what} for reason, what in found]}, words, as_json)
    raise typer.Exit(Exit.CHECK_FAILED if found else Exit.OK)


@commands.command()
def retain(
    archive: Annotated[Path, typer.Option(help="Directory that gets a bundle of each month before it is removed")],
    personal: Annotated[  # noqa: FBT002 - Typer's form
        bool, typer.Option("--personal-data/--no-personal-data", help="Whether addresses and agents are archived")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is due")] = False,  # noqa: FBT002
) -> None:
    """
    Export, verify and remove the months older than ROTA_AUDIT_RETENTION_DAYS.

    Needs a login that may act as rota_owner in ROTA_MAINTENANCE_DATABASE_URL. What remains still verifies. An archive
    is out of reach for `rota users erase`, so addresses and agents are left out of it unless you ask for them.
    """

    async def work(services: "Container") -> None:
        from app.command_services import build_retention  # noqa: PLC0415 - as in `run`

        retention, owner = build_retention(services)
        signer = _signer(services.settings.audit_signing_key.get_secret_value())
        try:
            async for due in retention.list_due():
                typer.echo(f"{due.name}: {due.events} events, entries {due.first_index} to {due.last_index}", err=True)
                if dry_run:
                    continue
                keys = [signer.key(due.span.head.origin)] if due.span else []
                with progress(f"exporting {due.name}") as tell:
                    bundle = await retention.remove(
                        due, archive, personal=personal, verify=partial(verify_folder, trusted=keys), progress=tell
                    )
                typer.echo(str(bundle or "empty"))
        finally:
            await owner.close()

    run(work)


class _Lines:
    """Events as lines."""

    def __init__(self, file: TextIO, form: Format, *, personal: bool) -> None:
        self._file = file
        self._csv = csv.writer(file, lineterminator="\r\n") if form is Format.CSV else None
        self._personal = personal
        if self._csv:
            self._csv.writerow(SealedFields._fields)

    def write(self, page: list[SealedFields]) -> None:
        for event in page:
            values = plain(event, personal=self._personal)
            if self._csv:
                values["detail"] = event.detail
                self._csv.writerow([harmless(values[name]) for name in SealedFields._fields])
            else:
                self._file.write(json.dumps(values, ensure_ascii=False) + "\n")


def _opened(path: Path | None) -> Any:
    if path is None:
        from contextlib import nullcontext  # noqa: PLC0415 - beside its only use

        return nullcontext(sys.stdout)
    return path.open("x", encoding="utf-8", newline="")


def _signer(key: str) -> NoteSigner:
    if not key:
        raise SettingsInvalid("ROTA_AUDIT_SIGNING_KEY is not set (or ROTA_AUDIT_SIGNING_KEY_FILE)")
    return NoteSigner(key)


def _publishing(services: "Container") -> "Publishing":
    if services.publishing is None:
        raise SettingsInvalid("ROTA_AUDIT_SIGNING_KEY and ROTA_AUDIT_SINK are not set: there is nothing to sign with")
    return services.publishing
