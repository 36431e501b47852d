"""`rota config`: the settings as they are in effect here."""

import sys
from typing import Any, Final

import typer
from pydantic import SecretStr

from app.cli.exits import Exit
from app.cli.running import AsJson, say
from app.services.contradictions import contradictions
from app.settings import Examined, Settings, examine_settings, variable

commands = typer.Typer(help="The settings as they are in effect here.", no_args_is_help=True)

PIPED_COLUMNS: Final = 200
# By the end of a field's name; the others have none.
UNITS: Final = {
    "_milliseconds": "milliseconds",
    "_seconds": "seconds",
    "_days": "days",
    "_characters": "characters",
    "database_pool_size": "connections",
    "max_sessions_per_user": "sessions",
    "streams_per_client": "streams",
}


@commands.callback()
def config() -> None:
    """The settings as they are in effect here."""


@commands.command()
def show(as_json: AsJson = False) -> None:  # noqa: FBT002 - Typer's form
    """
    Show every setting: its value, default, origin and unit; secrets by whether they are set. Asks no database.

    Marks what is wrong (exit code 5) and what contradicts something else.
    """
    examined = examine_settings()
    found = contradictions(examined.settings, examined.given)
    lines = [_line(field, examined) for field in Settings.model_fields]
    for line in lines:
        name = str(line["setting"])
        line["wrong"] = [each.message for each in examined.complaints if name in _without_suffix(each.variables)]
        line["contradicts"] = sorted({other for each in found if name in each.variables for other in each.variables})
        line["contradicts"] = [other for other in line["contradicts"] if other != name]
    data = {
        "settings": lines,
        "wrong": [each.message for each in examined.complaints],
        "contradictions": [{"settings": list(each.variables), "what": each.what} for each in found],
    }
    if as_json:
        say(data, "", as_json=True)
    else:
        _print(data)
    raise typer.Exit(Exit.CHECK_FAILED if examined.complaints else Exit.OK)


def _line(field: str, examined: Examined) -> dict[str, Any]:
    value, default = getattr(examined.settings, field), Settings.model_fields[field].get_default()
    given = field in examined.given and not any(
        variable(field) in _without_suffix(each.variables) for each in examined.complaints
    )
    origin = "default" if not given else "file" if field in examined.files else "environment"
    file = examined.files.get(field)
    if isinstance(value, SecretStr):
        value = f"set (from {f'file {file}' if origin == 'file' else origin})" if given else "not set"
        default = "not set"
    unit = next((unit for ending, unit in UNITS.items() if field.endswith(ending)), None)
    return {
        "setting": variable(field),
        "value": value,
        "default": None if Settings.model_fields[field].is_required() else default,
        "origin": origin,
        "file": file if given else None,
        "unit": unit,
    }


def _without_suffix(variables: tuple[str, ...]) -> set[str]:
    return {name.removesuffix("_FILE") for name in variables}


def _print(data: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415 - likewise

    console = Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS, highlight=False, markup=False)
    table = Table("setting", "value", "default", "origin", "unit", "")
    for line in data["settings"]:
        marks = ["wrong"] * bool(line["wrong"])
        marks += [f"see {', '.join(line['contradicts'])}"] * bool(line["contradicts"])
        default = "must be set" if line["default"] is None else str(line["default"])
        table.add_row(
            line["setting"], str(line["value"]), default, line["origin"], line["unit"] or "", "; ".join(marks)
        )
    console.print(table)
    for message in data["wrong"]:
        console.print(f"Wrong: {message}", soft_wrap=True)
    for each in data["contradictions"]:
        console.print(f"Contradiction: {each['what']}", soft_wrap=True)
