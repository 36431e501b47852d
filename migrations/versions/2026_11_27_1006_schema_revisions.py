"""
What each applied revision declared.

Why: an older release must be able to tell whether it may run on a schema that a newer one has made.
Locks: none on anything that exists.
How long: milliseconds.
Back: drops the table; the next upgrade fills it again from the revisions' files.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
phase: str = "expand"
oldest_release: str = "0.1.0"
rewrites: bool = False


def upgrade() -> None:
    op.create_table(
        "schema_revisions",
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("oldest_release", sa.Text(), nullable=False),
        sa.Column("rewrites", sa.Boolean(), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("phase IN ('expand', 'migrate', 'contract')", name=op.f("ck_schema_revisions_phase")),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_schema_revisions")),
    )
    # The rows are written by whoever applies revisions (env.py), in the transaction of each.
    op.execute("ALTER TABLE schema_revisions OWNER TO rota_owner")
    op.execute("GRANT SELECT ON schema_revisions, alembic_version TO rota_app")


def downgrade() -> None:
    op.execute("REVOKE SELECT ON alembic_version FROM rota_app")
    op.drop_table("schema_revisions")
