"""
Where the sealed tree lives: its head, its batches, its full tiles, the signed checkpoints, and people's salts.

Why: the sealer appends committed events to a Merkle tree and must be able to go on after any crash.
Locks: none on anything that exists.
How long: milliseconds.
Back: drops the tree. What was published stays true, but nothing can be proven from this database any more, and a later
sealing begins at size 0, which the sealer refuses while the published checkpoints are there.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
phase: str = "expand"
oldest_release: str = "0.1.0"
rewrites: bool = False

MOMENT = sa.DateTime(timezone=True)
INSERT_ONLY = ("audit_batches", "audit_tiles", "audit_checkpoints")
TABLES = ("audit_logs", *INSERT_ONLY, "audit_salts")

# The next incarnation of the log. The lock on the trail waits for writers under way, so that none of theirs comes
# under the former number afterwards.
OPEN_EPOCH = """
CREATE FUNCTION audit_open_epoch(next_epoch smallint, next_origin text, first_entry text, first_leaf bytea)
RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
  IF next_epoch <> (SELECT max(epoch) + 1 FROM audit_logs) THEN
    RAISE EXCEPTION 'the next epoch is not %', next_epoch;
  END IF;
  EXECUTE format('ALTER TABLE audit_events ALTER COLUMN epoch SET DEFAULT %s', next_epoch);
  INSERT INTO audit_logs (epoch, origin, opening, tree_size, root, edge, cursor_epoch, cursor_xact, cursor_seq,
                          minimum_index)
  VALUES (next_epoch, next_origin, first_entry, 1, first_leaf, ARRAY[first_leaf], 0, '0', 0, 0);
END
$body$
"""

# The first incarnation, unless there is one. The server may ask for it, and for no other.
FOUND = """
CREATE FUNCTION audit_found(first_origin text) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
  IF NOT EXISTS (SELECT FROM audit_logs) THEN
    INSERT INTO audit_logs (epoch, origin, tree_size, root, edge, cursor_epoch, cursor_xact, cursor_seq, minimum_index)
    VALUES (1, first_origin, 0, sha256(''), '{}', 0, '0', 0, 0) ON CONFLICT DO NOTHING;
  END IF;
END
$body$
"""

OF_THE_OWNER = """
DO $body$
DECLARE
  made regprocedure;
BEGIN
  FOREACH made IN ARRAY ARRAY['audit_found(text)', 'audit_open_epoch(smallint, text, text, bytea)']::regprocedure[] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO rota_owner', made);
    EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER', made);
    -- The temporary schema last: whoever calls must not be able to put a table of theirs before ours.
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', made, current_schema());
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', made);
  END LOOP;
END
$body$
"""


class Xid8(sa.types.UserDefinedType[int]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "XID8"


def upgrade() -> None:
    op.create_table(
        "audit_logs",
        sa.Column("epoch", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("opening", sa.Text()),
        sa.Column("tree_size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("edge", sa.ARRAY(sa.LargeBinary()), nullable=False),
        sa.Column("cursor_epoch", sa.SmallInteger(), nullable=False),
        sa.Column("cursor_xact", Xid8(), nullable=False),
        sa.Column("cursor_seq", sa.BigInteger(), nullable=False),
        sa.Column("minimum_index", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("tree_size >= 0", name=op.f("ck_audit_logs_tree_size")),
        sa.CheckConstraint("octet_length(root) = 32", name=op.f("ck_audit_logs_root_length")),
        sa.PrimaryKeyConstraint("epoch", name=op.f("pk_audit_logs")),
        sa.UniqueConstraint("origin", name=op.f("uq_audit_logs_origin")),
    )
    op.create_table(
        "audit_batches",
        sa.Column("epoch", sa.SmallInteger(), nullable=False),
        sa.Column("first_index", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("from_epoch", sa.SmallInteger(), nullable=False),
        sa.Column("from_xact", Xid8(), nullable=False),
        sa.Column("from_seq", sa.BigInteger(), nullable=False),
        sa.Column("to_epoch", sa.SmallInteger(), nullable=False),
        sa.Column("to_xact", Xid8(), nullable=False),
        sa.Column("to_seq", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("first_at", MOMENT, nullable=False),
        sa.Column("last_at", MOMENT, nullable=False),
        sa.Column("sealed_at", MOMENT, nullable=False),
        sa.CheckConstraint("count > 0", name=op.f("ck_audit_batches_count")),
        sa.PrimaryKeyConstraint("epoch", "first_index", name=op.f("pk_audit_batches")),
    )
    op.create_index("ix_audit_batches_to", "audit_batches", ["epoch", "to_epoch", "to_xact", "to_seq"])
    op.create_index("ix_audit_batches_last_at", "audit_batches", ["epoch", "last_at"])
    op.create_index("ix_audit_batches_first_at", "audit_batches", ["epoch", "first_at"])
    op.create_table(
        "audit_tiles",
        sa.Column("epoch", sa.SmallInteger(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("octet_length(data) = 8192", name=op.f("ck_audit_tiles_full")),
        sa.PrimaryKeyConstraint("epoch", "level", "idx", name=op.f("pk_audit_tiles")),
    )
    op.execute("ALTER TABLE audit_tiles ALTER COLUMN data SET STORAGE EXTERNAL")  # hashes do not compress
    op.create_table(
        "audit_checkpoints",
        sa.Column("epoch", sa.SmallInteger(), nullable=False),
        sa.Column("tree_size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("signed_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("epoch", "tree_size", name=op.f("pk_audit_checkpoints")),
    )
    op.create_table(
        "audit_salts",
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("octet_length(salt) = 32", name=op.f("ck_audit_salts_length")),
        sa.PrimaryKeyConstraint("subject_id", name=op.f("pk_audit_salts")),
    )
    op.execute(OPEN_EPOCH)
    op.execute(FOUND)
    op.execute(OF_THE_OWNER)
    op.execute("GRANT EXECUTE ON FUNCTION audit_found(text) TO rota_app")
    op.execute("GRANT EXECUTE ON FUNCTION audit_open_epoch(smallint, text, text, bytea) TO rota_maintenance")
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} OWNER TO rota_owner")
        op.execute(f"GRANT SELECT{'' if table == 'audit_logs' else ', INSERT'} ON {table} TO rota_app")
    for table in INSERT_ONLY:
        _insert_only(table)
    moving = "tree_size, root, edge, cursor_epoch, cursor_xact, cursor_seq"
    op.execute(f"GRANT UPDATE ({moving}) ON audit_logs TO rota_app")
    op.execute("GRANT DELETE ON audit_salts TO rota_maintenance")


def _insert_only(table: str) -> None:
    op.execute(
        f"CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION audit_refuse()"
    )
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER audit_no_change")
    op.execute(
        f"CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()"
    )
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER audit_no_truncate")


def downgrade() -> None:
    op.execute("DROP FUNCTION audit_open_epoch(smallint, text, text, bytea)")
    op.execute("DROP FUNCTION audit_found(text)")
    for table in reversed(TABLES):
        op.drop_table(table)
