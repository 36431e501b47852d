"""The command line. Data goes to standard output, talk to standard error."""

import os
import signal
import sys

import typer

from app.cli import (
    audit,
    clients,
    config,
    db,
    dev,
    doctor,
    keys,
    maintain,
    notifications,
    serve,
    sessions,
    stats,
    users,
)
from app.cli.exits import Exit
from app.domain.errors import RotaError, Unavailable, UserNotFound
from app.settings import SettingsInvalid

cli = typer.Typer(name="rota", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
cli.command("dev")(dev.dev)
cli.command("serve")(serve.serve)
cli.command("maintain")(maintain.maintain)
cli.command("stats")(stats.stats)
cli.command("doctor")(doctor.doctor)
cli.add_typer(db.commands, name="db")
cli.add_typer(users.commands, name="users")
cli.add_typer(sessions.commands, name="sessions")
cli.add_typer(clients.commands, name="clients")
cli.add_typer(notifications.commands, name="notifications")
cli.add_typer(audit.commands, name="audit")
cli.add_typer(keys.commands, name="keys")
cli.add_typer(config.commands, name="config")


@cli.callback()
def rota(context: typer.Context) -> None:
    """Rota: sessions as refresh-token families in PostgreSQL."""
    if os.getpid() == 1 and context.invoked_subcommand != "serve":
        # The first process of a container gets no signal that it does not handle: it would work on until it is killed.
        # The server handles them itself.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


# By code: the classes stand beside their services, which commands without a database do not load.
_EXITS = {
    "input_invalid": Exit.USAGE,
    "history_refused": Exit.CHECK_FAILED,
    "stored_state_invalid": Exit.CHECK_FAILED,
    "sink_unavailable": Exit.TRY_AGAIN,
    "nothing_signed": Exit.TRY_AGAIN,
    "event_not_sealed": Exit.TRY_AGAIN,
    "nothing_there": Exit.NOT_FOUND,
    "event_not_found": Exit.NOT_FOUND,
    "session_not_found": Exit.NOT_FOUND,
    "revocation_not_found": Exit.NOT_FOUND,
    "client_not_found": Exit.NOT_FOUND,
    "migration_running": Exit.TRY_AGAIN,
    "migration_blocked": Exit.TRY_AGAIN,
    "migration_lock_lost": Exit.TRY_AGAIN,
    "migration_failed": Exit.FAILURE,
    "schema_too_old": Exit.CHECK_FAILED,
    "schema_unsound": Exit.CHECK_FAILED,
}


_NO_WAY_IN = {  # by SQLSTATE
    "3D000": "it does not exist",
    "28000": "it does not know the login, or refuses it",
    "28P01": "the password is wrong, or the login unknown",
}


def main() -> None:
    """Run a command; an error is one line on standard error and an exit code that says of what kind it was."""
    try:
        cli()
    except SettingsInvalid as error:
        _leave(str(error), Exit.USAGE)
    except UserNotFound as error:
        _leave(error.message, Exit.NOT_FOUND)
    except Unavailable as error:
        _leave(f"{error.message} ({error.why})", Exit.TRY_AGAIN)
    except RotaError as error:
        why = f" ({error.why})" if error.why else ""
        _leave(f"{error.message}{why}", _EXITS.get(error.code, Exit.REFUSED))
    except OSError as error:  # of files and of standard output: the database's are `Unavailable`
        named = f": {error.filename}" if error.filename else ""
        _leave(f"{error.strerror or type(error).__name__}{named}", Exit.FAILURE)
    except Exception as error:
        if (state := getattr(getattr(error, "orig", error), "sqlstate", None)) not in _NO_WAY_IN:
            raise
        _leave(f"The database lets nobody in by the URL that is set for this: {_NO_WAY_IN[state]}.", Exit.FAILURE)


def _leave(message: str, code: Exit) -> None:
    typer.echo(message, err=True)
    sys.exit(code)
