from sqlalchemy import CheckConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.domain.users import Role
from app.models.base import Base, Id, Moment, Words, one_of


class UserRow(Base):
    """A person. On a cluster spread by user this table is a reference table."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("username_key"),  # one canonical form, one account; serves sign-in
        CheckConstraint(one_of("role", Role), name="role"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    username: Mapped[Words]
    username_key: Mapped[Words]
    password_hash: Mapped[Words]
    role: Mapped[Words]
    disabled_at: Mapped[Moment | None]
    created_at: Mapped[Moment]
    password_changed_at: Mapped[Moment]
    erased_at: Mapped[Moment | None]  # a pseudonym since then: the row says nothing of the person any more
