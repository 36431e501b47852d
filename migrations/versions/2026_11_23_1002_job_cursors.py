"""
Where batch jobs go on.

Why: the expiry job walks the live sessions in bounded batches and must not begin anew each time.
Locks: none on anything that exists.
How long: milliseconds.
Back: drops the table; jobs begin anew.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
phase: str = "expand"
oldest_release: str = "0.1.0"
rewrites: bool = False


def upgrade() -> None:
    op.create_table(
        "job_cursors",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("position", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_job_cursors")),
    )


def downgrade() -> None:
    op.drop_table("job_cursors")
