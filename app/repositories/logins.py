"""Logins for development and tests; in production a database administrator makes them."""

from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from app.repositories.engine import make_migration_engine


async def make_login(url: str, name: str, *, role: str, password: str | None = None) -> str:
    """
    A login that may act as `role` and nothing more, made if it is not there; the same URL with it.

    Args:
        url: Of a login that may make others.
    """
    engine = make_migration_engine(url)
    secret = f" PASSWORD '{password}'" if password else ""
    try:
        async with engine.begin() as db:
            if not (await db.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": name})).first():
                await db.execute(text(f"CREATE ROLE {name} LOGIN{secret} IN ROLE {role}"))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in {"42710", "23505"}:  # somebody else made it just now
            raise
    finally:
        await engine.dispose()
    return make_url(url).set(username=name, password=password).render_as_string(hide_password=False)
