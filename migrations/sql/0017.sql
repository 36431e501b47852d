-- 0017  How far each import of users has come.
--
--   why       an import of millions is a transaction a batch, and goes on where it was broken off.
--   locks     none on anything that exists.
--   how long  milliseconds.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops the table; an import that was broken off cannot be gone on with then. 0.1.0 cannot
--             verify hashes that are not Argon2's: what was imported signs in there only after it has
--             signed in here.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

CREATE TABLE user_imports (
    id UUID NOT NULL,
    digest BYTEA NOT NULL,
    place BYTEA NOT NULL,
    size BIGINT NOT NULL,
    form TEXT NOT NULL,
    total BIGINT NOT NULL,
    lines_done BIGINT NOT NULL,
    users BIGINT NOT NULL,
    admins BIGINT NOT NULL,
    disabled BIGINT NOT NULL,
    skipped BIGINT NOT NULL,
    skipped_lines BIGINT[] NOT NULL,
    actor_kind TEXT NOT NULL,
    actor_id UUID,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL,
    worked_at TIMESTAMP WITH TIME ZONE NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_user_imports PRIMARY KEY (id),
    CONSTRAINT ck_user_imports_digest_lengths CHECK (octet_length(digest) = 32 AND octet_length(place) = 32),
    CONSTRAINT ck_user_imports_form CHECK (form IN ('csv', 'ndjson')),
    CONSTRAINT ck_user_imports_actor_kind CHECK (actor_kind IN ('user', 'admin', 'client', 'system', 'anonymous')),
    CONSTRAINT ck_user_imports_counts CHECK (users >= 0 AND admins >= 0 AND disabled >= 0 AND skipped >= 0),
    CONSTRAINT uq_user_imports_digest UNIQUE (digest)
);

CREATE INDEX ix_user_imports_place ON user_imports (place);

ALTER TABLE user_imports OWNER TO rota_owner;

GRANT SELECT, INSERT, UPDATE ON user_imports TO rota_app;

UPDATE alembic_version SET version_num='0017' WHERE alembic_version.version_num = '0016';

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0017', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

COMMIT;
