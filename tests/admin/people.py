"""Administrators as a client sees them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from app.domain.users import Role
from tests.conftest import Person


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


MakeAdmin = Callable[..., Awaitable[Admin]]
ADMIN = Role.ADMIN
