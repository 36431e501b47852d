-- 0016  The outbox of what the owners of accounts are to be told, and the scope by which a mailer may read it.
--
--   why       whoever did not change their password must learn that somebody did. Rota sends no mail: it
--             writes down, with the change, that there is something to tell, and another program tells
--             it.
--   locks     none but on the new table; ACCESS EXCLUSIVE on api_clients for a moment: a constraint that
--             is not checked yet, in the place of a narrower one. It is checked in the same transaction,
--             and the table has a handful of rows.
--   how long  milliseconds.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops the table, with what was not told yet, and takes the scope from the clients that
--             have it.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

CREATE TABLE notifications (
    user_id UUID NOT NULL,
    id UUID NOT NULL,
    kind TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_notifications PRIMARY KEY (user_id, id),
    CONSTRAINT ck_notifications_kind CHECK (kind IN ('password_changed', 'username_changed', 'signed_in_after_failures'))
);

CREATE INDEX ix_notifications_id ON notifications (id);

ALTER TABLE notifications OWNER TO rota_owner;

GRANT SELECT, INSERT, DELETE ON notifications TO rota_app;

GRANT UPDATE (kind) ON notifications TO rota_app;

-- squawk-ignore ban-drop-constraint
ALTER TABLE api_clients DROP CONSTRAINT ck_api_clients_scopes;

ALTER TABLE api_clients ADD CONSTRAINT ck_api_clients_scopes CHECK (scopes <@ ARRAY['introspect', 'revoke', 'revocations', 'authz', 'sessions', 'notifications']::text[]) NOT VALID;

-- squawk-ignore constraint-missing-not-valid
ALTER TABLE api_clients VALIDATE CONSTRAINT ck_api_clients_scopes;

UPDATE alembic_version SET version_num='0016' WHERE alembic_version.version_num = '0015';

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0016', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

COMMIT;
