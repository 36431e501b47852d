"""What stands between us and the database: said at the start, before anything goes wrong by it."""

from typing import Final

from app.domain.clock import Clock
from app.domain.errors import RoleNotTaken, RotaError, Unavailable
from app.domain.schema import PoolerInTheWay
from app.observability.logs import get_logger
from app.repositories.database import Database
from app.repositories.engine import make_engine
from app.repositories.migrations import refuse_pooler, translated
from app.settings import Settings

log = get_logger()

_REFUSED: Final = "SQLSTATE 08P01"  # a pooler's word for startup parameters that it does not hand on


class PoolerUnnamed(PoolerInTheWay):
    """A pooler, and nobody told us."""

    message = (
        "ROTA_DATABASE_URL leads to a connection pooler: set ROTA_DIRECT_DATABASE_URL to a URL that leads to the "
        "database itself, so that what cannot go through a pooler goes there."
    )


class DirectUrlPooled(PoolerInTheWay):
    """The URL that should lead past the pooler."""

    message = "ROTA_DIRECT_DATABASE_URL leads to a transaction pooler; it must lead to the database itself."


async def find_obstacle(settings: Settings) -> RotaError | None:
    """
    What is wrong with the way to the database; `None` also if the database does not answer.

    Two connections at most, one of them only behind a proxy.
    """
    try:
        with translated():
            await refuse_pooler(settings.direct_url.replace("postgresql+asyncpg://", "postgresql://", 1))
        if not settings.is_pooled:
            await _try_as_server(settings)
    except (PoolerInTheWay, RoleNotTaken):
        return DirectUrlPooled() if settings.is_pooled else PoolerUnnamed()
    except Unavailable as error:
        if error.why == _REFUSED and not settings.is_pooled:
            return PoolerUnnamed()
        log.info("database.way_not_seen", why=error.why)
    return None


async def _try_as_server(settings: Settings) -> None:
    database = Database(make_engine(settings.direct_url, pool_size=1), Clock(), hot_connections=1)
    try:
        async with database.begin() as db:
            await db.now()
    finally:
        await database.close()
