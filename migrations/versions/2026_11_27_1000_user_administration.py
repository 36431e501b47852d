"""
Accounts under administration: deleted ones, those without a password, set-password tokens, indexes of the list.

Why: a deleted user stays as a tombstone, so that the ids of the trail still lead somewhere, and gives up the name; who
signs in elsewhere has no password; whoever is new gets a one-time password or a set-password token; and a list of a
million users must find by prefix, role, state and time of creation.
Locks: ACCESS EXCLUSIVE on users for a moment: columns, and two constraints that are not checked yet. Checking them
takes SHARE UPDATE EXCLUSIVE, as do the indexes, which are built concurrently. Printed as SQL they are in their plain
form, which keeps writers out while it builds.
How long: some seconds for a million users, without holding anybody up.
Back: drops tokens, indexes and columns. Deleted users stay as disabled ones under a name of their id, and those without
a password get a hash that no password leads to.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import context, op

revision: str = "0010"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

MOMENT = sa.DateTime(timezone=True)

CHECKS = {
    "ck_users_deleted_without_key": "(deleted_at IS NULL) = (username_key IS NOT NULL)",
    "ck_users_deleted_disabled": "deleted_at IS NULL OR disabled_at IS NOT NULL",
}
INDEXES = {
    "ix_users_prefix": "(username_key text_pattern_ops)",
    "ix_users_created": "(created_at, id)",
    "ix_users_elevated": "(role, created_at, id) WHERE role <> 'user'",
    "ix_users_disabled": "(created_at, id) WHERE disabled_at IS NOT NULL",
}

UNUSABLE_HASHES = """
UPDATE users SET password_hash =
       '$argon2id$v=19$m=19456,t=2,p=1$' || rtrim(encode(uuid_send(gen_random_uuid()), 'base64'), '=')
       || '$' || rtrim(encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64'), '=')
 WHERE password_hash IS NULL
"""


def upgrade() -> None:
    # All of it can be run again: the second half is in transactions of its own.
    op.add_column("users", sa.Column("deleted_at", MOMENT), if_not_exists=True)
    must: sa.Column[bool] = sa.Column("must_change_password", sa.Boolean(), server_default=sa.false(), nullable=False)
    op.add_column("users", must, if_not_exists=True)
    op.alter_column("users", "password_hash", nullable=True)
    op.alter_column("users", "username_key", nullable=True)
    # Who was erased is deleted as well; these are few.
    op.execute("UPDATE users SET deleted_at = erased_at, username_key = NULL WHERE erased_at IS NOT NULL")
    for name, condition in CHECKS.items():
        op.execute(f"ALTER TABLE users DROP CONSTRAINT IF EXISTS {name}")
        op.execute(f"ALTER TABLE users ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID")
    op.create_table(
        "password_tokens",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.CheckConstraint("octet_length(digest) = 32", name="ck_password_tokens_digest_length"),
        sa.PrimaryKeyConstraint("user_id", name="pk_password_tokens"),
        if_not_exists=True,
    )
    op.create_index("ix_password_tokens_expires_at", "password_tokens", ["expires_at"], if_not_exists=True)
    op.execute("ALTER TABLE password_tokens OWNER TO rota_owner")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON password_tokens TO rota_app")
    if context.is_offline_mode():
        for name in CHECKS:
            op.execute(f"ALTER TABLE users VALIDATE CONSTRAINT {name}")
        for name, columns in INDEXES.items():
            op.execute(f"CREATE INDEX {name} ON users {columns}")
        return
    with op.get_context().autocommit_block():
        for name in CHECKS:
            op.execute(f"ALTER TABLE users VALIDATE CONSTRAINT {name}")
        for name, columns in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")  # an interrupted run may have left an invalid one
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON users {columns}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
    op.drop_table("password_tokens")
    for name in CHECKS:
        op.execute(f"ALTER TABLE users DROP CONSTRAINT {name}")
    op.execute("UPDATE users SET username_key = 'deleted ' || id WHERE username_key IS NULL")
    op.execute(UNUSABLE_HASHES)
    op.alter_column("users", "username_key", nullable=False)
    op.alter_column("users", "password_hash", nullable=False)
    op.drop_column("users", "must_change_password")
    op.drop_column("users", "deleted_at")
