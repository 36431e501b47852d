"""
Indexes for finding sessions: by address, device, browser, system, client, role, end.

Why: each of these questions must be answered within 50 ms at ten million sessions. Each index goes on with the id,
which is the order of the list, so that a page is read and no more; the one on lifetimes tells how far back sessions
that are still used can reach. None stands on a column that rotation writes. What nearly every session has, the
first-party client and the role of a user, is left out: a sign-in writes five more index entries, an end two, a
refresh none.
Locks: SHARE UPDATE EXCLUSIVE on families, one index after the other (built concurrently).
How long: some two minutes for ten million sessions, without holding anybody up.
Back: drops the indexes.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
phase: str = "expand"
oldest_release: str = "0.1.0"
rewrites: bool = False

INDEXES = {
    "ix_families_created_ip": "(created_ip, id)",
    "ix_families_device": "(device, id)",
    "ix_families_browser": "(browser, id)",
    "ix_families_os": "(os, id)",
    "ix_families_client": "(client_id, id) WHERE client_id <> 'first-party'",
    "ix_families_role": "(role, id) WHERE role <> 'user'",
    "ix_families_life": "((extract(epoch FROM expires_at - created_at)::bigint))",
    "ix_families_end_reason": "(end_reason, id) WHERE end_reason IS NOT NULL",
    "ix_families_ended_by": "(ended_by, id) WHERE ended_by IS NOT NULL",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, definition in INDEXES.items():
            # One left over from an interrupted run may be invalid: begin anew.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON families {definition}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
