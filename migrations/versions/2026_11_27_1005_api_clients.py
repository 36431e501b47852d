"""
Programs that speak to Rota in their own name.

Why: other services ask, end and open sessions; each must be known, limited, and shut out alone. A token that comes
through another client than its own is counted under an action of its own.
Locks: none but on the new table; ACCESS EXCLUSIVE on refusals for a moment.
How long: milliseconds; refusals has some minutes' rows.
Back: drops the clients. Sessions opened through them stay, and nobody can refresh them.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
phase: str = "expand"
oldest_release: str = "0.1.0"
rewrites: bool = False

MOMENT = sa.DateTime(timezone=True)
TEXTS = postgresql.ARRAY(sa.Text())


def upgrade() -> None:
    op.create_table(
        "api_clients",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", TEXTS, nullable=False),
        sa.Column("grants", TEXTS, nullable=False),
        sa.Column("session_scopes", TEXTS, nullable=False),
        sa.Column("first_party", sa.Boolean(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("disabled_at", MOMENT),
        sa.Column("secret_hash", sa.LargeBinary()),
        sa.Column("secret_key_id", sa.SmallInteger()),
        sa.Column("secret_created_at", MOMENT),
        sa.Column("former_secret_hash", sa.LargeBinary()),
        sa.Column("former_secret_key_id", sa.SmallInteger()),
        sa.Column("former_secret_created_at", MOMENT),
        sa.Column("former_secret_expires_at", MOMENT),
        sa.CheckConstraint(
            "scopes <@ ARRAY['introspect', 'revoke', 'revocations', 'authz', 'sessions']::text[]",
            name=op.f("ck_api_clients_scopes"),
        ),
        sa.CheckConstraint(
            "grants <@ ARRAY['password', 'refresh_token', 'client_credentials']::text[]",
            name=op.f("ck_api_clients_grants"),
        ),
        sa.CheckConstraint("cardinality(session_scopes) <= 64", name=op.f("ck_api_clients_session_scopes")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 100", name=op.f("ck_api_clients_name_length")),
        sa.CheckConstraint(
            "client_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{2,63}$' AND client_id <> 'first-party'",
            name=op.f("ck_api_clients_client_id"),
        ),
        sa.CheckConstraint(
            "first_party OR NOT 'password' = ANY (grants)", name=op.f("ck_api_clients_passwords_first_party")
        ),
        sa.CheckConstraint(
            "NOT public OR (first_party AND scopes = '{}' AND NOT 'client_credentials' = ANY (grants) "
            "AND num_nonnulls(secret_hash, former_secret_hash) = 0)",
            name=op.f("ck_api_clients_public"),
        ),
        sa.CheckConstraint(
            "num_nonnulls(secret_hash, secret_key_id, secret_created_at) IN (0, 3) "
            "AND coalesce(octet_length(secret_hash), 32) = 32",
            name=op.f("ck_api_clients_secret"),
        ),
        sa.CheckConstraint(
            "num_nonnulls(former_secret_hash, former_secret_key_id, former_secret_created_at) IN (0, 3) "
            "AND coalesce(octet_length(former_secret_hash), 32) = 32 "
            "AND (former_secret_expires_at IS NULL OR former_secret_hash IS NOT NULL)",
            name=op.f("ck_api_clients_former_secret"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_api_clients"),
        sa.UniqueConstraint("client_id", name="uq_api_clients_client_id"),
    )
    op.execute("ALTER TABLE api_clients OWNER TO rota_owner")
    op.execute("GRANT SELECT, INSERT, UPDATE ON api_clients TO rota_app")
    _countable("'refresh.refused', 'refresh.forged', 'refresh.misdirected'")


def downgrade() -> None:
    op.execute("DELETE FROM refusals WHERE action = 'refresh.misdirected'")
    _countable("'refresh.refused', 'refresh.forged'")
    op.drop_table("api_clients")


def _countable(actions: str) -> None:
    """What may be counted. The table has some minutes' rows, so they are looked at on the spot."""
    op.execute("-- squawk-ignore ban-drop-constraint\nALTER TABLE refusals DROP CONSTRAINT ck_refusals_action")
    op.execute(
        "-- squawk-ignore constraint-missing-not-valid\n"
        f"ALTER TABLE refusals ADD CONSTRAINT ck_refusals_action CHECK (action IN ({actions}))"
    )
