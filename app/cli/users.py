"""`rota users`: make accounts, shut people out, let them in again."""

import json
import secrets
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.running import AsJson, run, say
from app.domain.errors import UserNotFound
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.users import Role, User

if TYPE_CHECKING:
    from app.container import Container

commands = typer.Typer(help="Accounts.", no_args_is_help=True)

Username = Annotated[str, typer.Argument(help="The user's name")]


@commands.command()
def create(
    username: Username,
    role: Annotated[Role, typer.Option(help="What the user may do")] = Role.USER,
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """Create a user with a random password, which is printed this once."""
    password = secrets.token_urlsafe(18)

    async def work(services: "Container") -> User:
        return await services.users.create(username, password, role=role, actor=SYSTEM, client=NO_CLIENT)

    user = run(work)
    if as_json:
        typer.echo(json.dumps({"id": str(user.id), "username": username, "role": role, "password": password}))
    else:
        typer.echo(f"{username} ({role}), password {password}")


@commands.command()
def disable(username: Username, as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Shut a user out and end all their sessions."""

    async def work(services: "Container") -> int:
        user = await _get(services, username)
        return await services.users.disable(user.id, actor=SYSTEM, client=NO_CLIENT)

    ended = run(work)
    say(
        {"username": username, "sessions_ended": ended},
        f"{username} is disabled; sessions ended: {ended}",
        as_json,
    )


@commands.command()
def enable(username: Username, as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Let a disabled user sign in again."""

    async def work(services: "Container") -> bool:
        user = await _get(services, username)
        return await services.users.enable(user.id, actor=SYSTEM, client=NO_CLIENT)

    changed = run(work)
    word = "is enabled" if changed else "was not disabled"
    say({"username": username, "changed": changed}, f"{username} {word}", as_json)


@commands.command()
def erase(
    user: Annotated[str, typer.Argument(help="The user's name, or id")],
    reason: Annotated[str, typer.Option(help="For the trail: a ticket number, no personal data")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,  # noqa: FBT002 - Typer's form
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """
    Remove a person's data for good: from the account, the sessions and the trail. All sessions end.

    Every proof stays valid. Broken off, the same command goes on. Needs ROTA_MAINTENANCE_DATABASE_URL.
    """
    if not 3 <= len(reason) <= 200:  # noqa: PLR2004 - a line
        raise typer.BadParameter("a reason has 3 to 200 characters")
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("this cannot be undone: say --yes")
        typer.confirm(f"Remove all data of {user} for good?", abort=True, err=True)

    async def work(services: "Container") -> tuple[str, int]:
        found = await services.trail.find_person(user)
        if found is None:
            raise UserNotFound
        return str(found), await services.erasure.erase(found, reason, actor=SYSTEM, client=NO_CLIENT)

    user_id, events = run(work)
    say({"id": user_id, "events": events}, f"{user_id} is erased; events that held personal data: {events}", as_json)


async def _get(services: "Container", username: str) -> User:
    user = await services.users.find_by_name(username)
    if user is None:
        raise UserNotFound
    return user
