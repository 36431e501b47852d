-- 0007  Erased people, and counted failures to sign in.
--
--   why       a person can ask to be forgotten, and a flood of failed sign-ins must not fill the trail.
--   locks     ACCESS EXCLUSIVE on users for a moment: a nullable column without a default.
--   how long  milliseconds.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops the counts of the current minute and the dates of erasures; who was erased stays so.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

ALTER TABLE users ADD COLUMN erased_at TIMESTAMP WITH TIME ZONE;

CREATE TABLE login_failures (
    subject_id UUID NOT NULL,
    reason TEXT NOT NULL,
    source TEXT NOT NULL,
    minute TIMESTAMP WITH TIME ZONE NOT NULL,
    count INTEGER NOT NULL,
    CONSTRAINT pk_login_failures PRIMARY KEY (subject_id, reason, source, minute),
    CONSTRAINT ck_login_failures_count CHECK (count > 0)
);

CREATE INDEX ix_login_failures_minute ON login_failures (minute);

ALTER TABLE login_failures OWNER TO rota_owner;

GRANT SELECT, INSERT, UPDATE, DELETE ON login_failures TO rota_app;

UPDATE alembic_version SET version_num='0007' WHERE alembic_version.version_num = '0006';

COMMIT;
