"""`rota sessions list`, `show`, `explain` and `export`: finding sessions, and what became of them."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TextIO
from uuid import UUID

import typer

from app.cli.exits import Exit
from app.cli.running import AsJson, progress, run
from app.cli.session_options import (
    Browser,
    Client,
    Device,
    EndedBy,
    Ip,
    Moment,
    OfRole,
    Prefix,
    Reason,
    Scope,
    State,
    System,
    Text,
    User,
    find_person,
    read_filter,
)
from app.domain.entries import moment
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.session_exports import ExportFormat, session_values
from app.domain.session_filters import AddressScope, SessionFilter, SessionSort
from app.domain.session_stories import Generation, Told

if TYPE_CHECKING:
    from app.container import Container
    from app.repositories.audit import StoredEvent
    from app.services.session_search import FoundSessions
    from app.services.session_stories import Explanation, Story

Order = Annotated[Literal["newest", "oldest"], typer.Option()]
Session = Annotated[UUID, typer.Argument(help="The session's id")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="A new file; else standard output")]

_COLUMNS: Final = ("created", "user", "state", "client", "device", "browser", "first address", "last used", "id")


def list_sessions(
    state: State = None,
    user: User = None,
    username_prefix: Prefix = None,
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
    end_reason: Reason = None,
    ended_by: EndedBy = None,
    sort: Annotated[SessionSort, typer.Option(help="last_used: at most 10,000, so narrow it first")] = (
        SessionSort.CREATED
    ),
    order: Order = "newest",
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    after: Annotated[Text, typer.Option(help="The cursor of the page before")] = None,
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """
    List the sessions that match every filter given. That you did is an event.

    rota sessions list --user ada --state active

    rota sessions list --ip 203.0.113.0/24 --created-from 2026-11-23 --json
    """
    given = dict(locals())

    async def work(services: "Container") -> "FoundSessions":
        wanted = await _read(services, given)
        cursor, found = after, None
        while True:  # a page that was cut short, and has nothing yet, is gone on with
            page = await services.session_search.search(
                wanted,
                sort=sort,
                newest_first=order == "newest",
                cursor=cursor,
                limit=limit - (len(found.families) if found else 0),
                actor=SYSTEM,
                client=NO_CLIENT,
            )
            found = found.joined(page) if found else page
            cursor = page.next
            if cursor is None or not page.cut_short:
                return found

    found = run(work)
    if as_json:
        items = [session_values(family, found.names.get(family.user_id), found.now) for family in found.families]
        typer.echo(json.dumps({"items": items, "next": found.next}))
        return
    _table(found)
    if found.next:
        typer.echo(f"more: --after {found.next}", err=True)


def show(
    session: Session,
    after: Annotated[Text, typer.Option(help="The cursor of the page before: older generations")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="About how many generations")] = 50,
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """Show one session: its row, and its generations with time, address and agent, newest first."""

    async def work(services: "Container") -> "Story":
        return await services.session_stories.show(session, cursor=after, limit=limit, actor=SYSTEM, client=NO_CLIENT)

    story = run(work)
    row = session_values(story.family, story.names.get(story.family.user_id), story.now)
    if as_json:
        typer.echo(json.dumps({**row, "timeline": _timeline(story)}))
        return
    for name, value in row.items():
        typer.echo(f"{name:18} {value if value is not None else '-'}")
    typer.echo()
    for told in _events(story):
        typer.echo(_line(told))
    if story.next:
        typer.echo(f"more: --after {story.next}", err=True)


def explain(session: Session, as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Say in one sentence why a session is over, or until when it lives; with the events that show it."""

    async def work(services: "Container") -> "Explanation":
        return await services.session_stories.explain(session, actor=SYSTEM, client=NO_CLIENT)

    explained = run(work)
    if as_json:
        said = {
            "session_id": str(session),
            "state": explained.family.state(explained.now),
            "explanation": explained.sentence,
            "evidence": [_event(event) for event in explained.evidence],
        }
        typer.echo(json.dumps(said))
        return
    typer.echo(explained.sentence)
    for event in explained.evidence:
        typer.echo(f"  {moment(event.occurred_at)}  {event.action}  {event.ip or '-'}  {event.id}")


def export(
    state: State = None,
    user: User = None,
    username_prefix: Prefix = None,
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
    end_reason: Reason = None,
    ended_by: EndedBy = None,
    form: Annotated[ExportFormat, typer.Option("--format")] = ExportFormat.NDJSON,
    order: Order = "oldest",
    output: Output = None,
) -> None:
    """
    Export all sessions that match every filter given, as one JSON object a line or as CSV.

    rota sessions export --state active --format csv --output active.csv
    """
    given = dict(locals())

    async def work(services: "Container") -> int:
        wanted = await _read(services, given)
        exports = services.session_exports
        with _opened(output) as file, progress("exporting sessions") as tell:
            begun = await exports.begin(wanted, form, newest_first=order == "newest", actor=SYSTEM, client=NO_CLIENT)
            try:
                async for piece in exports.pieces(begun):
                    file.write(piece)
                    tell(begun.count, begun.count)
                file.flush()
            finally:
                await exports.finish(begun)
        return begun.count

    try:
        count = run(work)
    except OSError as error:
        typer.echo(f"The export cannot be written: {error.strerror or error}", err=True)
        raise typer.Exit(Exit.FAILURE) from None
    typer.echo(f"{count} sessions", err=True)


async def _read(services: "Container", given: Mapping[str, Any]) -> SessionFilter:
    by = given["ended_by"]
    return read_filter(given, ended_by=None if by is None else await find_person(services, by))


def _table(found: "FoundSessions") -> None:
    """Columns as wide as they must be; nothing but the heading when nothing was found."""
    rows = [_COLUMNS]
    for family in found.families:
        used = family.rotated_at or family.created_at
        rows.append(
            (
                family.created_at.strftime("%Y-%m-%d %H:%M"),
                found.names.get(family.user_id, str(family.user_id)),
                family.end_reason.value if family.end_reason else family.state(found.now).value,
                family.client_id,
                family.device or "-",
                family.browser or "-",
                str(family.created_ip or "-"),
                used.strftime("%Y-%m-%d %H:%M"),
                str(family.id),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _timeline(story: "Story") -> dict[str, Any]:
    reuse = story.reuse
    return {
        "generations": [_generation(each) for each in story.generations],
        "next": story.next,
        "reuse": {"spent": reuse.spent and _told(reuse.spent), "presented": _told(reuse.presented)} if reuse else None,
        "end": story.end and _told(story.end),
        "refusals": [_told(event) for event in story.refusals],
    }


def _events(story: "Story") -> Iterator[Told]:
    """Newest first: the end and the reuse, the generations, and what was refused."""
    reuse = (story.reuse.presented, story.reuse.spent) if story.reuse else ()
    yield from (told for told in (story.end, *reuse) if told is not None)
    for generation in story.generations:
        yield from reversed(generation.others)
        yield from reversed(generation.replays)
        if generation.began is not None:
            yield generation.began
    yield from story.refusals


def _generation(generation: Generation) -> dict[str, Any]:
    return {
        "generation": generation.number,
        "how": generation.how,
        "began": generation.began and _told(generation.began),
        "replays": [_told(event) for event in generation.replays],
        "others": [_told(event) for event in generation.others],
    }


def _told(event: Told) -> dict[str, Any]:
    return {
        "event_id": str(event.id),
        "at": moment(event.at),
        "action": event.action,
        "reason": event.reason,
        "generation": event.generation,
        "ip": event.ip and str(event.ip),
        "user_agent": event.user_agent,
        "actor_kind": event.actor_kind,
        "actor_id": event.actor_id and str(event.actor_id),
    }


def _event(event: "StoredEvent") -> dict[str, Any]:
    return {
        "id": str(event.id),
        "occurred_at": moment(event.occurred_at),
        "action": event.action,
        "reason": event.reason,
        "actor_kind": event.actor_kind,
        "actor_id": event.actor_id and str(event.actor_id),
        "generation": event.generation,
        "ip": event.ip and str(event.ip),
        "user_agent": event.user_agent,
        "detail": json.loads(event.detail) if event.detail else {},
    }


def _line(event: Told) -> str:
    generation = "-" if event.generation is None else str(event.generation)
    words = (moment(event.at), generation.rjust(5), event.action, event.reason or "-", str(event.ip or "-"))
    return "  ".join([*words, event.user_agent or "-"])


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(newline="")  # CSV has line ends of its own
        yield sys.stdout
        return
    with path.open("x", encoding="utf-8", newline="") as file:
        yield file
