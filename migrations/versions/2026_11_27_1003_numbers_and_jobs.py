"""
Counts of the trail, the table of jobs, and the removal of ended sessions.

Why: questions about numbers must be answered from counts, not from twenty million events; whoever operates must see
which job ran when; ended sessions past their retention must go, and nothing else.
Locks: ACCESS EXCLUSIVE on job_cursors for a moment: a nullable column without a default.
How long: milliseconds. The counts are made later, by the job, in batches.
Back: drops the counts, which can be made anew from the trail, and the jobs' history. Removed sessions stay removed.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
phase: str = "expand"
oldest_release: str = "0.1.0"
rewrites: bool = False

MOMENT = sa.DateTime(timezone=True)

# The server may remove sessions that are over, by this and by nothing else: it has no right to delete from the table.
REMOVE_ENDED = """
CREATE FUNCTION families_remove_ended(users uuid[], sessions uuid[], ended_before timestamptz)
RETURNS integer LANGUAGE sql AS $body$
  WITH over AS (
    SELECT f.user_id, f.id FROM families AS f JOIN unnest(users, sessions) AS given (user_id, id) USING (user_id, id)
     WHERE f.ended_at < ended_before FOR UPDATE OF f SKIP LOCKED
  ), removed AS (
    DELETE FROM families AS f USING over WHERE f.user_id = over.user_id AND f.id = over.id RETURNING 1
  )
  SELECT count(*)::integer FROM removed
$body$
"""

# The temporary schema last: whoever calls must not be able to put a table of theirs before ours.
OF_THE_OWNER = """
DO $body$
BEGIN
  ALTER FUNCTION families_remove_ended(uuid[], uuid[], timestamptz) OWNER TO rota_owner;
  ALTER FUNCTION families_remove_ended(uuid[], uuid[], timestamptz) SECURITY DEFINER;
  EXECUTE format('ALTER FUNCTION families_remove_ended(uuid[], uuid[], timestamptz) SET search_path = %I, pg_temp',
                 current_schema());
  REVOKE ALL ON FUNCTION families_remove_ended(uuid[], uuid[], timestamptz) FROM PUBLIC;
  GRANT EXECUTE ON FUNCTION families_remove_ended(uuid[], uuid[], timestamptz) TO rota_app;
END
$body$
"""

GRANTS = {
    "job_runs": "SELECT, INSERT, UPDATE",
    "stat_positions": "SELECT, UPDATE",
    "stat_counts": "SELECT, INSERT, UPDATE, DELETE",
    "stat_sources": "SELECT, INSERT, UPDATE, DELETE",
    "stat_users": "SELECT, INSERT, UPDATE, DELETE",
}


class Xid8(sa.types.UserDefinedType[int]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "XID8"


def upgrade() -> None:
    op.add_column("job_cursors", sa.Column("began_at", MOMENT))
    op.create_table(
        "job_runs",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("began_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=False),
        sa.Column("next_at", MOMENT, nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("found_at", MOMENT),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("whole_since", MOMENT),
        sa.Column("error", sa.Text()),
        sa.Column("failed_at", MOMENT),
        sa.CheckConstraint("rows >= 0 AND total >= 0", name="ck_job_runs_counts"),
        sa.CheckConstraint("char_length(error) <= 500", name="ck_job_runs_error_length"),
        sa.PrimaryKeyConstraint("job", name="pk_job_runs"),
    )
    op.create_table(
        "stat_positions",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.SmallInteger(), nullable=False),
        sa.Column("xact", Xid8(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("open_sessions", sa.BigInteger(), nullable=False),
        sa.Column("open_users", sa.BigInteger(), nullable=False),
        sa.Column("counted_at", MOMENT),
        sa.CheckConstraint("id = 1", name="ck_stat_positions_only_one"),
        sa.PrimaryKeyConstraint("id", name="pk_stat_positions"),
    )
    op.create_table(
        "stat_counts",
        sa.Column("width", sa.Text(), nullable=False),
        sa.Column("start", MOMENT, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("width IN ('hour', 'day')", name="ck_stat_counts_width"),
        sa.PrimaryKeyConstraint("width", "start", "action", "outcome", "reason", name="pk_stat_counts"),
    )
    op.create_table(
        "stat_sources",
        sa.Column("width", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("start", MOMENT, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("width IN ('hour', 'day')", name="ck_stat_sources_width"),
        sa.CheckConstraint("kind IN ('address', 'agent')", name="ck_stat_sources_kind"),
        sa.PrimaryKeyConstraint("width", "kind", "start", "value", name="pk_stat_sources"),
    )
    op.create_index("ix_stat_sources_top", "stat_sources", ["width", "kind", "start", sa.text("count DESC")])
    op.create_table(
        "stat_users",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("open", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_stat_users"),
    )
    op.execute("INSERT INTO stat_positions VALUES (1, 0, '0', 0, 0, 0, 0, NULL)")
    op.execute(REMOVE_ENDED)
    op.execute(OF_THE_OWNER)
    for table, rights in GRANTS.items():
        op.execute(f"ALTER TABLE {table} OWNER TO rota_owner")
        op.execute(f"GRANT {rights} ON {table} TO rota_app")


def downgrade() -> None:
    op.execute("DROP FUNCTION families_remove_ended(uuid[], uuid[], timestamptz)")
    for table in reversed(GRANTS):
        op.drop_table(table)
    op.drop_column("job_cursors", "began_at")
