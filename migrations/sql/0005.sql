-- 0005  Where the sealed tree lives: its head, its batches, its full tiles, the signed checkpoints, and people's salts.
--
--   why       the sealer appends committed events to a Merkle tree and must be able to go on after any
--             crash.
--   locks     none on anything that exists.
--   how long  milliseconds.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops the tree. What was published stays true, but nothing can be proven from this
--             database any more, and a later sealing begins at size 0, which the sealer refuses while
--             the published checkpoints are there.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

CREATE TABLE audit_logs (
    epoch SMALLINT NOT NULL,
    origin TEXT NOT NULL,
    opening TEXT,
    tree_size BIGINT NOT NULL,
    root BYTEA NOT NULL,
    edge BYTEA[] NOT NULL,
    cursor_epoch SMALLINT NOT NULL,
    cursor_xact XID8 NOT NULL,
    cursor_seq BIGINT NOT NULL,
    minimum_index BIGINT NOT NULL,
    CONSTRAINT pk_audit_logs PRIMARY KEY (epoch),
    CONSTRAINT ck_audit_logs_tree_size CHECK (tree_size >= 0),
    CONSTRAINT ck_audit_logs_root_length CHECK (octet_length(root) = 32),
    CONSTRAINT uq_audit_logs_origin UNIQUE (origin)
);

CREATE TABLE audit_batches (
    epoch SMALLINT NOT NULL,
    first_index BIGINT NOT NULL,
    count INTEGER NOT NULL,
    from_epoch SMALLINT NOT NULL,
    from_xact XID8 NOT NULL,
    from_seq BIGINT NOT NULL,
    to_epoch SMALLINT NOT NULL,
    to_xact XID8 NOT NULL,
    to_seq BIGINT NOT NULL,
    root BYTEA NOT NULL,
    first_at TIMESTAMP WITH TIME ZONE NOT NULL,
    last_at TIMESTAMP WITH TIME ZONE NOT NULL,
    sealed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_audit_batches PRIMARY KEY (epoch, first_index),
    CONSTRAINT ck_audit_batches_count CHECK (count > 0)
);

CREATE INDEX ix_audit_batches_to ON audit_batches (epoch, to_epoch, to_xact, to_seq);

CREATE INDEX ix_audit_batches_last_at ON audit_batches (epoch, last_at);

CREATE INDEX ix_audit_batches_first_at ON audit_batches (epoch, first_at);

CREATE TABLE audit_tiles (
    epoch SMALLINT NOT NULL,
    level SMALLINT NOT NULL,
    idx BIGINT NOT NULL,
    data BYTEA NOT NULL,
    CONSTRAINT pk_audit_tiles PRIMARY KEY (epoch, level, idx),
    CONSTRAINT ck_audit_tiles_full CHECK (octet_length(data) = 8192)
);

ALTER TABLE audit_tiles ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE audit_checkpoints (
    epoch SMALLINT NOT NULL,
    tree_size BIGINT NOT NULL,
    root BYTEA NOT NULL,
    note TEXT NOT NULL,
    signed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_audit_checkpoints PRIMARY KEY (epoch, tree_size)
);

CREATE TABLE audit_salts (
    subject_id UUID NOT NULL,
    salt BYTEA NOT NULL,
    CONSTRAINT pk_audit_salts PRIMARY KEY (subject_id),
    CONSTRAINT ck_audit_salts_length CHECK (octet_length(salt) = 32)
);

CREATE FUNCTION audit_open_epoch(next_epoch smallint, next_origin text, first_entry text, first_leaf bytea)
RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
  IF next_epoch <> (SELECT max(epoch) + 1 FROM audit_logs) THEN
    RAISE EXCEPTION 'the next epoch is not %', next_epoch;
  END IF;
  EXECUTE format('ALTER TABLE audit_events ALTER COLUMN epoch SET DEFAULT %s', next_epoch);
  INSERT INTO audit_logs (epoch, origin, opening, tree_size, root, edge, cursor_epoch, cursor_xact, cursor_seq,
                          minimum_index)
  VALUES (next_epoch, next_origin, first_entry, 1, first_leaf, ARRAY[first_leaf], 0, '0', 0, 0);
END
$body$;

CREATE FUNCTION audit_found(first_origin text) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
  IF NOT EXISTS (SELECT FROM audit_logs) THEN
    INSERT INTO audit_logs (epoch, origin, tree_size, root, edge, cursor_epoch, cursor_xact, cursor_seq, minimum_index)
    VALUES (1, first_origin, 0, sha256(''), '{}', 0, '0', 0, 0) ON CONFLICT DO NOTHING;
  END IF;
END
$body$;

DO $body$
DECLARE
  made regprocedure;
BEGIN
  FOREACH made IN ARRAY ARRAY['audit_found(text)', 'audit_open_epoch(smallint, text, text, bytea)']::regprocedure[] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO rota_owner', made);
    EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER', made);
    -- The temporary schema last: whoever calls must not be able to put a table of theirs before ours.
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', made, current_schema());
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', made);
  END LOOP;
END
$body$;

GRANT EXECUTE ON FUNCTION audit_found(text) TO rota_app;

GRANT EXECUTE ON FUNCTION audit_open_epoch(smallint, text, text, bytea) TO rota_maintenance;

ALTER TABLE audit_logs OWNER TO rota_owner;

GRANT SELECT ON audit_logs TO rota_app;

ALTER TABLE audit_batches OWNER TO rota_owner;

GRANT SELECT, INSERT ON audit_batches TO rota_app;

ALTER TABLE audit_tiles OWNER TO rota_owner;

GRANT SELECT, INSERT ON audit_tiles TO rota_app;

ALTER TABLE audit_checkpoints OWNER TO rota_owner;

GRANT SELECT, INSERT ON audit_checkpoints TO rota_app;

ALTER TABLE audit_salts OWNER TO rota_owner;

GRANT SELECT, INSERT ON audit_salts TO rota_app;

CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit_batches FOR EACH ROW EXECUTE FUNCTION audit_refuse();

ALTER TABLE audit_batches ENABLE ALWAYS TRIGGER audit_no_change;

CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit_batches FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();

ALTER TABLE audit_batches ENABLE ALWAYS TRIGGER audit_no_truncate;

CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit_tiles FOR EACH ROW EXECUTE FUNCTION audit_refuse();

ALTER TABLE audit_tiles ENABLE ALWAYS TRIGGER audit_no_change;

CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit_tiles FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();

ALTER TABLE audit_tiles ENABLE ALWAYS TRIGGER audit_no_truncate;

CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit_checkpoints FOR EACH ROW EXECUTE FUNCTION audit_refuse();

ALTER TABLE audit_checkpoints ENABLE ALWAYS TRIGGER audit_no_change;

CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit_checkpoints FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();

ALTER TABLE audit_checkpoints ENABLE ALWAYS TRIGGER audit_no_truncate;

GRANT UPDATE (tree_size, root, edge, cursor_epoch, cursor_xact, cursor_seq) ON audit_logs TO rota_app;

GRANT DELETE ON audit_salts TO rota_maintenance;

UPDATE alembic_version SET version_num='0005' WHERE alembic_version.version_num = '0004';

COMMIT;
