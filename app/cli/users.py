"""`rota users`: see accounts, make them, change them, shut people out, let them in again, delete and erase them."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import typer

from app.cli import importing
from app.cli.running import AsJson, parse_time, run, say
from app.domain.entries import moment
from app.domain.errors import UserNotFound
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.user_changes import UserChange
from app.domain.user_filters import UserFilter
from app.domain.users import Credential, Role, name_prefix

if TYPE_CHECKING:
    from datetime import datetime

    from app.container import Container
    from app.services.acting import Acting
    from app.services.credentials import Invited, IssuedToken
    from app.services.user_queries import SeenUser, SeenUsers
    from app.services.users import Changed

commands = typer.Typer(help="Accounts.", no_args_is_help=True)
commands.command("import")(importing.import_users)
commands.command("export")(importing.export_users)

Username = Annotated[str, typer.Argument(help="The user's name")]
User = Annotated[str, typer.Argument(help="The user's name, or id")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask")]


@commands.command("list")
def list_users(
    prefix: Annotated[str | None, typer.Option(help="The beginning of the name, in any case")] = None,
    role: Annotated[Role | None, typer.Option()] = None,
    disabled: Annotated[bool | None, typer.Option("--disabled/--enabled", help="Only those shut out, or not")] = None,
    created_from: Annotated[str | None, typer.Option(help="ISO 8601, inclusive")] = None,
    created_to: Annotated[str | None, typer.Option(help="likewise")] = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="With active sessions, or none")] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Those who were deleted")] = False,  # noqa: FBT002 - Typer's form
    order: Annotated[Literal["newest", "oldest"], typer.Option()] = "newest",
    after: Annotated[str | None, typer.Option(help="The cursor of the page before")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 50,
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """List users, or search them. That you did is an event."""
    wanted = UserFilter(
        prefix=name_prefix(prefix) if prefix else None,
        role=role,
        disabled=disabled,
        created_from=parse_time(created_from),
        created_to=parse_time(created_to),
        has_active_sessions=active,
        deleted=deleted,
    )

    async def work(services: "Container") -> "SeenUsers":
        return await services.user_queries.search(
            wanted, newest_first=order == "newest", cursor=after, limit=limit, actor=SYSTEM, client=NO_CLIENT
        )

    seen = run(work)
    if as_json:
        typer.echo(json.dumps({"items": [_plain(one) for one in seen.items], "next": seen.next}))
        return
    for one in seen.items:
        typer.echo(_line(one))
    if seen.next:
        typer.echo(f"more: --after {seen.next}", err=True)


@commands.command()
def show(user: User, as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Show one user, deleted or not. That you did is an event."""

    async def work(services: "Container") -> "SeenUser":
        return await services.user_queries.get(await _find(services, user), actor=SYSTEM, client=NO_CLIENT)

    plain = _plain(run(work))
    say(plain, "\n".join(f"{name}: {'-' if value is None else value}" for name, value in plain.items()), as_json)


@commands.command()
def create(
    username: Username,
    role: Annotated[Role, typer.Option(help="What the user may do")] = Role.USER,
    token: Annotated[bool, typer.Option("--token", help="A set-password token, for PUT /password")] = False,  # noqa: FBT002
    no_password: Annotated[bool, typer.Option("--no-password", help="They sign in elsewhere")] = False,  # noqa: FBT002
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """
    Create a user with a one-time password, which is printed this once and good for a day.

    Signing in with it gives no session, but the token by which the user sets a password of their own.
    """
    if token and no_password:
        raise typer.BadParameter("--token and --no-password exclude each other")
    credential = Credential.SET_PASSWORD_TOKEN if token else Credential.ONE_TIME_PASSWORD
    credential = Credential.NONE if no_password else credential

    async def work(services: "Container") -> "Invited":
        return await services.credentials.invite(username, role=role, credential=credential, by=_system())

    invited = run(work)
    words = f"{username} ({role.value})"
    if invited.one_time_password is not None:
        words += f", one-time password {invited.one_time_password}"
    elif invited.password_token is not None:
        words += f", set-password token {invited.password_token}"
    data = {
        "id": str(invited.user.id),
        "username": username,
        "role": role.value,
        "credential": credential.value,
        "one_time_password": invited.one_time_password,
        "password_token": invited.password_token,
        "expires_at": _text(invited.expires_at),
    }
    say(data, words, as_json)
    if not as_json and invited.expires_at is not None:
        typer.echo(f"Not shown again; good until {_text(invited.expires_at)}.", err=True)


@commands.command()
def rename(
    user: User,
    username: Annotated[str, typer.Argument(help="The new name")],
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """Give a user another name. Their sessions go on."""
    changed = _change(user, UserChange(username=username))
    words = f"{user} is {username} now" if changed.changed else f"{username} has that name already"
    _say_changed(changed, words, as_json)


@commands.command()
def disable(user: User, as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Shut a user out and end all their sessions. The last administrator cannot be."""
    changed = _change(user, UserChange(disabled=True))
    word = "is disabled" if changed.changed else "was disabled already"
    _say_changed(changed, f"{user} {word}; sessions ended: {changed.sessions_ended}", as_json)


@commands.command()
def enable(user: User, as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Let a disabled user sign in again."""
    changed = _change(user, UserChange(disabled=False))
    _say_changed(changed, f"{user} {'is enabled' if changed.changed else 'was not disabled'}", as_json)


@commands.command("set-role")
def set_role(user: User, role: Role, as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Give a user another role, and end all their sessions. The last administrator cannot be demoted."""
    changed = _change(user, UserChange(role=role))
    word = "is" if changed.changed else "was already"
    _say_changed(changed, f"{user} {word} {role.value}; sessions ended: {changed.sessions_ended}", as_json)


@commands.command()
def delete(user: User, yes: Yes = False, as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """
    Delete a user: no sign-in ever again, all sessions end, the name is free.

    The trail goes on to say whose its events were; `rota users erase` removes that too. The last administrator cannot
    be deleted.
    """
    _confirm(f"Delete {user} for good?", yes)

    async def work(services: "Container") -> "Changed":
        return await services.users.delete(await _find(services, user), by=_system())

    changed = run(work)
    word = "is deleted" if changed.changed else "was deleted already"
    _say_changed(changed, f"{user} {word}; sessions ended: {changed.sessions_ended}", as_json)


@commands.command("reset-password")
def reset_password(
    user: User,
    forget: Annotated[bool, typer.Option("--forget", help="The present password is void at once")] = False,  # noqa: FBT002
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """
    Print a set-password token, which is good once and for a day; tokens before it are void.

    The user sets a new password with it at PUT /password. The present one stays until then, unless you say --forget:
    it is void at once, and all sessions end, for when somebody else knows it.
    """

    async def work(services: "Container") -> "tuple[UUID, IssuedToken, int]":
        user_id = await _find(services, user)
        return user_id, *await services.credentials.reset(user_id, forget=forget, by=_system())

    user_id, token, ended = run(work)
    data = {
        "id": str(user_id),
        "password_token": token.token,
        "expires_at": _text(token.expires_at),
        "sessions_ended": ended,
    }
    say(data, token.token, as_json)
    if not as_json:
        typer.echo(f"Not shown again; good until {_text(token.expires_at)}.", err=True)


@commands.command()
def unblock(user: User, as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """Forget a user's failed sign-ins, so that a new device need not wait."""

    async def work(services: "Container") -> tuple[UUID, bool]:
        user_id = await _find(services, user)
        return user_id, await services.throttling.unblock(user_id, by=_system())

    user_id, changed = run(work)
    words = f"{user} may try again at once" if changed else f"{user} had no failures to forget"
    say({"id": str(user_id), "changed": changed}, words, as_json)


@commands.command()
def erase(
    user: User,
    reason: Annotated[str, typer.Option(help="For the trail: a ticket number, no personal data")],
    yes: Yes = False,  # noqa: FBT002 - Typer's form
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """
    Remove a person's data for good: from the account, the sessions and the trail. All sessions end.

    Every proof stays valid. Broken off, the same command goes on. Needs ROTA_MAINTENANCE_DATABASE_URL.
    """
    if not 3 <= len(reason) <= 200:  # noqa: PLR2004 - a line
        raise typer.BadParameter("a reason has 3 to 200 characters")
    _confirm(f"Remove all data of {user} for good?", yes)

    async def work(services: "Container") -> tuple[str, int]:
        found = await _find(services, user)
        return str(found), await services.erasure.erase(found, reason, actor=SYSTEM, client=NO_CLIENT)

    user_id, events = run(work)
    say({"id": user_id, "events": events}, f"{user_id} is erased; events that held personal data: {events}", as_json)


def _confirm(question: str, yes: bool) -> None:  # noqa: FBT001 - handed through
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("this cannot be undone: say --yes")
    typer.confirm(question, abort=True, err=True)


def _change(user: str, wanted: UserChange) -> "Changed":
    async def work(services: "Container") -> "Changed":
        return await services.users.change(await _find(services, user), wanted, by=_system())

    return run(work)


def _system() -> "Acting":
    from app.services.acting import Acting  # noqa: PLC0415 - commands that need no database do without its libraries

    return Acting(SYSTEM, NO_CLIENT)


async def _find(services: "Container", name_or_id: str) -> UUID:
    """An id first: a name may look like one."""
    found = await services.trail.find_person(name_or_id)
    if found is None:
        raise UserNotFound
    return found


def _say_changed(changed: "Changed", words: str, as_json: bool) -> None:  # noqa: FBT001 - handed through
    user = changed.user
    data = {
        "id": str(user.id),
        "username": user.username,
        "role": user.role.value,
        "disabled_at": _text(user.disabled_at),
        "deleted_at": _text(user.deleted_at),
        "changed": changed.changed,
        "sessions_ended": changed.sessions_ended,
    }
    say(data, words, as_json)


def _plain(seen: "SeenUser") -> dict[str, Any]:
    user = seen.user
    has_password = user.password_hash is not None
    return {
        "id": str(user.id),
        "username": user.username,
        "role": user.role.value,
        "created_at": _text(user.created_at),
        "disabled_at": _text(user.disabled_at),
        "deleted_at": _text(user.deleted_at),
        "password_changed_at": _text(user.password_changed_at) if has_password else None,
        "has_password": has_password,
        "must_change_password": user.must_change_password,
        "active_sessions": seen.active_sessions,
        "active_sessions_is_exact": seen.is_exact,
    }


def _line(seen: "SeenUser") -> str:
    """One user in one line; a name has no spaces and no control characters."""
    user = seen.user
    state = "deleted" if user.deleted_at else "disabled" if user.disabled_at else "enabled"
    more = "" if seen.is_exact else "+"
    sessions = f"{seen.active_sessions}{more} active"
    return "  ".join([_text(user.created_at) or "-", str(user.id), user.role.value, state, sessions, user.username])


def _text(at: "datetime | None") -> str | None:
    return None if at is None else moment(at)
