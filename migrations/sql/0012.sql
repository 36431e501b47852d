-- 0012  Two indexes on ended sessions, and a doorbell that rings when sessions end.
--
--   why       every process keeps the sessions ended within the last minutes in memory. It loads them by
--             time, follows them by transaction, and is woken by a notification without content, which a
--             trigger sends, so that no code path can forget it. The trigger is for the statement, and
--             only for one that names `ended_at`: a rotation does not, and pays nothing.
--   locks     SHARE UPDATE EXCLUSIVE while the indexes are built (concurrently); SHARE ROW EXCLUSIVE for
--             the moment in which the trigger is made, which waits a second at most for writers to pass.
--   how long  a minute for ten million sessions, most of them ended, without holding anybody up.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops all three. Processes that listen poll instead.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

COMMIT;

SET lock_timeout = 0;
SET statement_timeout = 0;

DROP INDEX CONCURRENTLY IF EXISTS ix_families_ended;

CREATE INDEX CONCURRENTLY ix_families_ended ON families (ended_xact, id) WHERE ended_at IS NOT NULL;

DROP INDEX CONCURRENTLY IF EXISTS ix_families_ended_at;

CREATE INDEX CONCURRENTLY ix_families_ended_at ON families (ended_at, id) WHERE ended_at IS NOT NULL;

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

CREATE FUNCTION families_ring() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF EXISTS (SELECT FROM families WHERE ended_xact = pg_current_xact_id_if_assigned() AND ended_at IS NOT NULL) THEN
    PERFORM pg_notify('rota_ends', '');
  END IF;
  RETURN NULL;
END
$body$;

DO $body$
BEGIN
  ALTER FUNCTION families_ring() OWNER TO rota_owner;
  EXECUTE format('ALTER FUNCTION families_ring() SET search_path = %I, pg_temp', current_schema());
  REVOKE ALL ON FUNCTION families_ring() FROM PUBLIC;
END
$body$;

CREATE TRIGGER families_ended AFTER UPDATE OF ended_at ON families
  FOR EACH STATEMENT EXECUTE FUNCTION families_ring();

UPDATE alembic_version SET version_num='0012' WHERE alembic_version.version_num = '0011';

COMMIT;
