from sqlalchemy import CheckConstraint, Index, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from app.domain.users import Role
from app.models.base import Base, Bytes, Id, Moment, Words, one_of


class UserRow(Base):
    """A person. On a cluster spread by user this table is a reference table."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("username_key"),  # one canonical form, one account; serves sign-in
        # Search by the beginning of a name, byte by byte: no collation, and no pattern in which a character means more.
        Index("ix_users_prefix", "username_key", postgresql_ops={"username_key": "text_pattern_ops"}),
        # The list is in order of creation, by itself or within a range.
        Index("ix_users_created", "created_at", "id"),
        # Auditors and administrators are few, and so are those shut out: neither may be found by walking all users.
        Index("ix_users_elevated", "role", "created_at", "id", postgresql_where=text("role <> 'user'")),
        Index("ix_users_disabled", "created_at", "id", postgresql_where=text("disabled_at IS NOT NULL")),
        CheckConstraint(one_of("role", Role), name="role"),
        CheckConstraint("(deleted_at IS NULL) = (username_key IS NOT NULL)", name="deleted_without_key"),
        CheckConstraint("deleted_at IS NULL OR disabled_at IS NOT NULL", name="deleted_disabled"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    username: Mapped[Words]
    username_key: Mapped[Words | None]  # given up by whoever was deleted
    password_hash: Mapped[Words | None]  # none of whoever signs in elsewhere, or has yet to set one
    role: Mapped[Words]
    disabled_at: Mapped[Moment | None]
    created_at: Mapped[Moment]
    password_changed_at: Mapped[Moment]
    erased_at: Mapped[Moment | None]  # a pseudonym since then: the row says nothing of the person any more
    deleted_at: Mapped[Moment | None]  # a tombstone since then: who was behind an id of the trail
    must_change_password: Mapped[bool] = mapped_column(server_default=false())
    devices_forgotten_at: Mapped[Moment | None]  # device tokens until then count for nothing


class PasswordTokenRow(Base):
    """The set-password token of a user: the newest is the only one. The keyed hash of it, not the token."""

    __tablename__ = "password_tokens"
    __table_args__ = (
        Index("ix_password_tokens_expires_at", "expires_at"),  # the job that removes those past their time
        CheckConstraint("octet_length(digest) = 32", name="digest_length"),
    )

    user_id: Mapped[Id] = mapped_column(primary_key=True)
    digest: Mapped[Bytes]
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment]
