-- 0015  Counts of failed sign-ins, by account and by address, and when a user's devices were forgotten.
--
--   why       guessing must be slowed down in all processes together, so the counts are in the database.
--             Those of accounts survive a crash. Those of addresses are written at each sign-in of an
--             unknown device and are worth a minute's wait: unlogged.
--   locks     ACCESS EXCLUSIVE on users for a moment, for a column without a default; none on anything
--             else that exists.
--   how long  milliseconds.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops the tables and the column. All counts begin anew, and forgotten devices are known
--             again.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

CREATE TABLE login_throttle (
    account BYTEA NOT NULL,
    way TEXT NOT NULL,
    holder BYTEA NOT NULL,
    failures INTEGER NOT NULL,
    begun_at TIMESTAMP WITH TIME ZONE NOT NULL,
    blocked_until TIMESTAMP WITH TIME ZONE,
    last_failure_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_login_throttle PRIMARY KEY (account, way, holder),
    CONSTRAINT ck_login_throttle_account_length CHECK (octet_length(account) = 32),
    CONSTRAINT ck_login_throttle_holder_length CHECK (octet_length(holder) IN (0, 32)),
    CONSTRAINT ck_login_throttle_way CHECK (way IN ('password', 'device', 'session')),
    CONSTRAINT ck_login_throttle_failures CHECK (failures > 0)
);

CREATE INDEX ix_login_throttle_last_failure_at ON login_throttle (last_failure_at);

CREATE UNLOGGED TABLE address_throttle (
    place TEXT NOT NULL,
    full_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_address_throttle PRIMARY KEY (place)
)
 WITH (fillfactor = 50);

ALTER TABLE users ADD COLUMN devices_forgotten_at TIMESTAMP WITH TIME ZONE;

ALTER TABLE login_throttle OWNER TO rota_owner;

GRANT SELECT, INSERT, UPDATE, DELETE ON login_throttle TO rota_app;

ALTER TABLE address_throttle OWNER TO rota_owner;

GRANT SELECT, INSERT, UPDATE, DELETE ON address_throttle TO rota_app;

UPDATE alembic_version SET version_num='0015' WHERE alembic_version.version_num = '0014';

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0015', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

COMMIT;
