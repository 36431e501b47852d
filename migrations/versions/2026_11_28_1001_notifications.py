"""
The outbox of what the owners of accounts are to be told, and the scope by which a mailer may read it.

Why: whoever did not change their password must learn that somebody did. Rota sends no mail: it writes down, with the
change, that there is something to tell, and another program tells it.
Locks: none but on the new table; ACCESS EXCLUSIVE on api_clients for a moment: a constraint that is not checked yet,
in the place of a narrower one. It is checked in the same transaction, and the table has a handful of rows.
How long: milliseconds.
Back: drops the table, with what was not told yet, and takes the scope from the clients that have it.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
phase: str = "expand"
oldest_release: str = "0.1.0"
rewrites: bool = False

FORMER_SCOPES = "'introspect', 'revoke', 'revocations', 'authz', 'sessions'"


def upgrade() -> None:
    op.create_table(
        "notifications",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "kind IN ('password_changed', 'username_changed', 'signed_in_after_failures')",
            name=op.f("ck_notifications_kind"),
        ),
        sa.PrimaryKeyConstraint("user_id", "id", name=op.f("pk_notifications")),
    )
    op.create_index("ix_notifications_id", "notifications", ["id"])
    op.execute("ALTER TABLE notifications OWNER TO rota_owner")
    # A row is written, and removed: nobody has to change one.
    op.execute("GRANT SELECT, INSERT, DELETE ON notifications TO rota_app")
    # SELECT ... FOR UPDATE needs the right to update one column.
    op.execute("GRANT UPDATE (kind) ON notifications TO rota_app")
    _scopes(f"{FORMER_SCOPES}, 'notifications'")


def downgrade() -> None:
    op.execute(
        "UPDATE api_clients SET scopes = array_remove(scopes, 'notifications') WHERE 'notifications' = ANY (scopes)"
    )
    _scopes(FORMER_SCOPES)
    op.drop_table("notifications")


def _scopes(listed: str) -> None:
    """What a client may have; there are few clients, so to look at all within the transaction holds nobody up."""
    op.execute("-- squawk-ignore ban-drop-constraint\nALTER TABLE api_clients DROP CONSTRAINT ck_api_clients_scopes")
    op.execute(
        "ALTER TABLE api_clients ADD CONSTRAINT ck_api_clients_scopes "
        f"CHECK (scopes <@ ARRAY[{listed}]::text[]) NOT VALID"
    )
    op.execute(
        "-- squawk-ignore constraint-missing-not-valid\n"
        "ALTER TABLE api_clients VALIDATE CONSTRAINT ck_api_clients_scopes"
    )
