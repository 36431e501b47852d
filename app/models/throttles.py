from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.domain.throttling import Way
from app.models.base import Base, Bytes, Moment, Words, one_of


class LoginThrottleRow(Base):
    """
    Failures in a row, and the guesses that are being looked at.

    `account` is a keyed digest of the name, so that names nobody has are counted exactly like others. `holder` is a
    keyed digest of the device or session; empty: all of them together.
    """

    __tablename__ = "login_throttle"
    __table_args__ = (
        Index("ix_login_throttle_last_failure_at", "last_failure_at"),  # the job that removes what has decayed
        CheckConstraint("octet_length(account) = 32", name="account_length"),
        CheckConstraint("octet_length(holder) IN (0, 32)", name="holder_length"),
        CheckConstraint(one_of("way", Way), name="way"),
        CheckConstraint("failures > 0", name="failures"),
    )

    account: Mapped[Bytes] = mapped_column(primary_key=True)
    way: Mapped[Words] = mapped_column(primary_key=True)
    holder: Mapped[Bytes] = mapped_column(primary_key=True)
    failures: Mapped[int]
    begun_at: Mapped[Moment]
    blocked_until: Mapped[Moment | None]
    last_failure_at: Mapped[Moment]


class AddressThrottleRow(Base):
    """
    When the bucket of an address is full again, and that of all together (`*`).

    Written at each sign-in of an unknown device, and worth little: unlogged, so that no log is written for it, and
    empty after a crash. No index on the time: there are few rows, since whatever is full again is removed.
    """

    __tablename__ = "address_throttle"
    __table_args__ = (  # room on each page for the next version of a row beside it
        {"prefixes": ["UNLOGGED"], "postgresql_with": {"fillfactor": 50}},
    )

    place: Mapped[Words] = mapped_column(primary_key=True)
    full_at: Mapped[Moment]
