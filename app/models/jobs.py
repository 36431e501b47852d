from sqlalchemy import BigInteger, CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Id, Moment, Words


class JobCursorRow(Base):
    """Where a job that walks a table in batches goes on."""

    __tablename__ = "job_cursors"

    job: Mapped[Words] = mapped_column(primary_key=True)
    position: Mapped[Id]
    began_at: Mapped[Moment | None]  # when the walk began; none if it left something out


class JobRunRow(Base):
    """How a job has been going; written by whoever ran it. See `JobRun`."""

    __tablename__ = "job_runs"
    __table_args__ = (
        CheckConstraint("rows >= 0 AND total >= 0", name="counts"),
        CheckConstraint("char_length(error) <= 500", name="error_length"),
    )

    job: Mapped[Words] = mapped_column(primary_key=True)
    began_at: Mapped[Moment]
    ended_at: Mapped[Moment]
    next_at: Mapped[Moment]
    rows: Mapped[int] = mapped_column(BigInteger)
    found_at: Mapped[Moment | None]
    total: Mapped[int] = mapped_column(BigInteger)
    whole_since: Mapped[Moment | None]
    error: Mapped[Words | None]
    failed_at: Mapped[Moment | None]
