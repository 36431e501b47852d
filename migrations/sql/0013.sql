-- 0013  Programs that speak to Rota in their own name.
--
--   why       other services ask, end and open sessions; each must be known, limited, and shut out
--             alone. A token that comes through another client than its own is counted under an action
--             of its own.
--   locks     none but on the new table; ACCESS EXCLUSIVE on refusals for a moment.
--   how long  milliseconds; refusals has some minutes' rows.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops the clients. Sessions opened through them stay, and nobody can refresh them.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

CREATE TABLE api_clients (
    id UUID NOT NULL,
    client_id TEXT NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT[] NOT NULL,
    grants TEXT[] NOT NULL,
    session_scopes TEXT[] NOT NULL,
    first_party BOOLEAN NOT NULL,
    public BOOLEAN NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    disabled_at TIMESTAMP WITH TIME ZONE,
    secret_hash BYTEA,
    secret_key_id SMALLINT,
    secret_created_at TIMESTAMP WITH TIME ZONE,
    former_secret_hash BYTEA,
    former_secret_key_id SMALLINT,
    former_secret_created_at TIMESTAMP WITH TIME ZONE,
    former_secret_expires_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_api_clients PRIMARY KEY (id),
    CONSTRAINT ck_api_clients_scopes CHECK (scopes <@ ARRAY['introspect', 'revoke', 'revocations', 'authz', 'sessions']::text[]),
    CONSTRAINT ck_api_clients_grants CHECK (grants <@ ARRAY['password', 'refresh_token', 'client_credentials']::text[]),
    CONSTRAINT ck_api_clients_session_scopes CHECK (cardinality(session_scopes) <= 64),
    CONSTRAINT ck_api_clients_name_length CHECK (char_length(name) BETWEEN 1 AND 100),
    CONSTRAINT ck_api_clients_client_id CHECK (client_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{2,63}$' AND client_id <> 'first-party'),
    CONSTRAINT ck_api_clients_passwords_first_party CHECK (first_party OR NOT 'password' = ANY (grants)),
    CONSTRAINT ck_api_clients_public CHECK (NOT public OR (first_party AND scopes = '{}' AND NOT 'client_credentials' = ANY (grants) AND num_nonnulls(secret_hash, former_secret_hash) = 0)),
    CONSTRAINT ck_api_clients_secret CHECK (num_nonnulls(secret_hash, secret_key_id, secret_created_at) IN (0, 3) AND coalesce(octet_length(secret_hash), 32) = 32),
    CONSTRAINT ck_api_clients_former_secret CHECK (num_nonnulls(former_secret_hash, former_secret_key_id, former_secret_created_at) IN (0, 3) AND coalesce(octet_length(former_secret_hash), 32) = 32 AND (former_secret_expires_at IS NULL OR former_secret_hash IS NOT NULL)),
    CONSTRAINT uq_api_clients_client_id UNIQUE (client_id)
);

ALTER TABLE api_clients OWNER TO rota_owner;

GRANT SELECT, INSERT, UPDATE ON api_clients TO rota_app;

-- squawk-ignore ban-drop-constraint
ALTER TABLE refusals DROP CONSTRAINT ck_refusals_action;

-- squawk-ignore constraint-missing-not-valid
ALTER TABLE refusals ADD CONSTRAINT ck_refusals_action CHECK (action IN ('refresh.refused', 'refresh.forged', 'refresh.misdirected'));

UPDATE alembic_version SET version_num='0013' WHERE alembic_version.version_num = '0012';

COMMIT;
