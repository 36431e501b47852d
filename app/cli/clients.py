"""`rota clients`: make API clients, change their secrets, shut them out."""

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.running import AsJson, run, say
from app.domain.api_clients import (
    OVERLAP,
    OVERLAP_MAXIMUM,
    ApiClient,
    ClientGrant,
    ClientScope,
    NewClient,
    SecretPlace,
)
from app.domain.errors import InputInvalid
from app.domain.events import NO_CLIENT, SYSTEM

if TYPE_CHECKING:
    from app.container import Container
    from app.services.api_clients import MadeClient

commands = typer.Typer(help="API clients.", no_args_is_help=True)

ClientId = Annotated[str, typer.Argument(help="The client's client_id, or id")]


@commands.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is, for people")],
    client_id: Annotated[str | None, typer.Option(help="The name it speaks by [default: made up]")] = None,
    scope: Annotated[list[ClientScope] | None, typer.Option(help="What it may do at Rota; repeatable")] = None,
    grant: Annotated[
        list[ClientGrant] | None,
        typer.Option(help="What it may ask /oauth2/token for; repeatable [default: all it can have but password]"),
    ] = None,
    session_scope: Annotated[
        list[str] | None, typer.Option(help="What its sessions may be granted; repeatable")
    ] = None,
    first_party: Annotated[bool, typer.Option("--first-party", help="It is ours: may have the grant password")] = False,  # noqa: FBT002 - Typer's form
    public: Annotated[bool, typer.Option("--public", help="A browser or mobile app: it has no secret")] = False,  # noqa: FBT002 - Typer's form
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """Make a client. Its secret is printed this once."""
    try:
        new = NewClient(
            name=name,
            client_id=client_id,
            scopes=frozenset(scope or ()),
            grants=frozenset(grant) if grant else None,
            session_scopes=tuple(dict.fromkeys(session_scope or ())),
            first_party=first_party,
            public=public,
        )
    except InputInvalid as refused:
        raise typer.BadParameter(refused.message) from None

    async def work(services: "Container") -> "MadeClient":
        return await services.api_clients.create(new, actor=SYSTEM, client=NO_CLIENT)

    _say_made(run(work), as_json)


@commands.command("list")
def list_clients(as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """All clients, newest first."""

    async def work(services: "Container") -> list[ApiClient]:
        found: list[ApiClient] = []
        after = None
        while True:
            page = await services.api_clients.list_page(after=after, limit=100, actor=SYSTEM, client=NO_CLIENT)
            found += page.items
            if (after := page.next) is None:
                return found

    clients = run(work)
    if as_json:
        typer.echo(json.dumps([_described(client) for client in clients]))
        return
    for client in clients:
        typer.echo(_line(client))


@commands.command()
def show(client_id: ClientId, as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """One client."""

    async def work(services: "Container") -> ApiClient:
        return await services.api_clients.view(client_id, actor=SYSTEM, client=NO_CLIENT)

    described = _described(run(work))
    say(described, "\n".join(f"{name}: {_words(value)}" for name, value in described.items()), as_json)


@commands.command("rotate-secret")
def rotate_secret(
    client_id: ClientId,
    overlap_seconds: Annotated[
        int,
        typer.Option(help="How long the former secret works on", min=0, max=int(OVERLAP_MAXIMUM.total_seconds())),
    ] = int(OVERLAP.total_seconds()),
    until_revoked: Annotated[bool, typer.Option("--until-revoked", help="It works on until it is revoked")] = False,  # noqa: FBT002 - Typer's form
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """Make a new secret, printed this once. One that was former already ends now."""
    overlap = None if until_revoked else timedelta(seconds=overlap_seconds)

    async def work(services: "Container") -> "MadeClient":
        return await services.api_clients.rotate_secret(client_id, overlap, actor=SYSTEM, client=NO_CLIENT)

    _say_made(run(work), as_json)


@commands.command("revoke-secret")
def revoke_secret(
    client_id: ClientId,
    which: Annotated[SecretPlace, typer.Option(help="Which of both")] = SecretPlace.FORMER,
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """End a secret now. When the current one goes, a former one that still works takes its place."""

    async def work(services: "Container") -> tuple[ApiClient, bool]:
        return await services.api_clients.revoke_secret(client_id, which, actor=SYSTEM, client=NO_CLIENT)

    client, changed = run(work)
    words = f"the {which} secret is revoked" if changed else f"there was no {which} secret"
    say({**_described(client), "changed": changed}, f"{client.client_id}: {words}", as_json)


@commands.command()
def disable(client_id: ClientId, as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Shut a client out, within a second in every server process."""

    async def work(services: "Container") -> tuple[ApiClient, bool]:
        return await services.api_clients.disable(client_id, actor=SYSTEM, client=NO_CLIENT)

    client, changed = run(work)
    words = "is disabled" if changed else "was disabled already"
    say({**_described(client), "changed": changed}, f"{client.client_id} {words}", as_json)


@commands.command()
def enable(client_id: ClientId, as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Let a disabled client come again."""

    async def work(services: "Container") -> tuple[ApiClient, bool]:
        return await services.api_clients.enable(client_id, actor=SYSTEM, client=NO_CLIENT)

    client, changed = run(work)
    words = "is enabled" if changed else "was not disabled"
    say({**_described(client), "changed": changed}, f"{client.client_id} {words}", as_json)


def _say_made(made: "MadeClient", as_json: bool) -> None:  # noqa: FBT001 - handed through
    client = made.client
    words = f"{client.client_id}, secret {made.secret}" if made.secret else f"{client.client_id}, public: no secret"
    if client.former_secret_created_at is not None:
        until = client.former_secret_expires_at
        words += f"; the former one works until {until.isoformat() if until else 'it is revoked'}"
    say({**_described(client), "client_secret": made.secret}, words, as_json)


def _described(client: ApiClient) -> dict[str, Any]:
    moments = {
        name: value.isoformat() if (value := getattr(client, name)) else None
        for name in (
            "created_at",
            "disabled_at",
            "secret_created_at",
            "former_secret_created_at",
            "former_secret_expires_at",
        )
    }
    return {
        "id": str(client.id),
        "client_id": client.client_id,
        "name": client.name,
        "scopes": sorted(client.scopes),
        "grants": sorted(client.grants),
        "session_scopes": list(client.session_scopes),
        "first_party": client.first_party,
        "public": client.public,
        **moments,
    }


def _line(client: ApiClient) -> str:
    state = "disabled" if client.disabled_at else "public" if client.public else "confidential"
    return f"{client.client_id}  {client.name}  {state}  {' '.join(sorted(client.scopes)) or '-'}"


def _words(value: object) -> str:
    return "-" if value in (None, []) else " ".join(value) if isinstance(value, list) else str(value)
