from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.domain.clients import USER_AGENT_BYTES
from app.domain.families import FIRST_PARTY_CLIENT, LABEL_CHARACTERS, EndReason
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
        # Finding sessions: each index goes on with the id, the order of the list. Not among them is what nearly all
        # have: whoever asks for that finds it by walking the ids.
        Index("ix_families_created_ip", "created_ip", "id"),
        Index("ix_families_device", "device", "id"),
        Index("ix_families_browser", "browser", "id"),
        Index("ix_families_os", "os", "id"),
        Index("ix_families_client", "client_id", "id", postgresql_where=text(f"client_id <> '{FIRST_PARTY_CLIENT}'")),
        Index("ix_families_role", "role", "id", postgresql_where=text(f"role <> '{Role.USER.value}'")),
        # Written once, at the end; together they also find whatever has ended.
        Index("ix_families_end_reason", "end_reason", "id", postgresql_where=text("end_reason IS NOT NULL")),
        Index("ix_families_ended_by", "ended_by", "id", postgresql_where=text("ended_by IS NOT NULL")),
        # How long sessions may live, as was set at their time: who asks for those used since then need look no earlier.
        Index("ix_families_life", text("(extract(epoch FROM expires_at - created_at)::bigint)")),
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
