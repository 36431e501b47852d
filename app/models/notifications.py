from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.domain.notifications import NotificationKind
from app.models.base import Base, Id, Moment, Words, one_of


class NotificationRow(Base):
    """
    What the owner of an account is yet to be told: an outbox, written with the change itself.

    A row is removed when a mailer acknowledges it, so all rows are pending. No name, address or agent: a person is
    named by id, and what more there is to say stands in the trail.
    """

    __tablename__ = "notifications"
    __table_args__ = (
        Index("ix_notifications_id", "id"),  # a mailer reads and acknowledges across users, in order of creation
        CheckConstraint(one_of("kind", NotificationKind), name="kind"),
    )

    user_id: Mapped[Id] = mapped_column(primary_key=True)
    id: Mapped[Id] = mapped_column(primary_key=True)
    kind: Mapped[Words]
    created_at: Mapped[Moment]
