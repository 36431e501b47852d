"""The connection pool: deadlines everywhere, dead connections noticed without asking the server."""

from typing import Any, Final

import asyncpg
from sqlalchemy import URL, event, make_url
from sqlalchemy.engine.interfaces import IsolationLevel
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.domain.errors import RoleNotTaken
from app.repositories.pooled import PooledConnection, unnamed

POOL_WAIT_SECONDS: Final = 5
CONNECT_SECONDS: Final = 5
# The database's roles. The login that a URL names must be a member of what it is to act as.
APP: Final = "rota_app"
MAINTENANCE: Final = "rota_maintenance"
OWNER: Final = "rota_owner"

ANSWER_SECONDS: Final = 10  # beyond the server's own limit, for a server that is gone without a word

# An open transaction of ours would hold back the trail's sealing and the pruning of dead rows, so none may idle.
SERVER_SETTINGS: Final = {
    "lock_timeout": "2000",
    "statement_timeout": "5000",
    "idle_in_transaction_session_timeout": "5000",
    "client_connection_check_interval": "1000",  # a statement whose client is gone stops waiting for its lock
    "default_transaction_isolation": "read committed",  # what the guarded updates count on
    "jit": "off",
    "timezone": "UTC",
}
# Migrations wait briefly for locks, and then for their own work.
MIGRATION_SETTINGS: Final = {"lock_timeout": "1000", "statement_timeout": "0", "timezone": "UTC"}


def make_engine(
    url: str, *, pool_size: int, role: str = APP, application_name: str = "rota", pooled: bool = False
) -> AsyncEngine:
    """
    An engine on asyncpg that opens at most `pool_size` connections.

    Args:
        url: `postgresql://…`; libpq's `sslmode` is understood.
        role: What its connections act as, whatever the login may do besides. A connection that does not is closed.
        pooled: A transaction pooler stands before the database. Then there is no autocommit.
    """
    if pooled:
        return _make_pooled(url, role, pool_size, application_name)
    settings = SERVER_SETTINGS | {"role": role}
    return _make(url, settings, pool_size, application_name, ANSWER_SECONDS, async_creator_fn=_connect_as(role))


def make_migration_engine(url: str) -> AsyncEngine:
    """An engine for a migration: it acts as the login, and waits as long as its own work takes."""
    return _make(url, MIGRATION_SETTINGS, 1, "rota-migrate", None)


def make_runner_engine(url: str) -> AsyncEngine:
    """
    An engine for whoever looks at the schema or changes it: acts as the login.

    Its bounds are set by statements: what stands before a database may refuse them as startup parameters.
    """
    return _make(url, {}, 1, "rota-migrate", None)


def _make(
    url: str,
    settings: dict[str, str],
    pool_size: int,
    application_name: str,
    answer_seconds: float | None,
    isolation_level: IsolationLevel | None = None,
    **connect_args: Any,
) -> AsyncEngine:
    target, tls = _split(url)
    engine = create_async_engine(
        target,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        hide_parameters=True,
        connect_args={
            "timeout": CONNECT_SECONDS,
            "command_timeout": answer_seconds,
            "server_settings": {**settings, "application_name": application_name},
            **tls,
            **connect_args,
        },
        **({"isolation_level": isolation_level} if isolation_level else {}),
    )
    event.listen(engine.sync_engine, "checkout", _refuse_dead)
    return engine


def _make_pooled(url: str, role: str, pool_size: int, application_name: str) -> AsyncEngine:
    async def connect(*args: Any, **options: Any) -> PooledConnection:
        db: PooledConnection = await asyncpg.connect(*args, connection_class=PooledConnection, **options)
        db.begin_as(role, SERVER_SETTINGS)
        return db

    return _make(
        url,
        {},  # a pooler may refuse them as startup parameters, or ignore them
        pool_size,
        application_name,
        ANSWER_SECONDS,
        "READ COMMITTED",  # said with each BEGIN: the session's own default may be anybody's
        async_creator_fn=connect,
        statement_cache_size=0,
        prepared_statement_cache_size=0,
        prepared_statement_name_func=unnamed,
    )


def _connect_as(role: str) -> Any:
    """
    Connects, and sees whether the role was taken: what stands before a database may ignore startup parameters.

    Raises:
        RoleNotTaken: the connection acts as somebody else.
    """

    async def connect(*args: Any, **options: Any) -> asyncpg.Connection:
        db: asyncpg.Connection = await asyncpg.connect(*args, **options)
        acting = None
        try:
            acting = await db.fetchval("SELECT current_user")
        finally:
            if acting != role:
                db.terminate()
        if acting != role:
            raise RoleNotTaken(why=f"the connection does not act as {role}")
        return db

    return connect


def _split(url: str) -> tuple[URL, dict[str, Any]]:
    target = make_url(url).set(drivername="postgresql+asyncpg")
    mode = target.query.get("sslmode")  # asyncpg knows libpq's words, under another name
    return target.difference_update_query(["sslmode"]), {} if mode is None else {"ssl": mode}


def _refuse_dead(connection: Any, _record: Any, _proxy: Any) -> None:
    """A connection that the server has closed is replaced before use; costs no round trip, as a ping would."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError
