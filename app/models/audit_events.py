from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, PrimaryKeyConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.domain.clients import USER_AGENT_BYTES
from app.domain.events import DETAIL_BYTES, NAME_BYTES, ActorKind, Outcome
from app.models.base import Address, Base, Bytes, Id, Moment, Small, Words, Xid, one_of


class AuditEventRow(Base):
    """
    The trail: insert-only, partitioned by month, never rewritten, so it has all its columns from the start.

    No foreign keys: a row must outlive what it tells of. No default partition: it would hide a missing one. Columns
    stand in order of alignment, which saves 16 bytes a row.
    """

    __tablename__ = "audit_events"
    __table_args__ = (
        # A person's own trail, and with the partition key in it.
        PrimaryKeyConstraint("subject_id", "occurred_at", "id"),
        # The sealer's order: what has committed, by transaction, then sequence.
        Index("ix_audit_events_seal", "epoch", "xact_id", "seq"),
        # Browsing everything by time.
        Index("ix_audit_events_time", "occurred_at", "id"),
        # Everything from one address; the only index besides the first three that a refresh writes.
        Index("ix_audit_events_ip", "ip", "occurred_at"),
        # One action. Refreshes are nearly everything, so browsing by time finds them.
        Index(
            "ix_audit_events_action", "action", "occurred_at", postgresql_where=text("action <> 'session.refreshed'")
        ),
        # All that failed.
        Index("ix_audit_events_failure", "occurred_at", postgresql_where=text("outcome = 'failure'")),
        # What somebody did to others; what they did for themselves is in their own trail.
        Index("ix_audit_events_actor", "actor_id", "occurred_at", postgresql_where=text("actor_id <> subject_id")),
        CheckConstraint(one_of("outcome", Outcome), name="outcome"),
        CheckConstraint(one_of("actor_kind", ActorKind), name="actor_kind"),
        CheckConstraint(
            f"octet_length(action) <= {NAME_BYTES} AND coalesce(octet_length(reason), 0) <= {NAME_BYTES} "
            f"AND coalesce(octet_length(detail), 0) <= {DETAIL_BYTES}",
            name="sizes",
        ),
        CheckConstraint(f"octet_length(user_agent) <= {USER_AGENT_BYTES}", name="user_agent_length"),
        {"postgresql_partition_by": "RANGE (occurred_at)"},
    )

    occurred_at: Mapped[Moment]
    xact_id: Mapped[Xid] = mapped_column(server_default=text("pg_current_xact_id()"))
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    family_seq: Mapped[int | None]
    generation: Mapped[int | None]
    epoch: Mapped[Small] = mapped_column(server_default=text("1"))
    version: Mapped[Small]
    id: Mapped[Id]
    subject_id: Mapped[Id]
    actor_id: Mapped[Id | None]
    family_id: Mapped[Id | None]
    request_id: Mapped[Id | None]
    action: Mapped[Words]
    outcome: Mapped[Words]
    reason: Mapped[Words | None]
    actor_kind: Mapped[Words]
    ip: Mapped[Address | None]
    user_agent: Mapped[Words | None]
    commitment: Mapped[Bytes | None]  # takes the place of ip and user_agent when a person is erased
    detail: Mapped[Words | None]  # canonical JSON as text: jsonb drops duplicate keys and reorders
