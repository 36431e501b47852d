from sqlalchemy import BigInteger, CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.domain.revocations import WHY_CHARACTERS, RevocationState
from app.models.base import Base, Bytes, Id, Moment, Words, Xid, one_of


class SessionRevocationRow(Base):
    """
    A bulk end of sessions: what is to end, and how far it has come.

    `filter` is what the work needs and goes when it is over, since it may hold an address; `shown` is the same with
    addresses as keyed hashes, and stays. `xact_id` is the transaction that made the row: all sign-ins before the cut
    had begun by then. `listed`: found by the filter's own index; else by a walk over the live sessions; null: not yet
    tried. `again_from`: the first session that this walk left behind because somebody held its row.
    """

    __tablename__ = "session_revocations"
    __table_args__ = (
        # Every process looks for open ones each second, however many are over.
        Index("ix_session_revocations_open", "id", postgresql_where=text("finished_at IS NULL")),
        CheckConstraint(one_of("state", RevocationState), name="state"),
        CheckConstraint("end_reason = 'bulk_admin' OR end_reason = 'restore'", name="reason"),
        CheckConstraint("(finished_at IS NULL) = (state IN ('queued', 'running'))", name="finished"),
        CheckConstraint(
            f"char_length(why) BETWEEN {WHY_CHARACTERS.start} AND {WHY_CHARACTERS.stop - 1}", name="why_length"
        ),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    state: Mapped[Words]
    filter: Mapped[Words | None]
    shown: Mapped[Words]
    cut: Mapped[Moment]
    end_reason: Mapped[Words]
    why: Mapped[Words]
    requested_by: Mapped[Id | None]
    spared: Mapped[Id | None]
    # Digest of the fingerprint that it was started with: the same starts it once, however often it is sent.
    preview: Mapped[Bytes | None] = mapped_column(unique=True)
    expected: Mapped[int] = mapped_column(BigInteger)
    xact_id: Mapped[Xid] = mapped_column(server_default=text("pg_current_xact_id()"))
    listed: Mapped[bool | None]
    settled: Mapped[bool] = mapped_column(server_default=text("false"))
    cursor: Mapped[Id]
    again_from: Mapped[Id | None]
    ended: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    looked_at: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    created_at: Mapped[Moment]
    started_at: Mapped[Moment | None]
    worked_at: Mapped[Moment | None]
    finished_at: Mapped[Moment | None]
