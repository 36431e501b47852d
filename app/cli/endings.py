"""`rota sessions end`, `revocations` and `cancel`: one session, all of a user, or in bulk by filter."""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from app.cli.exits import Exit
from app.cli.running import AsJson, progress, run, say
from app.cli.session_options import (
    Browser,
    Client,
    Device,
    Ip,
    Moment,
    OfRole,
    Prefix,
    Scope,
    System,
    Text,
    find_person,
    read_filter,
    read_time,
)
from app.domain.errors import InputInvalid, Unavailable
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.families import EndReason, SessionState
from app.domain.revocations import WHY_CHARACTERS, Order, Revocation, RevocationState
from app.domain.session_filters import AddressScope, SessionFilter

if TYPE_CHECKING:
    from app.container import Container
    from app.services.revocations import Seen

WATCH_SECONDS: Final = 0.5  # while another process has the batch in hand
TROUBLES: Final = 30  # seconds of trouble with the database that are waited out

Session = Annotated[UUID | None, typer.Argument(help="One session's id")]
AllOf = Annotated[Text, typer.Option(help="Id or username; by itself: all of that user's sessions")]
OfState = Annotated[SessionState | None, typer.Option(help="Only active ones ever end")]
HiddenReason = Annotated[EndReason | None, typer.Option(hidden=True)]  # as the list has it; what has one is over
HiddenPerson = Annotated[Text, typer.Option(hidden=True)]
Before = Annotated[Text, typer.Option(help="All that was created before this moment, after a restore: ISO 8601")]
Every = Annotated[bool, typer.Option("--all", help="Every session there is")]
Resume = Annotated[UUID | None, typer.Option(metavar="ID", help="Go on with a bulk end that was interrupted")]
Why = Annotated[Text, typer.Option(help="For the trail, 3 to 200 characters, no personal data")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Only say which would end")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask")]
Bulk = Annotated[UUID, typer.Argument(metavar="ID", help="A bulk end's id")]


@dataclass(slots=True)
class Going:
    """What Ctrl-C must be able to name."""

    revocation: UUID | None = None


def end(
    session: Session = None,
    user: AllOf = None,
    username_prefix: Prefix = None,
    state: OfState = None,
    client: Client = None,
    role: OfRole = None,
    ip: Ip = None,
    ip_scope: Scope = AddressScope.FIRST,
    device: Device = None,
    browser: Browser = None,
    os: System = None,
    created_from: Moment = None,
    created_to: Moment = None,
    last_used_from: Moment = None,
    last_used_to: Moment = None,
    end_reason: HiddenReason = None,
    ended_by: HiddenPerson = None,
    issued_before: Before = None,
    every: Every = False,  # noqa: FBT002 - Typer's form
    resume: Resume = None,
    reason: Why = None,
    dry_run: Dry = False,  # noqa: FBT002 - likewise
    yes: Yes = False,  # noqa: FBT002 - likewise
    as_json: AsJson = False,  # noqa: FBT002 - likewise
) -> None:
    """
    End sessions: one by its id, all of a user (--user), or all that match every filter given.

    By filter it is a bulk end: it says how many sessions of how many users match, asks, and ends those of them that
    were created until then. It needs a --reason. Interrupted, it can be resumed; a running server goes on with it too.

    rota sessions end 01a21f20-47cd-722d-b27d-2054286f4cbc

    rota sessions end --user ada

    rota sessions end --ip 203.0.113.0/24 --reason "ticket 4711" --dry-run

    rota sessions end --issued-before 2026-11-23T10:00:00Z --reason "restored on Monday" --yes
    """
    order = _read_order(locals())
    filtered = order != Order(SessionFilter())
    if sum((session is not None, filtered, every, resume is not None)) != 1:
        raise typer.BadParameter("say which: a session's id, or filters, or --all, or --resume")
    if reason is not None and (session is not None or resume is not None):
        raise typer.BadParameter("a --reason is kept with a bulk end, when it is ordered")
    if resume is not None and dry_run:
        raise typer.BadParameter("--resume ends sessions: there is no --dry-run of it")
    alone = order == Order(SessionFilter(user_id=order.wanted.user_id, username=order.wanted.username))
    if session is not None:
        _end_one(session, dry_run=dry_run, as_json=as_json)
    elif resume is not None:
        _show(_work_off(lambda _: _resumed(resume)), as_json=as_json)
    elif user is not None and alone and reason is None:
        _end_all_of(user, dry_run=dry_run, yes=yes, as_json=as_json)
    else:
        _end_in_bulk(order, reason, dry_run=dry_run, yes=yes, as_json=as_json)


def list_revocations(
    limit: Annotated[int, typer.Option(min=1, max=100)] = 25,
    after: Annotated[Text, typer.Option(help="The cursor of the page before")] = None,
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """List bulk ends, newest first."""

    async def work(services: "Container") -> tuple[list[Revocation], str | None]:
        return await services.revocations.list_page(cursor=after, limit=limit, actor=SYSTEM, client=NO_CLIENT)

    found, following = run(work)
    if as_json:
        typer.echo(json.dumps({"items": [_as_json(each) for each in found], "next": following}))
        return
    for each in found:
        typer.echo(_line(each))
    if following:
        typer.echo(f"more: --after {following}", err=True)


def cancel(revocation: Bulk, as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Stop a bulk end. What has ended stays ended."""

    async def work(services: "Container") -> Revocation:
        return await services.revocations.cancel(revocation, actor=SYSTEM, client=NO_CLIENT)

    stopped = run(work)
    say(_as_json(stopped), _line(stopped), as_json)


def _read_order(given: Mapping[str, Any]) -> Order:
    """
    The order that the options make.

    Raises:
        typer.BadParameter: one of them cannot be read.
    """
    by = given["ended_by"]
    ended_by = None if by is None else run(lambda services: find_person(services, by))
    try:
        return Order(read_filter(given, ended_by=ended_by), read_time(given, "issued_before"))
    except InputInvalid as error:
        raise typer.BadParameter(error.message) from None


def _end_one(session: UUID, *, dry_run: bool, as_json: bool) -> None:
    async def work(services: "Container") -> bool:
        if dry_run:
            family, now = await services.sessions.get_anybodys(session)
            return family.state(now) is SessionState.ACTIVE
        return await services.sessions.end_anybodys(session, actor=SYSTEM, client=NO_CLIENT)

    ended = run(work)
    words = "would end" if dry_run else "has ended"
    data = {"session_id": str(session), "would_end" if dry_run else "ended": ended}
    say(data, f"{session} {words}" if ended else f"{session} was over before", as_json)


def _end_all_of(user: str, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    async def look(services: "Container") -> tuple[UUID, "Seen"]:
        user_id = await find_person(services, user)
        order = Order(SessionFilter(user_id=user_id))
        return user_id, await services.revocations.preview(order, caller=None, client=NO_CLIENT)

    user_id, seen = run(look)
    if dry_run:
        _show_seen(seen, as_json=as_json)
        return
    _ask(f"End all sessions of {user} ({seen.dry_run.count} now)?", yes=yes)
    ended = run(lambda services: services.sessions.end_all_of(user_id, actor=SYSTEM, client=NO_CLIENT))
    say({"user_id": str(user_id), "sessions_ended": ended}, f"{user}: sessions ended: {ended}", as_json)


def _end_in_bulk(order: Order, reason: str | None, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    if not dry_run and (reason is None or len(reason) not in WHY_CHARACTERS):
        raise typer.BadParameter("a bulk end needs a --reason of 3 to 200 characters")
    seen = run(lambda services: services.revocations.preview(order, caller=None, client=NO_CLIENT))
    if dry_run:
        _show_seen(seen, as_json=as_json)
        return
    if not yes:
        _show_seen(seen, as_json=False, to_errors=True)
    _ask("End them?", yes=yes)

    async def start(services: "Container") -> UUID:
        return (await services.revocations.start_seen(order, seen, why=reason or "", client=NO_CLIENT)).id

    _show(_work_off(start), as_json=as_json)


def _ask(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("this cannot be undone: say --yes, or look first with --dry-run")
    typer.confirm(question, abort=True, err=True)


def _work_off(start: Callable[["Container"], Any]) -> Revocation:
    """Do the batches here, with or without a server; Ctrl-C leaves all that is done, and says how to go on."""
    going = Going()

    async def work(services: "Container") -> Revocation:
        going.revocation = await start(services)
        with progress("ending") as told:
            return await _follow(services, going.revocation, told)

    try:
        return run(work)
    except KeyboardInterrupt:
        if going.revocation is None:
            raise
        _say_how_to_go_on(going.revocation)
        raise typer.Exit(Exit.TRY_AGAIN) from None
    except Unavailable:
        if going.revocation is not None:
            _say_how_to_go_on(going.revocation)
        raise


def _say_how_to_go_on(revocation: UUID) -> None:
    typer.echo(
        f"Interrupted; what has ended stays ended. Go on: rota sessions end --resume {revocation}\n"
        f"A running server goes on with it by itself. To stop it for good: rota sessions cancel {revocation}",
        err=True,
    )


async def _resumed(revocation: UUID) -> UUID:
    return revocation


async def _follow(services: "Container", revocation: UUID, told: Callable[[int, int], None]) -> Revocation:
    from app.services.revocation_work import Step  # noqa: PLC0415 - as the services, only when needed

    troubles = 0
    while True:
        found = await services.revocations.follow(revocation)
        told(found.ended, found.expected)
        if not found.is_open:
            return found
        try:
            step = await services.revocation_work.advance(revocation)
            troubles = 0
        except Unavailable:
            troubles += 1
            if troubles > TROUBLES:
                raise
            await asyncio.sleep(1)
        else:
            if step is Step.NOTHING:
                await asyncio.sleep(WATCH_SECONDS)
            else:
                await services.revocation_work.rest()


def _show(revocation: Revocation, *, as_json: bool) -> None:
    say(_as_json(revocation), _line(revocation), as_json)
    if revocation.state is RevocationState.CANCELLED:
        raise typer.Exit(Exit.FAILURE)


def _show_seen(seen: "Seen", *, as_json: bool, to_errors: bool = False) -> None:
    """What a dry run found, with a few of them."""
    rows = [
        {
            "id": str(family.id),
            "user_id": str(family.user_id),
            "username": seen.names.get(family.user_id),
            "created_at": family.created_at.isoformat(),
            "first_ip": family.created_ip and str(family.created_ip),
            "browser": family.browser,
            "os": family.os,
        }
        for family in seen.sample
    ]
    if as_json:
        data = {"count": seen.dry_run.count, "at_least": seen.at_least, "users": seen.users, "sample": rows}
        typer.echo(json.dumps(data))
        return
    at_least = "at least " if seen.at_least else ""
    typer.echo(f"{at_least}{seen.dry_run.count} sessions of {seen.users} users", err=to_errors)
    for row in rows:
        typer.echo(
            "  " + "  ".join(str(value or "-") for name, value in row.items() if name != "user_id"), err=to_errors
        )


def _as_json(revocation: Revocation) -> dict[str, Any]:
    times = ("created_at", "started_at", "finished_at")
    return {
        "revocation": str(revocation.id),
        "state": revocation.state.value,
        "expected": revocation.expected,
        "ended": revocation.ended,
        "end_reason": revocation.end_reason.value,
        "reason": revocation.why,
        "filter": dict(revocation.shown),
        "cut": revocation.cut.isoformat(),
        **{name: (at := getattr(revocation, name)) and at.isoformat() for name in times},
    }


def _line(revocation: Revocation) -> str:
    begun = revocation.created_at.isoformat(timespec="seconds")
    done = f"sessions ended: {revocation.ended} of {revocation.expected}"
    return f"{revocation.id}  {revocation.state.value}  {begun}  {done}  {revocation.why}"
