"""What commands share: services while the command works, one form of output, a progress bar on a terminal."""

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from app.domain.errors import InputInvalid
from app.domain.event_filters import read_moment
from app.observability.logs import configure_logs
from app.settings import load_settings

if TYPE_CHECKING:
    from app.container import Container

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output")]


def run(work: Callable[["Container"], Awaitable[T]], *, quiet: bool = False) -> T:
    """Build the services, do the work, take leave of the database. `quiet`: log nothing but warnings and errors."""
    from app.container import Container  # noqa: PLC0415 - commands that need no database do without its libraries

    configure_logs("console", least=logging.WARNING if quiet else logging.INFO)

    async def with_services() -> T:
        services = Container.build(load_settings())
        try:
            return await work(services)
        finally:
            await services.close()

    return asyncio.run(with_services())


def say(data: dict[str, Any], words: str, as_json: bool) -> None:  # noqa: FBT001 - handed through
    typer.echo(json.dumps(data) if as_json else words)


@contextmanager
def progress(label: str, *, rate: bool = False) -> Iterator[Callable[..., None]]:
    """
    A function that is told `(done, total)`, and another label if it has one; it draws a bar if standard error is a
    terminal, with how many a second if `rate`.
    """
    if not sys.stderr.isatty():
        yield lambda _done, _total, _label=None: None
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only for a terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = [TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    if rate:
        columns.insert(3, TextColumn("{task.fields[rate]}", markup=False))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None, rate="")

        def draw(done: int, total: int, what: str | None = None) -> None:
            shown = bar.tasks[0]
            if what is not None and shown.description != what:
                bar.reset(task, description=what, total=total)
            speed = shown.finished_speed or shown.speed or 0
            bar.update(task, completed=done, total=max(done, total), rate=f"{speed:,.0f}/s")

        yield draw


def parse_time(text: str | None) -> datetime | None:
    """
    A time as ISO 8601; without an offset it is UTC.

    Raises:
        typer.BadParameter: not a time.
    """
    try:
        return None if text is None else read_moment(text)
    except InputInvalid as error:
        raise typer.BadParameter(error.message) from None
