"""`rota doctor`: is it well, and if not, what is to be done."""

import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.exits import Exit
from app.cli.running import AsJson, say
from app.observability.logs import configure_logs
from app.settings import examine_settings

if TYPE_CHECKING:
    from app.domain.checks import Examination

PIPED_COLUMNS: Final = 160


def doctor(
    backup_stamp: Annotated[
        Path | None, typer.Option(help="A file that the backup touches at its end [default: ROTA_BACKUP_STAMP]")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="Server processes in all [default: those that are connected]", min=1, max=10_000)
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--check", help="Only this one, by its id; may be repeated")] = None,
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """
    Make some fifty checks of settings, secrets, database, trail and host. Changes nothing.

    Exit code 0: all is well, or there are warnings only; 5: something fails. What could not be looked at is skipped
    and says why. Run it with the servers' own environment.
    """
    configure_logs("console", least=50)  # the findings say it
    from app.domain.check_list import CHECKS  # noqa: PLC0415 - beside its only use

    if unknown := set(only or ()) - {check.id for check in CHECKS}:
        raise typer.BadParameter(f"there is no check {', '.join(sorted(unknown))}", param_hint="--check")
    found = asyncio.run(_examine(only or [], str(backup_stamp or ""), processes))
    counts = Counter(each.finding.verdict.value for each in found)
    if as_json:
        say({"checks": [_as_data(each) for each in found], "counts": dict(counts)}, "", as_json=True)
    else:
        _show(found, counts)
    raise typer.Exit(Exit.CHECK_FAILED if counts["failure"] else Exit.OK)


async def _examine(only: list[str], backup_stamp: str, processes: int | None) -> "list[Examination]":
    from app.cli.schema import find_drift  # noqa: PLC0415 - the database's libraries, only here
    from app.command_services import build_doctor  # noqa: PLC0415 - likewise
    from app.jobs.schedule import JOBS  # noqa: PLC0415 - likewise

    async with build_doctor(
        examine_settings(), duties=JOBS, find_drift=find_drift, backup_stamp=backup_stamp, processes=processes
    ) as made:
        return [each async for each in made.examine(only)]


def _as_data(each: "Examination") -> dict[str, Any]:
    return {
        "id": each.check.id,
        "group": each.check.group,
        "title": each.check.title,
        "verdict": each.finding.verdict.value,
        "why": each.finding.why,
        "fix": each.fix,
    }


def _show(found: "list[Examination]", counts: Counter[str]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415 - likewise

    from app.domain.check_list import GROUPS  # noqa: PLC0415 - with the rest of it

    console = Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS, highlight=False, markup=False)
    colours = {"ok": "green", "warning": "yellow", "failure": "bold red", "skipped": "dim"}
    for group, title in GROUPS.items():
        table = Table(title=title, title_justify="left", show_header=False, expand=True)
        table.add_column(width=24)
        table.add_column(width=8)
        table.add_column(ratio=1)
        for each in (one for one in found if one.check.group == group):
            words = each.finding.why if each.fix is None else f"{each.finding.why}\nTo do: {each.fix}"
            verdict = each.finding.verdict.value
            table.add_row(each.check.id, verdict, words, style=None if verdict == "ok" else colours[verdict])
        if table.row_count:
            console.print(table)
    order = ("ok", "warning", "failure", "skipped")
    console.print(", ".join(f"{counts[verdict]} {verdict}" for verdict in order))
