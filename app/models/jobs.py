from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Id, Words


class JobCursorRow(Base):
    """Where a job that walks a table in batches goes on."""

    __tablename__ = "job_cursors"

    job: Mapped[Words] = mapped_column(primary_key=True)
    position: Mapped[Id]
