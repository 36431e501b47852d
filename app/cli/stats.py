"""`rota stats`: the numbers, and whether they are right."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.exits import Exit
from app.cli.running import AsJson, parse_time, progress, run, say
from app.domain.errors import InputInvalid
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.stats import Width

if TYPE_CHECKING:
    from app.api.stats_schemas import StatsAnswer
    from app.container import Container
    from app.services.stats_check import Recounted


def stats(
    bucket: Annotated[Width, typer.Option(help="At most 31 days by hour, 400 by day")] = Width.HOUR,
    since: Annotated[str | None, typer.Option("--from", help="ISO 8601, UTC unless it says otherwise")] = None,
    until: Annotated[str | None, typer.Option("--to", help="likewise; by default now")] = None,
    check: Annotated[  # noqa: FBT002 - Typer's form
        bool, typer.Option("--check", help="Recount everything from the trail and the tables, and compare")
    ] = False,
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """
    Active sessions and users; sign-ins, refreshes, failures, reuse and ends by hour or day; where failures come from.

    With --check: exit code 5 if any count differs from what it should be.
    """
    if check:
        _check(as_json)
        return

    first, last = parse_time(since), parse_time(until)

    async def work(services: "Container") -> "StatsAnswer":
        from app.api.stats_schemas import StatsAnswer  # noqa: PLC0415 - only needed here

        try:
            found = await services.stats.answer(first, last, bucket, actor=SYSTEM, client=NO_CLIENT)
        except InputInvalid as error:
            raise typer.BadParameter(error.message) from None
        return StatsAnswer.of(found)

    found = run(work)
    if found.waiting:
        typer.echo(
            f"{found.waiting} events or more are not counted yet: a running server counts them within seconds, "
            "`rota maintain --job stats` at once.",
            err=True,
        )
    say(found.model_dump(mode="json", by_alias=True), _words(found), as_json)


def _words(found: "StatsAnswer") -> str:
    active, series, sources = found.active, found.series, found.failure_sources
    about = "" if active.is_exact else "at most "
    lines = [
        f"as of {found.as_of.isoformat(timespec='seconds')}",
        f"active: {about}{active.sessions} sessions of {about}{active.users} users",
        "",
        f"{series.bucket + ' (UTC)':<18}{'sign-ins':>9} {'refreshes':>10} {'failures':>9} {'reuse':>6} {'ends':>8}",
    ]
    shape = "%Y-%m-%d %H:%M" if series.bucket is Width.HOUR else "%Y-%m-%d"
    lines += [
        _row(item.start.strftime(shape), item)
        for item in series.items
        if item.sign_ins or item.refreshes or item.failures or item.ends
    ]
    lines.append(_row("all", series.totals))
    lines += ["", *(f"ended by {reason}: {count}" for reason, count in series.totals.ends.items())]
    lines += [f"failed {action}: {count}" for action, count in series.totals.failures_by_action.items()]
    lines += [f"failures from {item.address}: {item.failures}" for item in sources.addresses]
    lines += [f"failures by {item.agent}: {item.failures}" for item in sources.agents]
    return "\n".join(lines)


def _row(name: str, counts: Any) -> str:
    ends = sum(counts.ends.values())
    return (
        f"{name:<18}{counts.sign_ins:>9} {counts.refreshes:>10} {counts.failures:>9} "
        f"{counts.reuse_detections:>6} {ends:>8}"
    )


def _check(as_json: bool) -> None:  # noqa: FBT001 - handed through
    async def work(services: "Container") -> "Recounted":
        with progress("counting") as tell:
            counted = 0
            while done := await services.stats.count():
                counted += done.rows
                tell(counted, counted)
        with progress("recounting") as tell:
            return await services.stats_check.run(tell)

    found = run(work)
    differences = [{"place": place, "what": what} for place, what in found.differences]
    data = {
        "since": found.since and found.since.isoformat(),
        "hours": found.hours,
        "events": found.events,
        "users": found.users,
        "differences": differences,
    }
    words = [f"{place}: {what}" for place, what in found.differences]
    words.append(
        f"{found.hours} hours, {found.events} events, {found.users} users with sessions, {len(differences)} differences"
    )
    say(data, "\n".join(words), as_json)
    raise typer.Exit(Exit.CHECK_FAILED if differences else Exit.OK)
