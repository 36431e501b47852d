"""`rota sessions`: anybody's sessions."""

import typer

from app.cli.endings import cancel, end, list_revocations
from app.cli.finding import explain, export, list_sessions, show

commands = typer.Typer(help="Sessions.", no_args_is_help=True)
commands.command("list")(list_sessions)
commands.command("show")(show)
commands.command("explain")(explain)
commands.command("export")(export)
commands.command("end")(end)
commands.command("revocations")(list_revocations)
commands.command("cancel")(cancel)
