"""
Counts of failed sign-ins, by account and by address, and when a user's devices were forgotten.

Why: guessing must be slowed down in all processes together, so the counts are in the database. Those of accounts
survive a crash. Those of addresses are written at each sign-in of an unknown device and are worth a minute's wait:
unlogged.
Locks: ACCESS EXCLUSIVE on users for a moment, for a column without a default; none on anything else that exists.
How long: milliseconds.
Back: drops the tables and the column. All counts begin anew, and forgotten devices are known again.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
phase: str = "expand"
oldest_release: str = "0.1.0"
rewrites: bool = False

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "login_throttle",
        sa.Column("account", sa.LargeBinary(), nullable=False),
        sa.Column("way", sa.Text(), nullable=False),
        sa.Column("holder", sa.LargeBinary(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("begun_at", MOMENT, nullable=False),
        sa.Column("blocked_until", MOMENT),
        sa.Column("last_failure_at", MOMENT, nullable=False),
        sa.CheckConstraint("octet_length(account) = 32", name=op.f("ck_login_throttle_account_length")),
        sa.CheckConstraint("octet_length(holder) IN (0, 32)", name=op.f("ck_login_throttle_holder_length")),
        sa.CheckConstraint("way IN ('password', 'device', 'session')", name=op.f("ck_login_throttle_way")),
        sa.CheckConstraint("failures > 0", name=op.f("ck_login_throttle_failures")),
        sa.PrimaryKeyConstraint("account", "way", "holder", name=op.f("pk_login_throttle")),
    )
    op.create_index("ix_login_throttle_last_failure_at", "login_throttle", ["last_failure_at"])
    op.create_table(
        "address_throttle",
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("full_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("place", name=op.f("pk_address_throttle")),
        prefixes=["UNLOGGED"],
        postgresql_with={"fillfactor": 50},
    )
    op.add_column("users", sa.Column("devices_forgotten_at", MOMENT))
    for table in ("login_throttle", "address_throttle"):
        op.execute(f"ALTER TABLE {table} OWNER TO rota_owner")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO rota_app")


def downgrade() -> None:
    op.drop_column("users", "devices_forgotten_at")
    op.drop_table("address_throttle")
    op.drop_table("login_throttle")
