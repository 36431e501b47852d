from sqlalchemy import BigInteger, CheckConstraint, Index
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.domain.events import ActorKind
from app.domain.user_imports import ImportFormat
from app.models.base import Base, Bytes, Id, Moment, Words, one_of


class UserImportRow(Base):
    """
    How far an import of users has come: written with each batch, so that it goes on exactly there. See `UserImport`.

    Neither a name nor the path of the file is kept.
    """

    __tablename__ = "user_imports"
    __table_args__ = (
        # One that was broken off is found by where its file lies, to tell a file that was altered since.
        Index("ix_user_imports_place", "place"),
        CheckConstraint("octet_length(digest) = 32 AND octet_length(place) = 32", name="digest_lengths"),
        CheckConstraint(one_of("form", ImportFormat), name="form"),
        CheckConstraint(one_of("actor_kind", ActorKind), name="actor_kind"),
        CheckConstraint("users >= 0 AND admins >= 0 AND disabled >= 0 AND skipped >= 0", name="counts"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    digest: Mapped[Bytes] = mapped_column(unique=True)  # the same file is imported once, wherever it lies
    place: Mapped[Bytes]
    size: Mapped[int] = mapped_column(BigInteger)
    form: Mapped[Words]
    total: Mapped[int] = mapped_column(BigInteger)
    lines_done: Mapped[int] = mapped_column(BigInteger)
    users: Mapped[int] = mapped_column(BigInteger)
    admins: Mapped[int] = mapped_column(BigInteger)
    disabled: Mapped[int] = mapped_column(BigInteger)
    skipped: Mapped[int] = mapped_column(BigInteger)
    skipped_lines: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    actor_kind: Mapped[Words]
    actor_id: Mapped[Id | None]
    started_at: Mapped[Moment]
    worked_at: Mapped[Moment]
    finished_at: Mapped[Moment | None]
