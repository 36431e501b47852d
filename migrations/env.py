"""Alembic's environment: the URL from the settings, the tables from the models, one transaction a revision."""

import asyncio
import re
from logging.config import fileConfig
from typing import Any, Literal

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

from app.models import Base
from app.repositories.engine import make_migration_engine
from app.settings import SettingsInvalid, load_settings

# Partitions of the trail are made by the database's own function, not by models.
PARTITION = re.compile(r"audit_events_\d{4}_\d{2}")

config = context.config
given_url = config.attributes.get("database_url")  # by whoever runs Alembic as a library, with logs of their own
if given_url is None and config.config_file_name is not None:
    fileConfig(config.config_file_name, disable_existing_loggers=False)


def include_name(
    name: str | None,
    kind: Literal["schema", "table", "column", "index", "unique_constraint", "foreign_key_constraint"] | str,  # noqa: PYI051
    _parents: Any,
) -> bool:
    return not (kind == "table" and PARTITION.fullmatch(name or ""))


def run_offline() -> None:
    """`alembic upgrade --sql`: print the statements, connect to nothing."""
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},  # any other doubles each percent sign
        target_metadata=Base.metadata,
        literal_binds=True,
        include_name=include_name,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_on(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_name=include_name,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _url_from_settings() -> str:
    try:
        return load_settings().database_url.get_secret_value()
    except SettingsInvalid as invalid:
        raise CommandError(str(invalid)) from None


async def run_online() -> None:
    url = given_url or _url_from_settings()
    engine = make_migration_engine(url)
    try:
        async with engine.connect() as db:
            await db.run_sync(run_on)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    run_offline()
else:
    asyncio.run(run_online())
