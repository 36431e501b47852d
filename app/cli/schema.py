"""Bringing the database's schema up to date: Alembic, with the project's own configuration."""

from pathlib import Path

_INI = Path(__file__).parents[2] / "alembic.ini"


def upgrade_schema(database_url: str) -> None:
    """Run all pending migrations, as `alembic upgrade head` would."""
    from alembic import command  # noqa: PLC0415 - half a second that most commands need not spend
    from alembic.config import Config  # noqa: PLC0415 - likewise

    config = Config(str(_INI))
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")
