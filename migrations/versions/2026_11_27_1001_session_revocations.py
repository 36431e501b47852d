"""
Bulk ends of sessions, as jobs that any process can go on with.

Why: ending a million sessions takes longer than a request, a connection or a process may live. Where the work stands is
written in the same transaction as the work.
Locks: none on anything that exists.
How long: milliseconds.
Back: drops the table. What is under way stops where it is; every session that has ended stays so, with its event.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
phase: str = "expand"
oldest_release: str = "0.1.0"
rewrites: bool = False

MOMENT = sa.DateTime(timezone=True)


class Xid8(sa.types.UserDefinedType[int]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "XID8"


def upgrade() -> None:
    op.create_table(
        "session_revocations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("filter", sa.Text()),
        sa.Column("shown", sa.Text(), nullable=False),
        sa.Column("cut", MOMENT, nullable=False),
        sa.Column("end_reason", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Uuid()),
        sa.Column("spared", sa.Uuid()),
        sa.Column("preview", sa.LargeBinary()),
        sa.Column("expected", sa.BigInteger(), nullable=False),
        sa.Column("xact_id", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.Column("listed", sa.Boolean()),
        sa.Column("settled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("cursor", sa.Uuid(), nullable=False),
        sa.Column("again_from", sa.Uuid()),
        sa.Column("ended", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("looked_at", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("worked_at", MOMENT),
        sa.Column("finished_at", MOMENT),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'cancelled')", name="ck_session_revocations_state"),
        sa.CheckConstraint("end_reason = 'bulk_admin' OR end_reason = 'restore'", name="ck_session_revocations_reason"),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (state IN ('queued', 'running'))", name="ck_session_revocations_finished"
        ),
        sa.CheckConstraint("char_length(why) BETWEEN 3 AND 200", name="ck_session_revocations_why_length"),
        sa.PrimaryKeyConstraint("id", name="pk_session_revocations"),
        sa.UniqueConstraint("preview", name="uq_session_revocations_preview"),
    )
    op.create_index(
        "ix_session_revocations_open",
        "session_revocations",
        ["id"],
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.execute("ALTER TABLE session_revocations OWNER TO rota_owner")
    op.execute("GRANT SELECT, INSERT, UPDATE ON session_revocations TO rota_app")


def downgrade() -> None:
    op.drop_table("session_revocations")
