"""
Alembic's environment: the URL from the settings, one transaction a revision, and one runner at a time.

Commands that change the schema go through the runner of `app/services/migrations.py`, whoever called Alembic. Revisions
run without the models' naming convention: the names in a revision are the names in the database.
"""

import asyncio
import re
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from logging.config import fileConfig
from pathlib import Path
from typing import Any, Literal

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

from app.domain.errors import RotaError
from app.models import Base
from app.observability.logs import configure_logs
from app.repositories.engine import make_migration_engine
from app.services.migrations import WAIT_SECONDS, Runner, Step, read_revisions
from app.settings import SettingsInvalid, load_settings

# Partitions of the trail are made by the database's own function, not by models.
PARTITION = re.compile(r"audit_events_\d{4}_\d{2}")
RECORDED_FROM = "0014"  # the revision that made the table of what was applied

config = context.config
given_url = config.attributes.get("database_url")  # by whoever runs Alembic as a library, with logs of their own
if given_url is None and config.config_file_name is not None:
    fileConfig(config.config_file_name, disable_existing_loggers=False)
    configure_logs("console")


def include_name(
    name: str | None,
    kind: Literal["schema", "table", "column", "index", "unique_constraint", "foreign_key_constraint"] | str,  # noqa: PYI051
    _parents: Any,
) -> bool:
    return not (kind == "table" and PARTITION.fullmatch(name or ""))


def record(ctx: Any, step: Any, heads: Collection[Any], run_args: Any) -> None:  # noqa: ARG001 - Alembic's signature
    """Keep what the applied revisions declare, in the transaction of each; also in the statements of `--sql`."""
    scripts = context.script
    kept = set()
    for head in heads:
        kept |= {script.revision for script in scripts.iterate_revisions(head, "base")}
    if RECORDED_FROM not in kept:
        return  # no table yet, or no more
    changed = {*step.up_revision_ids}
    everything = step.is_stamp or (step.is_upgrade and RECORDED_FROM in changed)  # a stamp jumps over revisions
    for script in reversed(list(scripts.walk_revisions())):
        if script.revision not in changed and not everything:
            continue
        if script.revision in kept:
            module = script.module
            ctx.execute(
                "INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES "
                f"('{script.revision}', '{module.phase}', '{module.oldest_release}', {str(module.rewrites).lower()}, "
                "statement_timestamp()) ON CONFLICT (revision) DO NOTHING"
            )
        else:
            ctx.execute(f"DELETE FROM schema_revisions WHERE revision = '{script.revision}'")


class AskedOfAlembic:
    """The command's steps, so that the runner can take them one at a time, and one of them again."""

    def __init__(self, *, expand_only: bool) -> None:
        self.steps: list[Step] = []
        self._expand_only = expand_only
        self._made: list[Any] = []

    def plan(self, db: Connection) -> None:
        context.configure(connection=db)
        asked: Callable[[Any, Any], Iterable[Any]] = context.get_context().opts["fn"]

        def look(heads: Any, ctx: Any) -> Iterable[Any]:
            self._made = list(asked(heads, ctx))
            if self._expand_only and heads:  # in an empty database nobody is served yet
                self._made = self._until_other_phase()
            return ()

        self._run(db, look)
        self.steps = [Step(step.info.up_revision_id or "base", step.info.is_upgrade) for step in self._made]

    def take(self, number: int, db: Connection) -> None:
        self._run(db, lambda _heads, _ctx: (self._made[number],))

    def _until_other_phase(self) -> list[Any]:
        taken: list[Any] = []
        for step in self._made:
            if step.revision.module.phase != "expand":
                break
            taken.append(step)
        return taken

    def _run(self, db: Connection, steps: Callable[[Any, Any], Iterable[Any]]) -> None:
        context.configure(connection=db, transaction_per_migration=True, on_version_apply=record, fn=steps)
        with context.begin_transaction():
            context.run_migrations()
        db.commit()  # what Alembic has only read


def run_offline() -> None:
    """`alembic upgrade --sql`: print the statements, connect to nothing."""
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},  # any other doubles each percent sign
        literal_binds=True,
        transaction_per_migration=True,
        on_version_apply=record,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_on(connection: Connection) -> None:
    """Commands that only look, or compare with the models."""
    context.configure(connection=connection, target_metadata=Base.metadata, include_name=include_name)
    with context.begin_transaction():
        context.run_migrations()


def _url() -> str:
    if given_url is not None:
        return str(given_url)
    try:
        return load_settings().migration_url
    except SettingsInvalid as invalid:
        raise CommandError(str(invalid)) from None


def changes_the_schema() -> bool:
    """Whether the command moves the database to a revision."""
    try:
        context.get_revision_argument()
    except KeyError:
        return False
    return True


async def run_online() -> None:
    url = _url()
    if changes_the_schema():
        phase = config.attributes.get("phase") or context.get_x_argument(as_dictionary=True).get("phase", "all")
        if phase not in {"expand", "all"}:
            raise CommandError("-x phase=… must be expand or all")
        wait_seconds = float(config.attributes.get("wait_seconds", WAIT_SECONDS))
        runner = Runner(url, read_revisions(Path(str(config.config_file_name))), wait_seconds=wait_seconds)
        try:
            moved = await runner.run(AskedOfAlembic(expand_only=phase == "expand"), phase=str(phase))
        except RotaError as error:
            if given_url is not None:
                raise
            why = f" ({error.why})" if error.why else ""
            raise CommandError(f"{error.message}{why}") from None
        config.attributes["moved"] = moved
        return
    engine = make_migration_engine(url)
    try:
        async with engine.connect() as db:
            await db.run_sync(run_on)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    run_offline()
else:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(run_online())
    else:  # Alembic was called from within a coroutine, which waits for it anyhow
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, run_online()).result()
