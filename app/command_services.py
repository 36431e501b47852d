"""Services that single commands build for an occasion, beside those of the container, and close after use."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from app.container import Container
from app.domain.clock import Clock
from app.domain.jobs import Duty
from app.repositories.database import Database
from app.repositories.engine import OWNER, make_engine
from app.repositories.inspection import Inspection
from app.services.admin_reads import AdminReads
from app.services.doctor import Doctor
from app.services.job_runs import JobRuns
from app.services.key_calendar import KeyCalendar
from app.services.patient import Patient
from app.services.patient import Services as ServicesToExamine
from app.services.retention import Retention
from app.services.sealing import Sealing
from app.settings import Examined, Settings

INSPECTION_SECONDS: Final = 4.0  # for a statement of the doctor's


def build_retention(services: Container) -> tuple[Retention, Database]:
    """The service that removes months, and its database, which acts as the owner and is to be closed after use."""
    settings = services.settings
    owner = Database(make_engine(settings.maintenance_url, pool_size=2, role=OWNER), services.clock, hot_connections=1)
    retention = Retention(
        services.database,
        owner,
        services.exports,
        days=settings.audit_retention_days,
        legal_hold=settings.audit_legal_hold,
    )
    return retention, owner


def build_key_calendar(settings: Settings, *, has_database: bool) -> tuple[KeyCalendar, Database | None]:
    """The calendar of keys, and its database, which is to be closed after use; needs neither a database nor secrets."""
    clock, database = Clock(), None
    if has_database:
        engine = make_engine(settings.database_url.get_secret_value(), pool_size=1, application_name="rota-keys")
        database = Database(engine, clock, hot_connections=1)
    return KeyCalendar(settings.secret_list, database, clock, settings.lifetimes), database


@asynccontextmanager
async def build_doctor(
    examined: Examined,
    *,
    duties: Sequence[Duty],
    find_drift: Callable[[str], str | None],
    backup_stamp: str = "",
    processes: int | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Doctor]:
    """A doctor for an environment that may be wrong in any way; see `Patient`."""
    settings, clock = examined.settings, clock or Clock()
    url = settings.database_url.get_secret_value()
    engine = make_engine(url, pool_size=1, application_name="rota-doctor")
    database = Database(engine, clock, hot_connections=1)
    services = None
    if settings.secret_list and not examined.complaints:
        services = ServicesToExamine(
            database,
            Sealing(database, origin=settings.log_origin, origin_is_set=bool(settings.audit_origin)),
            JobRuns(database, settings, AdminReads(database)),
            KeyCalendar(settings.secret_list, database, clock, settings.lifetimes),
        )
    inspection = Inspection(url, seconds=INSPECTION_SECONDS)
    patient = Patient(examined, inspection, services, duties, clock, find_drift, processes, backup_stamp)
    try:
        yield Doctor(patient)
    finally:
        await database.close()
