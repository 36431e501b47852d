-- 0001  Users and refresh-token families.
--
--   why       the first tables.
--   locks     none on anything that exists.
--   how long  milliseconds.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops both tables and everybody's sessions with them.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE users (
    id UUID NOT NULL,
    username TEXT NOT NULL,
    username_key TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL,
    disabled_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    password_changed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_users PRIMARY KEY (id),
    CONSTRAINT ck_users_role CHECK (role IN ('user', 'auditor', 'admin')),
    CONSTRAINT uq_users_username_key UNIQUE (username_key)
);

CREATE TABLE families (
    user_id UUID NOT NULL,
    id UUID NOT NULL,
    seed BYTEA NOT NULL,
    generation INTEGER NOT NULL,
    event_seq INTEGER NOT NULL,
    client_id TEXT NOT NULL,
    scope TEXT NOT NULL,
    role TEXT NOT NULL,
    authenticated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    amr TEXT NOT NULL,
    acr TEXT,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    rotated_at TIMESTAMP WITH TIME ZONE,
    idle_expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    end_reason TEXT,
    ended_by UUID,
    ended_xact XID8,
    attempt BYTEA,
    replayed_generation INTEGER,
    ride_along_generation INTEGER,
    ride_along_count SMALLINT DEFAULT 0 NOT NULL,
    created_ip INET,
    last_ip INET,
    user_agent TEXT,
    device TEXT,
    browser TEXT,
    os TEXT,
    label TEXT,
    CONSTRAINT pk_families PRIMARY KEY (user_id, id),
    CONSTRAINT ck_families_role CHECK (role IN ('user', 'auditor', 'admin')),
    CONSTRAINT ck_families_end_reason CHECK (end_reason IN ('logout', 'logout_all', 'admin', 'bulk_admin', 'reuse', 'password_change', 'user_disabled', 'role_change', 'restore', 'evicted', 'idle_timeout', 'absolute_timeout', 'oauth_revocation')),
    CONSTRAINT ck_families_ended_with_reason CHECK ((ended_at IS NULL) = (end_reason IS NULL)),
    CONSTRAINT ck_families_ended_with_xact CHECK ((ended_at IS NULL) = (ended_xact IS NULL)),
    CONSTRAINT ck_families_seed_length CHECK (octet_length(seed) = 32),
    CONSTRAINT ck_families_generation CHECK (generation >= 0),
    CONSTRAINT ck_families_user_agent_length CHECK (octet_length(user_agent) <= 512),
    CONSTRAINT ck_families_label_length CHECK (char_length(label) <= 100)
)
 WITH (fillfactor = 85);

CREATE INDEX ix_families_id ON families (id);

CREATE INDEX ix_families_live ON families (id) WHERE ended_at IS NULL;

CREATE INDEX ix_families_user_live ON families (user_id, id) WHERE ended_at IS NULL;

INSERT INTO alembic_version (version_num) VALUES ('0001') RETURNING alembic_version.version_num;

COMMIT;
