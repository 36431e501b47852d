from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Id, Moment, Words


class RefusalRow(Base):
    """Refusals of one kind, family and minute, counted. The first has its event; the job writes one for the rest."""

    __tablename__ = "refusals"
    __table_args__ = (
        CheckConstraint("action IN ('refresh.refused', 'refresh.forged', 'refresh.misdirected')", name="action"),
        CheckConstraint("count > 0", name="count"),
    )

    user_id: Mapped[Id] = mapped_column(primary_key=True)
    family_id: Mapped[Id] = mapped_column(primary_key=True)
    action: Mapped[Words] = mapped_column(primary_key=True)
    minute: Mapped[Moment] = mapped_column(primary_key=True)
    count: Mapped[int]


class LoginFailureRow(Base):
    """Failed sign-ins that are alike, counted: the first few have events, the job writes one for the rest."""

    __tablename__ = "login_failures"
    __table_args__ = (
        Index("ix_login_failures_minute", "minute"),
        CheckConstraint("count > 0", name="count"),
    )

    subject_id: Mapped[Id] = mapped_column(primary_key=True)
    reason: Mapped[Words] = mapped_column(primary_key=True)
    source: Mapped[Words] = mapped_column(primary_key=True)
    minute: Mapped[Moment] = mapped_column(primary_key=True)
    count: Mapped[int]
