"""The filters of sessions as options: the same for finding sessions and for ending them."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from app.cli.running import parse_time
from app.domain.errors import InputInvalid, UserNotFound
from app.domain.event_filters import read_network
from app.domain.families import EndReason, SessionState
from app.domain.session_filters import AddressScope, SessionFilter, read_user, read_username_prefix
from app.domain.users import Role

if TYPE_CHECKING:
    from app.container import Container

Text = str | None
State = Annotated[SessionState | None, typer.Option(help="lapsed: past a limit, its end not yet written")]
User = Annotated[Text, typer.Option(help="Id or username")]
Prefix = Annotated[Text, typer.Option(help="How the username begins, at least 2 characters")]
Client = Annotated[Text, typer.Option(help="The client that signed in, such as first-party")]
OfRole = Annotated[Role | None, typer.Option(help="The role at sign-in")]
Ip = Annotated[Text, typer.Option(help="Address or network (203.0.113.0/24) of the sign-in")]
Scope = Annotated[AddressScope, typer.Option(help="any: whatever the session was ever used from, by the trail")]
Device = Annotated[Text, typer.Option(help="As shown, such as iPhone")]
Browser = Annotated[Text, typer.Option(help="With or without its version: Chrome, or 'Chrome 131'")]
System = Annotated[Text, typer.Option("--os", help="With or without its version: iOS, or 'iOS 17'")]
Moment = Annotated[Text, typer.Option(help="ISO 8601, UTC unless it says otherwise; inclusive")]
Reason = Annotated[EndReason | None, typer.Option(help="Why it ended")]
EndedBy = Annotated[Text, typer.Option(help="Who ended it: id or username")]


def read_filter(given: Mapping[str, Any], *, ended_by: UUID | None) -> SessionFilter:
    """
    The filter that the options make.

    Args:
        ended_by: As `find_person` has found them.
    Raises:
        typer.BadParameter: one of them cannot be read.
    """
    prefix, ip = given["username_prefix"], given["ip"]
    try:
        user_id, username = (None, None) if given["user"] is None else read_user(given["user"])
        return SessionFilter(
            state=given["state"],
            user_id=user_id,
            username=username,
            username_prefix=None if prefix is None else read_username_prefix(prefix),
            client_id=given["client"],
            role=given["role"],
            network=None if ip is None else read_network(ip),
            scope=given["ip_scope"],
            device=given["device"],
            browser=given["browser"],
            os=given["os"],
            created_from=read_time(given, "created_from"),
            created_to=read_time(given, "created_to"),
            last_used_from=read_time(given, "last_used_from"),
            last_used_to=read_time(given, "last_used_to"),
            end_reason=given["end_reason"],
            ended_by=ended_by,
        )
    except InputInvalid as error:
        raise typer.BadParameter(error.message) from None


def read_time(given: Mapping[str, Any], name: str) -> datetime | None:
    """
    A time among the options.

    Raises:
        typer.BadParameter: it is none; the message names the option.
    """
    try:
        return parse_time(given[name])
    except typer.BadParameter as error:
        raise typer.BadParameter(f"--{name.replace('_', '-')}: {error.message}") from None


async def find_person(services: "Container", name_or_id: str) -> UUID:
    """
    A user by id or name.

    Raises:
        UserNotFound: nobody has that name.
    """
    found = await services.trail.find_person(name_or_id)
    if found is None:
        raise UserNotFound
    return found
