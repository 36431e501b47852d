from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.domain.clients import USER_AGENT_BYTES
from app.domain.families import LABEL_CHARACTERS, EndReason
from app.domain.users import Role
from app.models.base import Address, Base, Bytes, Id, Moment, Small, Words, Xid, one_of


class FamilyRow(Base):
    """
    A session, which is its refresh-token family.

    Rotation writes generation, event_seq, rotated_at, idle_expires_at, last_ip and attempt: no index may stand on
    any of them, or each refresh would write every index anew. A page keeps 15 % free for the new row version.
    """

    __tablename__ = "families"
    __table_args__ = (
        # All families in order of creation; ids are UUIDv7.
        Index("ix_families_id", "id"),
        # The expiry job walks the live ones in order of creation, with a stored cursor.
        Index("ix_families_live", "id", postgresql_where=text("ended_at IS NULL")),
        # The session cap and "end all others" see a user's live families, however many ended ones are kept.
        Index("ix_families_user_live", "user_id", "id", postgresql_where=text("ended_at IS NULL")),
        # Who follows the ends goes on after a transaction; who begins to follow loads those since a time.
        Index("ix_families_ended", "ended_xact", "id", postgresql_where=text("ended_at IS NOT NULL")),
        Index("ix_families_ended_at", "ended_at", "id", postgresql_where=text("ended_at IS NOT NULL")),
        CheckConstraint(one_of("role", Role), name="role"),
        CheckConstraint(one_of("end_reason", EndReason), name="end_reason"),
        CheckConstraint("(ended_at IS NULL) = (end_reason IS NULL)", name="ended_with_reason"),
        CheckConstraint("(ended_at IS NULL) = (ended_xact IS NULL)", name="ended_with_xact"),
        CheckConstraint("octet_length(seed) = 32", name="seed_length"),
        CheckConstraint("generation >= 0", name="generation"),
        CheckConstraint(f"octet_length(user_agent) <= {USER_AGENT_BYTES}", name="user_agent_length"),
        CheckConstraint(f"char_length(label) <= {LABEL_CHARACTERS}", name="label_length"),
        {"postgresql_with": {"fillfactor": "85"}},
    )

    user_id: Mapped[Id] = mapped_column(primary_key=True)
    id: Mapped[Id] = mapped_column(primary_key=True)
    seed: Mapped[Bytes]
    generation: Mapped[int]
    event_seq: Mapped[int]
    client_id: Mapped[Words]
    scope: Mapped[Words]
    role: Mapped[Words]
    authenticated_at: Mapped[Moment]
    amr: Mapped[Words]
    acr: Mapped[Words | None]
    created_at: Mapped[Moment]
    rotated_at: Mapped[Moment | None]
    idle_expires_at: Mapped[Moment]
    expires_at: Mapped[Moment]
    ended_at: Mapped[Moment | None]
    end_reason: Mapped[Words | None]
    ended_by: Mapped[Id | None]
    ended_xact: Mapped[Xid | None]
    attempt: Mapped[Bytes | None]
    # What replays leave behind: the generation whose replay has its event, and strangers' rides in a row.
    replayed_generation: Mapped[int | None]
    ride_along_generation: Mapped[int | None]
    ride_along_count: Mapped[Small] = mapped_column(server_default=text("0"))
    created_ip: Mapped[Address | None]
    last_ip: Mapped[Address | None]
    user_agent: Mapped[Words | None]
    device: Mapped[Words | None]
    browser: Mapped[Words | None]
    os: Mapped[Words | None]
    label: Mapped[Words | None]
