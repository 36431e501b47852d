"""A doctor for a database of the test's own, asked for one check at a time."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from app.cli.schema import find_drift
from app.command_services import build_doctor
from app.domain.checks import Examination
from app.domain.clock import Clock
from app.jobs.schedule import JOBS
from app.repositories.engine import APP
from app.repositories.logins import make_login
from app.settings import examine_settings
from tests.conftest import WORKER, OwnDatabase

STRONG = "Yb7w1kQ0vXr9sT3nLz6mPc2hGd8jFa4uEo5iKxWq"
LOGIN = f"rota_doctor_{WORKER}"

Examine = Callable[..., Awaitable[Examination]]


@pytest_asyncio.fixture
async def environment(own: OwnDatabase) -> dict[str, str]:
    """What a server of this database would be started with; a login of the test's own."""
    url = await make_login(own.owner, LOGIN, role=APP, password="rota_test")
    return {"ROTA_DATABASE_URL": url, "ROTA_MIGRATION_DATABASE_URL": own.owner, "ROTA_SECRETS": STRONG}


@pytest.fixture
def examine(environment: dict[str, str]) -> Examine:
    """Make one check, with more variables, or with options of the doctor's."""

    async def one(check: str, clock: Clock | None = None, more: dict[str, str] | None = None, **options: Any) -> Any:
        examined = examine_settings({**environment, **(more or {})})
        async with build_doctor(examined, duties=JOBS, find_drift=find_drift, clock=clock, **options) as doctor:
            (found,) = [each async for each in doctor.examine([check])]
            return found

    return one
