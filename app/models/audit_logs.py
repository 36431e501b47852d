from sqlalchemy import ARRAY, BigInteger, CheckConstraint, Index, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Bytes, Id, Moment, Small, Words, Xid


class AuditLogRow(Base):
    """
    One incarnation of the sealed log: the tree's head, and how far the sealer has come.

    `edge` holds the right edge, one item a level: the hashes of that level's unfinished tile, 32 bytes each. `opening`
    is the first entry of a further incarnation, which is no event.
    """

    __tablename__ = "audit_logs"
    __table_args__ = (
        UniqueConstraint("origin"),
        CheckConstraint("tree_size >= 0", name="tree_size"),
        CheckConstraint("octet_length(root) = 32", name="root_length"),
    )

    epoch: Mapped[Small] = mapped_column(primary_key=True, autoincrement=False)
    origin: Mapped[Words]
    opening: Mapped[Words | None]
    tree_size: Mapped[int] = mapped_column(BigInteger)
    root: Mapped[Bytes]
    edge: Mapped[list[bytes]] = mapped_column(ARRAY(LargeBinary))
    cursor_epoch: Mapped[Small]
    cursor_xact: Mapped[Xid]
    cursor_seq: Mapped[int] = mapped_column(BigInteger)
    minimum_index: Mapped[int] = mapped_column(BigInteger)


class AuditBatchRow(Base):
    """What one step of the sealer sealed: after its `from` cursor, up to and with its `to` cursor. Insert-only."""

    __tablename__ = "audit_batches"
    __table_args__ = (
        # From an event's place to its index in the tree.
        Index("ix_audit_batches_to", "epoch", "to_epoch", "to_xact", "to_seq"),
        # From a time range to a range of indexes.
        Index("ix_audit_batches_last_at", "epoch", "last_at"),
        Index("ix_audit_batches_first_at", "epoch", "first_at"),
        CheckConstraint("count > 0", name="count"),
    )

    epoch: Mapped[Small] = mapped_column(primary_key=True)
    first_index: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    count: Mapped[int]
    from_epoch: Mapped[Small]
    from_xact: Mapped[Xid]
    from_seq: Mapped[int] = mapped_column(BigInteger)
    to_epoch: Mapped[Small]
    to_xact: Mapped[Xid]
    to_seq: Mapped[int] = mapped_column(BigInteger)
    root: Mapped[Bytes]
    first_at: Mapped[Moment]
    last_at: Mapped[Moment]
    sealed_at: Mapped[Moment]


class AuditTileRow(Base):
    """A full tile: 256 hashes (C2SP tlog-tiles). Insert-only, kept for ever."""

    __tablename__ = "audit_tiles"
    __table_args__ = (CheckConstraint("octet_length(data) = 8192", name="full"),)

    epoch: Mapped[Small] = mapped_column(primary_key=True)
    level: Mapped[Small] = mapped_column(primary_key=True)
    idx: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    data: Mapped[Bytes]


class AuditCheckpointRow(Base):
    """A signed tree head. The key is what makes a second root for a size fail. Insert-only."""

    __tablename__ = "audit_checkpoints"

    epoch: Mapped[Small] = mapped_column(primary_key=True)
    tree_size: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    root: Mapped[Bytes]
    note: Mapped[Words]
    signed_at: Mapped[Moment]


class AuditSaltRow(Base):
    """What hides a person's data in their events' commitments. It is deleted when the person is erased."""

    __tablename__ = "audit_salts"
    __table_args__ = (CheckConstraint("octet_length(salt) = 32", name="length"),)

    subject_id: Mapped[Id] = mapped_column(primary_key=True)
    salt: Mapped[Bytes]
