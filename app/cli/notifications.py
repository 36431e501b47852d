"""`rota notifications`: what people are to be told, and that they were."""

import json
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from app.cli.running import AsJson, run, say
from app.domain.entries import moment
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.notifications import ACKNOWLEDGE_MAXIMUM, Notification

if TYPE_CHECKING:
    from app.container import Container

commands = typer.Typer(help="What people are to be told.", no_args_is_help=True)


@commands.command("list")
def list_notifications(
    after: Annotated[UUID | None, typer.Option(help="Go on behind this one")] = None,
    limit: Annotated[int, typer.Option(min=1, max=ACKNOWLEDGE_MAXIMUM)] = 100,
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """
    List what people are to be told, oldest first: time, id, kind, user's id, name. That you did is an event.

    Each stays until it is acknowledged. Begin without --after each time you look for new ones.
    """

    async def work(services: "Container") -> tuple[list[Notification], UUID | None]:
        return await services.notifications.look(after=after, limit=limit, actor=SYSTEM, client=NO_CLIENT)

    found, following = run(work)
    if as_json:
        items = [_plain(each) for each in found]
        typer.echo(json.dumps({"items": items, "next": str(following) if following else None}))
        return
    for each in found:
        plain = _plain(each)
        typer.echo("  ".join(plain[name] for name in ("created_at", "id", "kind", "user_id", "username")))
    if following:
        typer.echo(f"more: --after {following}", err=True)


@commands.command()
def ack(
    ids: Annotated[list[UUID], typer.Argument(help="Those that they were told")],
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """Acknowledge notifications: they are not listed any more. Those that are not there are so already."""
    if len(ids) > ACKNOWLEDGE_MAXIMUM:
        raise typer.BadParameter(f"at most {ACKNOWLEDGE_MAXIMUM} at once")

    async def work(services: "Container") -> int:
        return await services.notifications.acknowledge(ids, actor=SYSTEM, client=NO_CLIENT)

    done = run(work)
    say({"acknowledged": done}, f"acknowledged: {done}", as_json)


def _plain(notification: Notification) -> dict[str, Any]:
    return {
        "id": str(notification.id),
        "user_id": str(notification.user_id),
        "username": notification.username,
        "kind": notification.kind.value,
        "created_at": moment(notification.created_at),
    }
