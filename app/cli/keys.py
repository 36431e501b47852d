"""`rota keys`: secrets by their ids, and the calendar of signing keys."""

import asyncio
import os
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.exits import Exit
from app.cli.running import AsJson, parse_time, say
from app.observability.logs import configure_logs
from app.settings import NOWHERE, load_settings, variable

if TYPE_CHECKING:
    from app.domain.key_calendar import Calendar, SecretLine

commands = typer.Typer(help="Secrets and signing keys; never a byte of a secret.", no_args_is_help=True)

PIPED_COLUMNS: Final = 200


@commands.callback()
def keys() -> None:
    """Secrets and signing keys."""


@commands.command("list")
def list_keys(
    since: Annotated[
        str | None,
        typer.Option(help="When the last process was restarted with the new secret first; ISO 8601, UTC by default"),
    ] = None,
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """
    Show each secret by its id, what it is for and who depends on it, and the calendar of signing keys.

    Without a database the host's time is taken, and the trail and the counts are left out. Exit code 5: something is
    missing.
    """
    from app.command_services import build_key_calendar  # noqa: PLC0415 - the database's libraries, only here

    configure_logs("console")
    moment = parse_time(since)
    has_database = any(variable("database_url") + suffix in os.environ for suffix in ("", "_FILE"))
    settings = load_settings(database_url=NOWHERE)

    async def work() -> "Calendar":
        calendar, database = build_key_calendar(settings, has_database=has_database)
        try:
            return await calendar.look(moment)
        finally:
            if database is not None:
                await database.close()

    found = asyncio.run(work())
    if as_json:
        say(_as_data(found), "", as_json=True)
    else:
        _show(found)
    raise typer.Exit(Exit.CHECK_FAILED if found.missing else Exit.OK)


def _as_data(found: "Calendar") -> dict[str, Any]:
    depending = found.depending
    return {
        "now": found.now.isoformat(),
        "time_from": "host" if found.unseen else "database",
        "database": found.unseen,
        "secrets": [
            {
                "id": each.id,
                "state": each.state.value,
                "listed_since": _iso(each.listed_since),
                "minted_since": _iso(each.minted_since),
                "clients": each.clients,
            }
            for each in found.secrets
        ],
        "keys": [
            {
                "secret": key.secret,
                "kid": key.kid,
                "from": key.starts_at.isoformat(),
                "to": key.ends_at.isoformat(),
                "state": key.state.value,
                "published_until": key.published_until.isoformat(),
                "needed_until": _iso(key.needed_until),
            }
            for key in found.keys
        ],
        "depending": depending
        and {
            "since": depending.since.isoformat(),
            "sessions": depending.sessions,
            "password_tokens": depending.password_tokens,
            "then_wait_seconds": int(depending.then_wait.total_seconds()),
            "until": depending.until.isoformat(),
        },
        "missing": list(found.missing),
    }


def _show(found: "Calendar") -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415 - likewise

    console = Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS, highlight=False, markup=False)
    whose = f"the host's: {found.unseen}" if found.unseen else "the database's"
    console.print(f"It is {_moment(found.now)} ({whose}).\n")
    secrets = Table("secret", "what it does", "API clients")
    for each in found.secrets:
        secrets.add_row(each.id, _does(each), "not counted" if each.clients is None else str(each.clients))
    console.print(secrets)
    calendar = Table("secret", "kid", "from", "to", "state", "published until", "needed until")
    for key in found.keys:
        span = _moment(key.starts_at), _moment(key.ends_at)
        ends = _moment(key.published_until), _moment(key.needed_until)
        calendar.add_row(key.secret, key.kid, *span, key.state.value, *ends)
    console.print(calendar)
    if (depending := found.depending) is not None:
        sessions = "an unknown number of" if depending.sessions is None else str(depending.sessions)
        console.print(
            f"Since {_moment(depending.since)} all servers mint with the first secret. From before that are "
            f"{sessions} live sessions and {depending.password_tokens} set-password tokens. When there are none, and "
            f"no API client stands beside a former secret, wait {int(depending.then_wait.total_seconds())} s more and "
            f"remove it; from {_moment(depending.until)} on without counting sessions.",
            soft_wrap=True,
        )
    for sentence in found.missing:
        console.print(f"Missing: {sentence}", soft_wrap=True)


def _does(secret: "SecretLine") -> str:
    from app.domain.key_calendar import SecretState  # noqa: PLC0415 - with the database's libraries

    if secret.state is SecretState.MINTS:
        since = f", since {_moment(secret.minted_since)}" if secret.minted_since else ""
        return f"mints and signs{since}"
    if secret.state is SecretState.WAITING:
        since = f", known since {_moment(secret.listed_since)}" if secret.listed_since else "; no server knows it yet"
        return f"verifies; has not minted yet{since}"
    if secret.state is SecretState.FORMER:
        return "verifies; minted before"
    return "verifies"


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "-"
