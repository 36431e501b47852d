"""
Indexes for asking the trail: by address, by action, by failure, by who acted on others.

Why: each of these questions must be answered within 50 ms at twenty million events. Refreshes are nearly all of the
trail and find themselves by time, so only the index on addresses has them; the other three are partial and cost a
refresh nothing.
Locks: SHARE UPDATE EXCLUSIVE on one partition after the other (built concurrently); the parent's own index is only a
catalogue entry. Printed as SQL it is the plain form, which keeps writers out while it builds.
How long: about a minute for ten million events, without holding anybody up.
Back: drops the indexes.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import context, op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
phase: str = "expand"
oldest_release: str = "0.1.0"
rewrites: bool = False

INDEXES = {
    "ix_audit_events_ip": ("(ip, occurred_at)", ""),
    "ix_audit_events_action": ("(action, occurred_at)", " WHERE action <> 'session.refreshed'"),
    "ix_audit_events_failure": ("(occurred_at)", " WHERE outcome = 'failure'"),
    "ix_audit_events_actor": ("(actor_id, occurred_at)", " WHERE actor_id <> subject_id"),
}
# No index on a partitioned table can be built concurrently, and a script does not know the partitions.
IGNORED = "-- squawk-ignore require-concurrent-index-creation"


def upgrade() -> None:
    if context.is_offline_mode():
        for name, (columns, condition) in INDEXES.items():
            op.execute(f"{IGNORED}\nCREATE INDEX {name} ON audit_events {columns}{condition}")
        return
    listed = (
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
        "WHERE inhparent = $$audit_events$$::regclass"
    )
    partitions = op.get_bind().execute(sa.text(listed)).scalars().all()
    for name, (columns, condition) in INDEXES.items():
        op.execute(f"CREATE INDEX IF NOT EXISTS {name} ON ONLY audit_events {columns}{condition}")
    with op.get_context().autocommit_block():
        for name, (columns, condition) in INDEXES.items():
            for partition in partitions:
                part = f"{partition}{name.removeprefix('ix_audit_events')}_idx"
                # One left over from an interrupted run may be invalid: begin anew.
                op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {part}_new")
                op.execute(f"CREATE INDEX CONCURRENTLY {part}_new ON {partition} {columns}{condition}")
    for name in INDEXES:
        for partition in partitions:
            part = f"{partition}{name.removeprefix('ix_audit_events')}_idx"
            op.execute(f"ALTER INDEX {part}_new RENAME TO {part}")
            op.execute(f"ALTER INDEX {name} ATTACH PARTITION {part}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
