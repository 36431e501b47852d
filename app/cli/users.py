"""`rota users`: make accounts, shut people out, let them in again."""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from app.container import Container
from app.domain.errors import UserNotFound
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.users import Role, User
from app.observability.logs import configure_logs
from app.settings import load_settings

T = TypeVar("T")

commands = typer.Typer(help="Accounts.", no_args_is_help=True)

Username = Annotated[str, typer.Argument(help="The user's name")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output")]


@commands.command()
def create(
    username: Username,
    role: Annotated[Role, typer.Option(help="What the user may do")] = Role.USER,
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """Create a user with a random password, which is printed this once."""
    password = secrets.token_urlsafe(18)

    async def work(services: Container) -> User:
        return await services.users.create(username, password, role=role, actor=SYSTEM, client=NO_CLIENT)

    user = _run(work)
    if as_json:
        typer.echo(json.dumps({"id": str(user.id), "username": username, "role": role, "password": password}))
    else:
        typer.echo(f"{username} ({role}), password {password}")


@commands.command()
def disable(username: Username, as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Shut a user out and end all their sessions."""

    async def work(services: Container) -> int:
        user = await _get(services, username)
        return await services.users.disable(user.id, actor=SYSTEM, client=NO_CLIENT)

    ended = _run(work)
    _say(
        {"username": username, "sessions_ended": ended},
        f"{username} is disabled; sessions ended: {ended}",
        as_json,
    )


@commands.command()
def enable(username: Username, as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Let a disabled user sign in again."""

    async def work(services: Container) -> bool:
        user = await _get(services, username)
        return await services.users.enable(user.id, actor=SYSTEM, client=NO_CLIENT)

    changed = _run(work)
    word = "is enabled" if changed else "was not disabled"
    _say({"username": username, "changed": changed}, f"{username} {word}", as_json)


async def _get(services: Container, username: str) -> User:
    user = await services.users.find_by_name(username)
    if user is None:
        raise UserNotFound
    return user


def _run(work: Callable[[Container], Awaitable[T]]) -> T:
    configure_logs("console")

    async def with_services() -> T:
        services = Container.build(load_settings())
        try:
            return await work(services)
        finally:
            await services.close()

    return asyncio.run(with_services())


def _say(data: dict[str, object], words: str, as_json: bool) -> None:  # noqa: FBT001 - handed through
    typer.echo(json.dumps(data) if as_json else words)
