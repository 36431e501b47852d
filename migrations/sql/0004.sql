-- 0004  Three roles, and a trail that none of them can rewrite.
--
--   why       whoever holds the server's credentials must not be able to alter what it wrote.
--             `rota_owner` owns everything and nobody signs in as it; `rota_app` is what the server acts
--             as; `rota_maintenance` may besides erase a person's data.
--   locks     ACCESS EXCLUSIVE on every table for the moment of its change of owner; waits a second at
--             most.
--   how long  milliseconds.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      gives everything to whoever migrates and takes the triggers off. The roles stay: they
--             belong to the whole cluster, and other databases may use them.
--   needs     a superuser, or a login with CREATEROLE that owns the database; one that has the three
--             roles made for it (each NOLOGIN, with membership in all of them) needs neither.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

DO $body$
DECLARE
  wanted text;
  attempt integer := 0;
BEGIN
  LOOP
    BEGIN
      FOREACH wanted IN ARRAY ARRAY['rota_owner', 'rota_app', 'rota_maintenance'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
          EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
        -- Whoever migrates must be able to hand over what it makes, and to act as the server in development.
        IF NOT pg_has_role(current_user, wanted, 'MEMBER') THEN
          EXECUTE format('GRANT %I TO CURRENT_USER', wanted);
        END IF;
      END LOOP;
      IF NOT EXISTS (
        SELECT FROM pg_auth_members
         WHERE roleid = 'rota_app'::regrole AND member = 'rota_maintenance'::regrole
      ) THEN
        GRANT rota_app TO rota_maintenance;
      END IF;
      EXIT;
    EXCEPTION WHEN duplicate_object OR unique_violation OR internal_error THEN
      attempt := attempt + 1;
      IF attempt > 20 THEN RAISE; END IF;
      PERFORM pg_sleep(0.05 * random());
    END;
  END LOOP;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'rota_owner' AND rolcanlogin) THEN
    RAISE EXCEPTION 'the role rota_owner must be NOLOGIN';
  END IF;
END
$body$;

DO $body$
BEGIN
  IF NOT pg_has_role('rota_owner', 'pg_read_all_stats', 'MEMBER') THEN
    GRANT pg_read_all_stats TO rota_owner;
  END IF;
EXCEPTION
  WHEN insufficient_privilege THEN
    RAISE NOTICE 'rota_owner is not a member of pg_read_all_stats: lag alarms will not name other logins';
  WHEN internal_error OR unique_violation THEN NULL;  -- another database's migration grants it at this moment
END
$body$;

DO $body$
DECLARE
  mine regclass;
BEGIN
  EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO rota_owner', current_schema());
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO rota_app', current_schema());
  FOR mine IN
    SELECT oid FROM pg_class
     WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
       AND (relname IN ('users', 'families', 'refusals', 'job_cursors', 'audit_events')
            OR relname ~ '^audit_events_\d{4}_\d{2}$')
  LOOP
    EXECUTE format('ALTER TABLE %s OWNER TO rota_owner', mine);
  END LOOP;
  ALTER FUNCTION audit_make_partitions(timestamptz) OWNER TO rota_owner;
END
$body$;

CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$body$;

CREATE FUNCTION audit_allow_erasure() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
  same record := NEW;
BEGIN
  same.ip := OLD.ip;
  same.user_agent := OLD.user_agent;
  same.commitment := OLD.commitment;
  IF same IS NOT DISTINCT FROM OLD
     AND OLD.commitment IS NULL AND num_nonnulls(OLD.ip, OLD.user_agent) > 0
     AND octet_length(NEW.commitment) = 32 AND num_nonnulls(NEW.ip, NEW.user_agent) = 0
     AND pg_has_role(current_user, 'rota_maintenance', 'MEMBER') THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$body$;

CREATE FUNCTION audit_protect(guarded regclass) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
  attached boolean;
BEGIN
  SELECT relispartition INTO attached FROM pg_class WHERE oid = guarded;
  EXECUTE format('CREATE OR REPLACE TRIGGER audit_no_truncate BEFORE TRUNCATE ON %s EXECUTE FUNCTION audit_refuse()',
                 guarded);
  EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER audit_no_truncate', guarded);
  IF NOT attached THEN
    EXECUTE format('CREATE OR REPLACE TRIGGER audit_no_delete BEFORE DELETE ON %s FOR EACH ROW '
                   'EXECUTE FUNCTION audit_refuse()', guarded);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER audit_no_delete', guarded);
    EXECUTE format('CREATE OR REPLACE TRIGGER audit_no_update BEFORE UPDATE ON %s FOR EACH ROW '
                   'EXECUTE FUNCTION audit_allow_erasure()', guarded);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER audit_no_update', guarded);
  END IF;
END
$body$;

CREATE OR REPLACE FUNCTION audit_make_partitions(until timestamptz) RETURNS integer LANGUAGE plpgsql AS $body$
DECLARE
  month timestamp := date_trunc('month', (statement_timestamp() - interval '1 day') AT TIME ZONE 'UTC');
  last timestamp := least(until, statement_timestamp() + interval '400 days') AT TIME ZONE 'UTC';
  partition text;
  made integer := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('audit_make_partitions'));
  WHILE month <= last LOOP
    partition := 'audit_events_' || to_char(month, 'YYYY_MM');
    IF to_regclass(partition) IS NULL THEN
      EXECUTE format('CREATE TABLE %I (LIKE audit_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition);
      EXECUTE format('ALTER TABLE audit_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                     partition, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
      PERFORM audit_protect(partition::regclass);
      made := made + 1;
    END IF;
    month := month + interval '1 month';
  END LOOP;
  RETURN made;
END
$body$;

CREATE FUNCTION audit_horizon_holders()
RETURNS TABLE (kind text, pid integer, database text, username text, application text, state text, since timestamptz)
LANGUAGE sql STABLE AS $body$
  SELECT 'transaction', a.pid, a.datname::text, a.usename::text, a.application_name, a.state, a.xact_start
    FROM pg_stat_activity AS a
   WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_backend_pid()
  UNION ALL
  SELECT 'prepared transaction', NULL, p.database::text, p.owner::text, p.gid, 'prepared', p.prepared
    FROM pg_prepared_xacts AS p
   ORDER BY 7 NULLS LAST
$body$;

DO $body$
DECLARE
  made regprocedure;
BEGIN
  FOREACH made IN ARRAY ARRAY['audit_refuse()', 'audit_allow_erasure()', 'audit_protect(regclass)',
                              'audit_make_partitions(timestamptz)', 'audit_horizon_holders()']::regprocedure[] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO rota_owner', made);
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', made, current_schema());
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', made);
  END LOOP;
  ALTER FUNCTION audit_make_partitions(timestamptz) SECURITY DEFINER;
  ALTER FUNCTION audit_horizon_holders() SECURITY DEFINER;
END
$body$;

SELECT audit_protect('audit_events');

SELECT audit_protect(inhrelid) FROM pg_inherits WHERE inhparent = 'audit_events'::regclass;

ALTER TABLE audit_events ADD CONSTRAINT ck_audit_events_sizes CHECK (
  octet_length(action) <= 64 AND coalesce(octet_length(reason), 0) <= 64 AND coalesce(octet_length(detail), 0) <= 16384
) NOT VALID;

-- squawk-ignore constraint-missing-not-valid
ALTER TABLE audit_events VALIDATE CONSTRAINT ck_audit_events_sizes;

GRANT SELECT, INSERT, UPDATE ON users, families, job_cursors TO rota_app;

GRANT SELECT, INSERT, UPDATE, DELETE ON refusals TO rota_app;

GRANT SELECT ON audit_events TO rota_app;

GRANT INSERT (occurred_at, family_seq, generation, version, id, subject_id, actor_id, family_id, request_id, action,
              outcome, reason, actor_kind, ip, user_agent, detail) ON audit_events TO rota_app;

GRANT UPDATE (ip, user_agent, commitment) ON audit_events TO rota_maintenance;

GRANT EXECUTE ON FUNCTION audit_make_partitions(timestamptz), audit_horizon_holders() TO rota_app;

UPDATE alembic_version SET version_num='0004' WHERE alembic_version.version_num = '0003';

COMMIT;
