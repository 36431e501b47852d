"""
Two indexes on ended sessions, and a doorbell that rings when sessions end.

Why: every process keeps the sessions ended within the last minutes in memory. It loads them by time, follows them by
transaction, and is woken by a notification without content, which a trigger sends, so that no code path can forget it.
The trigger is for the statement, and only for one that names `ended_at`: a rotation does not, and pays nothing.
Locks: SHARE UPDATE EXCLUSIVE while the indexes are built (concurrently); SHARE ROW EXCLUSIVE for the moment in which
the trigger is made, which waits a second at most for writers to pass. Printed as SQL the indexes are built in the plain
form, which keeps writers out while it builds.
How long: a minute for ten million sessions, most of them ended, without holding anybody up.
Back: drops all three. Processes that listen poll instead.
"""

from collections.abc import Sequence

from alembic import context, op

revision: str = "0012"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INDEXES = {
    "ix_families_ended": "families (ended_xact, id) WHERE ended_at IS NOT NULL",
    "ix_families_ended_at": "families (ended_at, id) WHERE ended_at IS NOT NULL",
}

# A sign-in tries to evict and mostly ends nobody; committing a notification takes a lock that all databases of the
# cluster share, so it is looked first, by the index. Many rings of one transaction are one.
RING = """
CREATE FUNCTION families_ring() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF EXISTS (SELECT FROM families WHERE ended_xact = pg_current_xact_id_if_assigned() AND ended_at IS NOT NULL) THEN
    PERFORM pg_notify('rota_ends', '');
  END IF;
  RETURN NULL;
END
$body$
"""

# It works with the rights of whoever ends sessions, all of whom may read them.
OF_THE_OWNER = """
DO $body$
BEGIN
  ALTER FUNCTION families_ring() OWNER TO rota_owner;
  EXECUTE format('ALTER FUNCTION families_ring() SET search_path = %I, pg_temp', current_schema());
  REVOKE ALL ON FUNCTION families_ring() FROM PUBLIC;
END
$body$
"""

TRIGGER = """
CREATE TRIGGER families_ended AFTER UPDATE OF ended_at ON families
  FOR EACH STATEMENT EXECUTE FUNCTION families_ring()
"""


def upgrade() -> None:
    if context.is_offline_mode():
        for name, what in INDEXES.items():
            op.execute(f"CREATE INDEX {name} ON {what}")
    else:
        with op.get_context().autocommit_block():
            for name, what in INDEXES.items():
                op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")  # one of an interrupted run is invalid
                op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {what}")
    for statement in (RING, OF_THE_OWNER, TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TRIGGER families_ended ON families")
    op.execute("DROP FUNCTION families_ring()")
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
