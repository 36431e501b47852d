"""
How far each import of users has come.

Why: an import of millions is a transaction a batch, and goes on where it was broken off.
Locks: none on anything that exists.
How long: milliseconds.
Back: drops the table; an import that was broken off cannot be gone on with then. 0.1.0 cannot verify hashes that are
not Argon2's: what was imported signs in there only after it has signed in here.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
phase: str = "expand"
oldest_release: str = "0.1.0"
rewrites: bool = False


def upgrade() -> None:
    op.create_table(
        "user_imports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("place", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("form", sa.Text(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("lines_done", sa.BigInteger(), nullable=False),
        sa.Column("users", sa.BigInteger(), nullable=False),
        sa.Column("admins", sa.BigInteger(), nullable=False),
        sa.Column("disabled", sa.BigInteger(), nullable=False),
        sa.Column("skipped", sa.BigInteger(), nullable=False),
        sa.Column("skipped_lines", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Uuid()),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("worked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "octet_length(digest) = 32 AND octet_length(place) = 32", name=op.f("ck_user_imports_digest_lengths")
        ),
        sa.CheckConstraint("form IN ('csv', 'ndjson')", name=op.f("ck_user_imports_form")),
        sa.CheckConstraint(
            "actor_kind IN ('user', 'admin', 'client', 'system', 'anonymous')", name=op.f("ck_user_imports_actor_kind")
        ),
        sa.CheckConstraint(
            "users >= 0 AND admins >= 0 AND disabled >= 0 AND skipped >= 0", name=op.f("ck_user_imports_counts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_imports")),
        sa.UniqueConstraint("digest", name=op.f("uq_user_imports_digest")),
    )
    op.create_index("ix_user_imports_place", "user_imports", ["place"])
    op.execute("ALTER TABLE user_imports OWNER TO rota_owner")
    op.execute("GRANT SELECT, INSERT, UPDATE ON user_imports TO rota_app")


def downgrade() -> None:
    op.drop_table("user_imports")
