"""`rota audit search` and `tail`: reading the trail on a terminal."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import typer

from app.cli.exits import Exit
from app.cli.running import AsJson, parse_time, run
from app.domain.entries import SealedFields, moment
from app.domain.event_filters import EventFilter, read_actions, read_network
from app.domain.events import NO_CLIENT, SYSTEM, Outcome

if TYPE_CHECKING:
    from app.container import Container
    from app.repositories.audit import StoredEvent
    from app.services.trail import Found

FOLLOW_SECONDS = 1.0


def search(
    action: Annotated[list[str] | None, typer.Option(help="An action, or a noun with .* ; may be repeated")] = None,
    outcome: Annotated[Outcome | None, typer.Option()] = None,
    actor: Annotated[str | None, typer.Option(help="Id or username")] = None,
    subject: Annotated[str | None, typer.Option(help="Id or username")] = None,
    session: Annotated[UUID | None, typer.Option()] = None,
    ip: Annotated[str | None, typer.Option(help="Address or network")] = None,
    request_id: Annotated[UUID | None, typer.Option()] = None,
    since: Annotated[str | None, typer.Option("--from", help="ISO 8601, inclusive")] = None,
    until: Annotated[str | None, typer.Option("--to", help="likewise")] = None,
    order: Annotated[Literal["newest", "oldest"], typer.Option()] = "newest",
    after: Annotated[str | None, typer.Option(help="The cursor of the page before")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    count: Annotated[bool, typer.Option("--count", help="Say how many there are, up to 10,000")] = False,  # noqa: FBT002
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """Search the trail. That you did is an event itself."""

    async def work(services: "Container") -> "Found":
        wanted = EventFilter(
            actions=read_actions(action or []),
            outcome=outcome,
            actor_id=await _person(services, actor),
            subject_id=await _person(services, subject),
            family_id=session,
            network=read_network(ip) if ip else None,
            request_id=request_id,
            since=parse_time(since),
            until=parse_time(until),
        )
        return await services.trail.search(
            wanted,
            newest_first=order == "newest",
            cursor=after,
            limit=limit,
            with_count=count,
            actor=SYSTEM,
            client=NO_CLIENT,
        )

    found = run(work)
    if as_json:
        items = [_as_json(event, found.names) for event in found.events]
        shown = {"items": items, "next": found.next, "count": found.count, "count_is_exact": found.count_is_exact}
        typer.echo(json.dumps(shown))
        return
    for event in found.events:
        typer.echo(_line(event, found.names))
    if found.count is not None:
        typer.echo(f"{found.count}{'' if found.count_is_exact else ' or more'} events", err=True)
    if found.next:
        typer.echo(f"more: --after {found.next}", err=True)


def tail(
    last: Annotated[int, typer.Option("--last", "-n", help="How many to begin with", min=0, max=10_000)] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until stopped")] = False,  # noqa: FBT002
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """The newest events, in the order of sealing: none is missed, and none comes late."""

    async def work(services: "Container") -> None:
        pages = services.trail.tail(last=last, follow=_ticks() if follow else None, actor=SYSTEM, client=NO_CLIENT)
        async for page in pages:
            for event in page:
                typer.echo(json.dumps(plain(event)) if as_json else _line(event, {}))

    run(work)


def plain(event: SealedFields, *, personal: bool = True) -> dict[str, Any]:
    """An event's columns as JSON knows them."""
    values: dict[str, Any] = event._asdict()
    for name in ("id", "actor_id", "subject_id", "family_id", "request_id"):
        values[name] = values[name] and str(values[name])
    values["occurred_at"] = moment(event.occurred_at)
    values["detail"] = json.loads(event.detail) if event.detail else {}
    values["commitment"] = event.commitment and event.commitment.hex()
    if not personal:
        values["ip"] = values["user_agent"] = None
    return values


async def _ticks() -> AsyncIterator[None]:
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        yield


async def _person(services: "Container", name_or_id: str | None) -> UUID | None:
    if name_or_id is None:
        return None
    found = await services.trail.find_person(name_or_id)
    if found is None:
        typer.echo(f"There is no user {name_or_id}.", err=True)
        raise typer.Exit(Exit.NOT_FOUND)
    return found


def _as_json(event: "StoredEvent", names: dict[UUID, str]) -> dict[str, Any]:
    ids = {name: getattr(event, name) for name in ("id", "actor_id", "subject_id", "family_id", "request_id")}
    return {
        **{name: value and str(value) for name, value in ids.items()},
        "actor_name": names.get(event.actor_id) if event.actor_id else None,
        "subject_name": names.get(event.subject_id),
        "occurred_at": moment(event.occurred_at),
        **{
            name: getattr(event, name)
            for name in ("action", "outcome", "reason", "actor_kind", "family_seq", "generation", "user_agent")
        },
        "ip": event.ip and str(event.ip),
        "erased": event.commitment is not None,
        "detail": json.loads(event.detail) if event.detail else {},
    }


def _line(event: "StoredEvent | SealedFields", names: dict[UUID, str]) -> str:
    """One event in one line; what strangers sent is printable already."""
    who = names.get(event.subject_id, str(event.subject_id) if event.subject_id.int else "-")
    parts = [moment(event.occurred_at), event.action, event.outcome, event.reason or "-", who, str(event.ip or "-")]
    return "  ".join([*parts, str(event.family_id or "-"), str(event.id)])
