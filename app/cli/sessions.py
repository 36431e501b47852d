"""`rota sessions`: anybody's sessions."""

import typer

from app.cli.endings import cancel, end, list_revocations

commands = typer.Typer(help="Sessions.", no_args_is_help=True)
commands.command("end")(end)
commands.command("revocations")(list_revocations)
commands.command("cancel")(cancel)
