"""`rota maintain`: housekeeping by hand or by a timer, and the table of jobs."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.exits import Exit
from app.cli.running import AsJson, progress, run, say

if TYPE_CHECKING:
    from app.container import Container
    from app.jobs.schedule import Job

PIPED_COLUMNS: Final = 200  # of the table where there is no terminal to fit it into


def maintain(
    only: Annotated[
        list[str] | None, typer.Option("--job", help="Only this one, by its name in --status; may be repeated")
    ] = None,
    status: Annotated[  # noqa: FBT002 - Typer's form
        bool, typer.Option("--status", help="Run nothing: show each job, what it is for, its last and next run")
    ] = False,
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """
    Run every job of housekeeping until nothing is left to do, in small batches, beside any server that does the same.

    Safe to stop at any moment and to start again. Exit code 0: all is done, or another process is at it; 1: a job
    failed, see its line; 75: the database was in the way, try again.
    """
    from app.jobs.schedule import JOBS  # noqa: PLC0415 - commands that need no database do without its libraries

    unknown = [name for name in only or () if name not in {job.name for job in JOBS}]
    if unknown:
        names = ", ".join(f"'{job.name}'" for job in JOBS)
        raise typer.BadParameter(f"there is no such job; there are {names}", param_hint="--job")
    jobs = [job for job in JOBS if not only or job.name in only]
    if status:
        _show(jobs, as_json)
    else:
        _run(jobs, as_json)


def _run(jobs: list["Job"], as_json: bool) -> None:  # noqa: FBT001 - handed through
    from app.jobs.maintenance import State, maintain  # noqa: PLC0415 - likewise

    async def work(services: "Container") -> list[dict[str, Any]]:
        found = []
        with ExitStack() as bars:
            drawn: dict[str, Callable[[int, int], None]] = {}

            def tell(job: "Job", rows: int) -> None:
                if rows:
                    if job.name not in drawn:
                        drawn[job.name] = bars.enter_context(progress(job.name))
                    drawn[job.name](rows, rows)

            async for report in maintain(services, jobs, tell):
                bars.close()
                found.append(
                    {
                        "job": report.job,
                        "state": report.state.value,
                        "rows": report.rows,
                        "batches": report.batches,
                        "seconds": report.seconds,
                        "error": report.error,
                    }
                )
        return found

    found = run(work, quiet=True)  # a line a batch would be thousands
    words = [
        f"{line['job']:<18} {line['state']:<8} {line['rows']:>9} rows {line['seconds']:>8.2f} s"
        + (f"  {line['error']}" if line["error"] else "")
        for line in found
    ]
    say({"jobs": found}, "\n".join(words), as_json)
    states = {line["state"] for line in found}
    if State.FAILED in states:
        raise typer.Exit(Exit.FAILURE)
    if State.DELAYED in states:
        raise typer.Exit(Exit.TRY_AGAIN)


def _show(jobs: list["Job"], as_json: bool) -> None:  # noqa: FBT001 - handed through
    from app.api.stats_schemas import Jobs  # noqa: PLC0415 - likewise
    from app.domain.events import NO_CLIENT, SYSTEM  # noqa: PLC0415 - likewise

    async def work(services: "Container") -> Jobs:
        return Jobs.of(await services.job_runs.show(jobs, actor=SYSTEM, client=NO_CLIENT))

    found = run(work)
    if as_json:
        say(found.model_dump(mode="json"), "", as_json=True)
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415 - likewise

    table = Table("job", "entity", "retention", "reason", "last run", "next run", "rows", "state")
    for job in found.items:
        rows = f"{job.rows}, in all {job.total_rows}"
        state = f"failed: {job.error}" if job.error else "overdue" if job.overdue else "in time"
        last, following = _moment(job.last_run, "never"), _moment(job.next_run, "when somebody runs it")
        table.add_row(job.job, job.entity, job.retention, job.reason, last, following, rows, state)
    Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS, highlight=False, markup=False).print(table)


def _moment(at: datetime | None, otherwise: str) -> str:
    return at.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00") + " UTC" if at else otherwise
