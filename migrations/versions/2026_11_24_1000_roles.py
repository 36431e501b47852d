"""
Three roles, and a trail that none of them can rewrite.

Why: whoever holds the server's credentials must not be able to alter what it wrote. `rota_owner` owns everything and
nobody signs in as it; `rota_app` is what the server acts as; `rota_maintenance` may besides erase a person's data.
Locks: ACCESS EXCLUSIVE on every table for the moment of its change of owner; waits a second at most.
How long: milliseconds.
Back: gives everything to whoever migrates and takes the triggers off. The roles stay: they belong to the whole cluster,
and other databases may use them.

Needs: a superuser, or a login with CREATEROLE that owns the database; one that has the three roles made for it (each
NOLOGIN, with membership in all of them) needs neither.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
phase: str = "expand"
oldest_release: str = "0.1.0"
rewrites: bool = False

# Roles belong to the cluster: migrations of several databases may come here at once, and one of them finds the other's
# work half done ("tuple concurrently updated", a unique violation). It looks again then.
ROLES = """
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
$body$
"""

# To name who holds up the sealing, the owner's function must see other logins' transactions. Without this right it
# still tells that somebody does.
STATISTICS = """
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
$body$
"""

OWNED = """
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
            OR relname ~ '^audit_events_\\d{4}_\\d{2}$')
  LOOP
    EXECUTE format('ALTER TABLE %s OWNER TO rota_owner', mine);
  END LOOP;
  ALTER FUNCTION audit_make_partitions(timestamptz) OWNER TO rota_owner;
END
$body$
"""

REFUSE = """
CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$body$
"""

# The one change that an event may see: a person's data gives way to its commitment, and nothing else moves.
ALLOW_ERASURE = """
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
$body$
"""

# ALWAYS: also for a session that says it is a replica. PostgreSQL copies row triggers to each partition by itself, but
# neither those for TRUNCATE nor any to a table that is no partition any more.
PROTECT = """
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
$body$
"""

PROTECT_ALL = """
SELECT audit_protect('audit_events');
SELECT audit_protect(inhrelid) FROM pg_inherits WHERE inhparent = 'audit_events'::regclass
"""

# As before, but with the owner's rights, so that the server can ask for partitions without being able to touch them;
# at most 400 days ahead, so that this cannot be misused to fill the database with tables.
MAKE_PARTITIONS = """
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
$body$
"""

# Who keeps the horizon back: every transaction with an id, in any database of the cluster, and every prepared one.
HORIZON_HOLDERS = """
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
$body$
"""

OF_THE_OWNER = """
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
$body$
"""

# An entry of the tree has at most 64 KiB, and whoever may add events could make one too large to be sealed.
# Validated in the same transaction: no release knows a trail without this, so there are no events yet.
SIZES = """
ALTER TABLE audit_events ADD CONSTRAINT ck_audit_events_sizes CHECK (
  octet_length(action) <= 64 AND coalesce(octet_length(reason), 0) <= 64 AND coalesce(octet_length(detail), 0) <= 16384
) NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE audit_events VALIDATE CONSTRAINT ck_audit_events_sizes
"""

# An event's place in the order of sealing is the database's to give: transaction, sequence and epoch are not granted.
GRANTS = """
GRANT SELECT, INSERT, UPDATE ON users, families, job_cursors TO rota_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON refusals TO rota_app;
GRANT SELECT ON audit_events TO rota_app;
GRANT INSERT (occurred_at, family_seq, generation, version, id, subject_id, actor_id, family_id, request_id, action,
              outcome, reason, actor_kind, ip, user_agent, detail) ON audit_events TO rota_app;
GRANT UPDATE (ip, user_agent, commitment) ON audit_events TO rota_maintenance;
GRANT EXECUTE ON FUNCTION audit_make_partitions(timestamptz), audit_horizon_holders() TO rota_app
"""

FORMER_MAKE_PARTITIONS = MAKE_PARTITIONS.replace("      PERFORM audit_protect(partition::regclass);\n", "").replace(
    "least(until, statement_timestamp() + interval '400 days')", "until"
)

BACK = """
ALTER TABLE audit_events DROP CONSTRAINT ck_audit_events_sizes;
DROP TRIGGER audit_no_delete ON audit_events;
DROP TRIGGER audit_no_update ON audit_events;
DROP TRIGGER audit_no_truncate ON audit_events;
DO $body$
DECLARE
  partition regclass;
BEGIN
  FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'audit_events'::regclass LOOP
    EXECUTE format('DROP TRIGGER audit_no_truncate ON %s', partition);
  END LOOP;
END
$body$;
DROP FUNCTION audit_horizon_holders();
DROP FUNCTION audit_protect(regclass);
DROP FUNCTION audit_allow_erasure();
DROP FUNCTION audit_refuse();
ALTER FUNCTION audit_make_partitions(timestamptz) SECURITY INVOKER;
ALTER FUNCTION audit_make_partitions(timestamptz) RESET search_path;
GRANT EXECUTE ON FUNCTION audit_make_partitions(timestamptz) TO PUBLIC;
REASSIGN OWNED BY rota_owner TO CURRENT_USER;
DROP OWNED BY rota_maintenance, rota_app, rota_owner
"""


def upgrade() -> None:
    for statements in (ROLES, STATISTICS, OWNED, REFUSE, ALLOW_ERASURE, PROTECT, MAKE_PARTITIONS, HORIZON_HOLDERS):
        op.execute(statements)
    for statements in (OF_THE_OWNER, PROTECT_ALL, SIZES, GRANTS):
        _each(statements)


def downgrade() -> None:
    _each(BACK)
    op.execute(FORMER_MAKE_PARTITIONS)


def _each(statements: str) -> None:
    """One by one: the driver prepares each statement. None but a DO block has a semicolon within."""
    parts = statements.split("$body$")
    for number, part in enumerate(parts):
        if number % 2:  # the inside of a DO block stands between its two neighbours
            parts[number] = part.replace(";", "\0")
    for statement in "$body$".join(parts).split(";"):
        if statement.strip():
            op.execute(statement.replace("\0", ";").strip())
