"""Administrators as a client sees them, and bulk ends as they order them."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio

from app.container import Container
from app.domain.users import Role
from app.services.revocation_work import Step
from tests.conftest import MakePerson, Person


@dataclass(frozen=True)
class Admin:
    """Somebody signed in who may act on others."""

    person: Person
    session_id: UUID
    access_token: str

    @property
    def id(self) -> UUID:
        return self.person.user.id

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}

    async def order(self, http: httpx2.AsyncClient, **body: Any) -> httpx2.Response:
        return await http.post("/admin/sessions/revocations", json=body, headers=self.headers)

    async def start(self, http: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
        """A dry run, and the order that it leads to."""
        seen = await self.order(http, **body, dry_run=True)
        assert seen.status_code == 200, seen.text
        started = await self.order(http, **body, fingerprint=seen.json()["fingerprint"], reason="ticket 4711")
        assert started.status_code == 202, started.text
        answer: dict[str, Any] = started.json()
        return answer


MakeAdmin = Callable[..., Awaitable[Admin]]


@pytest.fixture
def make_admin(make_person: MakePerson) -> MakeAdmin:
    async def make(role: Role = Role.ADMIN) -> Admin:
        person = await make_person(role=role)
        issued = await person.sign_in()
        return Admin(person, issued.session_id, issued.access_token)

    return make


@pytest_asyncio.fixture
async def admin(make_admin: MakeAdmin) -> Admin:
    return await make_admin()


@pytest.fixture
def name() -> str:
    """The beginning of the names of those whom a test is about."""
    return f"bulk-{secrets.token_hex(6)}"


async def work_off(services: Container, revocation_id: str, batches: int = 10_000) -> Step:
    """Do the batches of one bulk end, up to so many; the last step."""
    step = Step.NOTHING
    for _ in range(batches):
        step = await services.revocation_work.advance(UUID(revocation_id))
        if step is not Step.WORKED:
            break
    return step
