from sqlalchemy import BigInteger, CheckConstraint, Index, desc
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Id, Moment, Small, Words, Xid

_WIDTHS = "width IN ('hour', 'day')"


class StatPositionRow(Base):
    """One row: up to which place of the sealed order the trail is counted, and the running sums there."""

    __tablename__ = "stat_positions"
    __table_args__ = (CheckConstraint("id = 1", name="only_one"),)

    id: Mapped[Small] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[Small]
    xact: Mapped[Xid]
    seq: Mapped[int] = mapped_column(BigInteger)
    events: Mapped[int] = mapped_column(BigInteger)
    open_sessions: Mapped[int] = mapped_column(BigInteger)
    open_users: Mapped[int] = mapped_column(BigInteger)
    counted_at: Mapped[Moment | None]


class StatCountRow(Base):
    """How often something happened in an hour or a day (UTC). `reason` is empty where an event has none."""

    __tablename__ = "stat_counts"
    __table_args__ = (CheckConstraint(_WIDTHS, name="width"),)

    width: Mapped[Words] = mapped_column(primary_key=True)
    start: Mapped[Moment] = mapped_column(primary_key=True)
    action: Mapped[Words] = mapped_column(primary_key=True)
    outcome: Mapped[Words] = mapped_column(primary_key=True)
    reason: Mapped[Words] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class StatSourceRow(Base):
    """
    How many failures came from an address (IPv6: a /64) or an agent in an hour or a day. Personal data.

    An empty value stands for those that are not known, and for those of people who were erased since.
    """

    __tablename__ = "stat_sources"
    __table_args__ = (
        CheckConstraint(_WIDTHS, name="width"),
        CheckConstraint("kind IN ('address', 'agent')", name="kind"),
        # The largest of an hour or day, without reading the others.
        Index("ix_stat_sources_top", "width", "kind", "start", desc("count")),
    )

    width: Mapped[Words] = mapped_column(primary_key=True)
    kind: Mapped[Words] = mapped_column(primary_key=True)
    start: Mapped[Moment] = mapped_column(primary_key=True)
    value: Mapped[Words] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class StatUserRow(Base):
    """How many sessions of a user have begun and not ended, by the trail as far as it is counted; no row: none."""

    __tablename__ = "stat_users"

    user_id: Mapped[Id] = mapped_column(primary_key=True)
    open: Mapped[int]
