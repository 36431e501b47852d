-- 0010  Accounts under administration: deleted ones, those without a password, set-password tokens, indexes of the list.
--
--   why       a deleted user stays as a tombstone, so that the ids of the trail still lead somewhere,
--             and gives up the name; who signs in elsewhere has no password; whoever is new gets a one-
--             time password or a set-password token; and a list of a million users must find by prefix,
--             role, state and time of creation.
--   locks     ACCESS EXCLUSIVE on users for a moment: columns, and two constraints that are not checked
--             yet. Checking them takes SHARE UPDATE EXCLUSIVE, as do the indexes, which are built
--             concurrently.
--   how long  some seconds for a million users, without holding anybody up.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops tokens, indexes and columns. Deleted users stay as disabled ones under a name of
--             their id, and those without a password get a hash that no password leads to.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

ALTER TABLE users ADD COLUMN IF NOT EXISTS deleted_at TIMESTAMP WITH TIME ZONE;

ALTER TABLE users ADD COLUMN IF NOT EXISTS must_change_password BOOLEAN DEFAULT false NOT NULL;

-- squawk-ignore ban-drop-not-null
ALTER TABLE users ALTER COLUMN password_hash DROP NOT NULL;

-- squawk-ignore ban-drop-not-null
ALTER TABLE users ALTER COLUMN username_key DROP NOT NULL;

UPDATE users SET deleted_at = erased_at, username_key = NULL WHERE erased_at IS NOT NULL;

-- squawk-ignore ban-drop-constraint
ALTER TABLE users DROP CONSTRAINT IF EXISTS ck_users_deleted_without_key;

ALTER TABLE users ADD CONSTRAINT ck_users_deleted_without_key CHECK ((deleted_at IS NULL) = (username_key IS NOT NULL)) NOT VALID;

-- squawk-ignore ban-drop-constraint
ALTER TABLE users DROP CONSTRAINT IF EXISTS ck_users_deleted_disabled;

ALTER TABLE users ADD CONSTRAINT ck_users_deleted_disabled CHECK (deleted_at IS NULL OR disabled_at IS NOT NULL) NOT VALID;

CREATE TABLE IF NOT EXISTS password_tokens (
    user_id UUID NOT NULL,
    digest BYTEA NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_password_tokens PRIMARY KEY (user_id),
    CONSTRAINT ck_password_tokens_digest_length CHECK (octet_length(digest) = 32)
);

CREATE INDEX IF NOT EXISTS ix_password_tokens_expires_at ON password_tokens (expires_at);

ALTER TABLE password_tokens OWNER TO rota_owner;

GRANT SELECT, INSERT, UPDATE, DELETE ON password_tokens TO rota_app;

COMMIT;

SET lock_timeout = 0;
SET statement_timeout = 0;

ALTER TABLE users VALIDATE CONSTRAINT ck_users_deleted_without_key;

ALTER TABLE users VALIDATE CONSTRAINT ck_users_deleted_disabled;

DROP INDEX CONCURRENTLY IF EXISTS ix_users_prefix;

CREATE INDEX CONCURRENTLY ix_users_prefix ON users (username_key text_pattern_ops);

DROP INDEX CONCURRENTLY IF EXISTS ix_users_created;

CREATE INDEX CONCURRENTLY ix_users_created ON users (created_at, id);

DROP INDEX CONCURRENTLY IF EXISTS ix_users_elevated;

CREATE INDEX CONCURRENTLY ix_users_elevated ON users (role, created_at, id) WHERE role <> 'user';

DROP INDEX CONCURRENTLY IF EXISTS ix_users_disabled;

CREATE INDEX CONCURRENTLY ix_users_disabled ON users (created_at, id) WHERE disabled_at IS NOT NULL;

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

UPDATE alembic_version SET version_num='0010' WHERE alembic_version.version_num = '0009';

COMMIT;
