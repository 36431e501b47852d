"""
The audit trail, counted refusals, and the function that makes the trail's partitions.

Why: every change and its event commit together from the first day on.
Locks: none on anything that exists.
How long: milliseconds.
Back: drops the trail. Export it first.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
phase: str = "expand"
oldest_release: str = "0.1.0"
rewrites: bool = False

MOMENT = sa.DateTime(timezone=True)

# A partition is created alone and then attached: CREATE TABLE ... PARTITION OF would lock the trail against writers,
# ATTACH lets them through. One maker at a time, so that two processes do not make the same month.
MAKE_PARTITIONS = """
CREATE FUNCTION audit_make_partitions(until timestamptz) RETURNS integer LANGUAGE plpgsql AS $body$
DECLARE
  month timestamp := date_trunc('month', (statement_timestamp() - interval '1 day') AT TIME ZONE 'UTC');
  partition text;
  made integer := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('audit_make_partitions'));
  WHILE month <= until AT TIME ZONE 'UTC' LOOP
    partition := 'audit_events_' || to_char(month, 'YYYY_MM');
    IF to_regclass(partition) IS NULL THEN
      EXECUTE format('CREATE TABLE %I (LIKE audit_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition);
      EXECUTE format('ALTER TABLE audit_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                     partition, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
      made := made + 1;
    END IF;
    month := month + interval '1 month';
  END LOOP;
  RETURN made;
END
$body$
"""


class Xid8(sa.types.UserDefinedType[int]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "XID8"


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column("occurred_at", MOMENT, nullable=False),
        sa.Column("xact_id", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("family_seq", sa.Integer()),
        sa.Column("generation", sa.Integer()),
        sa.Column("epoch", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("version", sa.SmallInteger(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("actor_id", sa.Uuid()),
        sa.Column("family_id", sa.Uuid()),
        sa.Column("request_id", sa.Uuid()),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("ip", postgresql.INET()),
        sa.Column("user_agent", sa.Text()),
        sa.Column("commitment", sa.LargeBinary()),
        sa.Column("detail", sa.Text()),
        sa.CheckConstraint("outcome IN ('success', 'failure')", name=op.f("ck_audit_events_outcome")),
        sa.CheckConstraint(
            "actor_kind IN ('user', 'admin', 'client', 'system', 'anonymous')",
            name=op.f("ck_audit_events_actor_kind"),
        ),
        sa.CheckConstraint("octet_length(user_agent) <= 512", name=op.f("ck_audit_events_user_agent_length")),
        sa.PrimaryKeyConstraint("subject_id", "occurred_at", "id", name=op.f("pk_audit_events")),
        postgresql_partition_by="RANGE (occurred_at)",
    )
    op.create_index("ix_audit_events_seal", "audit_events", ["epoch", "xact_id", "seq"])
    op.create_index("ix_audit_events_time", "audit_events", ["occurred_at", "id"])
    op.create_table(
        "refusals",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("family_id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("minute", MOMENT, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.CheckConstraint("action IN ('refresh.refused', 'refresh.forged')", name=op.f("ck_refusals_action")),
        sa.CheckConstraint("count > 0", name=op.f("ck_refusals_count")),
        sa.PrimaryKeyConstraint("user_id", "family_id", "action", "minute", name=op.f("pk_refusals")),
    )
    op.execute(MAKE_PARTITIONS)
    op.execute("SELECT audit_make_partitions(statement_timestamp() + interval '90 days')")


def downgrade() -> None:
    op.drop_table("refusals")
    op.drop_table("audit_events")
    op.execute("DROP FUNCTION audit_make_partitions(timestamptz)")
