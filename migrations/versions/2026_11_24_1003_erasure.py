"""
Erased people, and counted failures to sign in.

Why: a person can ask to be forgotten, and a flood of failed sign-ins must not fill the trail.
Locks: ACCESS EXCLUSIVE on users for a moment: a nullable column without a default.
How long: milliseconds.
Back: drops the counts of the current minute and the dates of erasures; who was erased stays so.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
phase: str = "expand"
oldest_release: str = "0.1.0"
rewrites: bool = False

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("users", sa.Column("erased_at", MOMENT))
    op.create_table(
        "login_failures",
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("minute", MOMENT, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.CheckConstraint("count > 0", name=op.f("ck_login_failures_count")),
        sa.PrimaryKeyConstraint("subject_id", "reason", "source", "minute", name=op.f("pk_login_failures")),
    )
    op.create_index("ix_login_failures_minute", "login_failures", ["minute"])
    op.execute("ALTER TABLE login_failures OWNER TO rota_owner")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON login_failures TO rota_app")


def downgrade() -> None:
    op.drop_table("login_failures")
    op.drop_column("users", "erased_at")
