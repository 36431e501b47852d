"""
Users and refresh-token families.

Why: the first tables.
Locks: none on anything that exists.
How long: milliseconds.
Back: drops both tables and everybody's sessions with them.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
phase: str = "expand"
oldest_release: str = "0.1.0"
rewrites: bool = False

MOMENT = sa.DateTime(timezone=True)
ROLES = "role IN ('user', 'auditor', 'admin')"
END_REASONS = (
    "end_reason IN ('logout', 'logout_all', 'admin', 'bulk_admin', 'reuse', 'password_change', 'user_disabled', "
    "'role_change', 'restore', 'evicted', 'idle_timeout', 'absolute_timeout', 'oauth_revocation')"
)


class Xid8(sa.types.UserDefinedType[int]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "XID8"


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("username_key", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("disabled_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("password_changed_at", MOMENT, nullable=False),
        sa.CheckConstraint(ROLES, name=op.f("ck_users_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("username_key", name=op.f("uq_users_username_key")),
    )
    op.create_table(
        "families",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("seed", sa.LargeBinary(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("event_seq", sa.Integer(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("authenticated_at", MOMENT, nullable=False),
        sa.Column("amr", sa.Text(), nullable=False),
        sa.Column("acr", sa.Text()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("rotated_at", MOMENT),
        sa.Column("idle_expires_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
        sa.Column("end_reason", sa.Text()),
        sa.Column("ended_by", sa.Uuid()),
        sa.Column("ended_xact", Xid8()),
        sa.Column("attempt", sa.LargeBinary()),
        sa.Column("replayed_generation", sa.Integer()),
        sa.Column("ride_along_generation", sa.Integer()),
        sa.Column("ride_along_count", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_ip", postgresql.INET()),
        sa.Column("last_ip", postgresql.INET()),
        sa.Column("user_agent", sa.Text()),
        sa.Column("device", sa.Text()),
        sa.Column("browser", sa.Text()),
        sa.Column("os", sa.Text()),
        sa.Column("label", sa.Text()),
        sa.CheckConstraint(ROLES, name=op.f("ck_families_role")),
        sa.CheckConstraint(END_REASONS, name=op.f("ck_families_end_reason")),
        sa.CheckConstraint("(ended_at IS NULL) = (end_reason IS NULL)", name=op.f("ck_families_ended_with_reason")),
        sa.CheckConstraint("(ended_at IS NULL) = (ended_xact IS NULL)", name=op.f("ck_families_ended_with_xact")),
        sa.CheckConstraint("octet_length(seed) = 32", name=op.f("ck_families_seed_length")),
        sa.CheckConstraint("generation >= 0", name=op.f("ck_families_generation")),
        sa.CheckConstraint("octet_length(user_agent) <= 512", name=op.f("ck_families_user_agent_length")),
        sa.CheckConstraint("char_length(label) <= 100", name=op.f("ck_families_label_length")),
        sa.PrimaryKeyConstraint("user_id", "id", name=op.f("pk_families")),
        postgresql_with={"fillfactor": "85"},
    )
    live = sa.text("ended_at IS NULL")
    op.create_index("ix_families_id", "families", ["id"])
    op.create_index("ix_families_live", "families", ["id"], postgresql_where=live)
    op.create_index("ix_families_user_live", "families", ["user_id", "id"], postgresql_where=live)


def downgrade() -> None:
    op.drop_table("families")
    op.drop_table("users")
