-- 0002  The audit trail, counted refusals, and the function that makes the trail's partitions.
--
--   why       every change and its event commit together from the first day on.
--   locks     none on anything that exists.
--   how long  milliseconds.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops the trail. Export it first.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

CREATE TABLE audit_events (
    occurred_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xact_id XID8 DEFAULT pg_current_xact_id() NOT NULL,
    seq BIGINT GENERATED ALWAYS AS IDENTITY,
    family_seq INTEGER,
    generation INTEGER,
    epoch SMALLINT DEFAULT 1 NOT NULL,
    version SMALLINT NOT NULL,
    id UUID NOT NULL,
    subject_id UUID NOT NULL,
    actor_id UUID,
    family_id UUID,
    request_id UUID,
    action TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT,
    actor_kind TEXT NOT NULL,
    ip INET,
    user_agent TEXT,
    commitment BYTEA,
    detail TEXT,
    CONSTRAINT pk_audit_events PRIMARY KEY (subject_id, occurred_at, id),
    CONSTRAINT ck_audit_events_outcome CHECK (outcome IN ('success', 'failure')),
    CONSTRAINT ck_audit_events_actor_kind CHECK (actor_kind IN ('user', 'admin', 'client', 'system', 'anonymous')),
    CONSTRAINT ck_audit_events_user_agent_length CHECK (octet_length(user_agent) <= 512)
)
 PARTITION BY RANGE (occurred_at);

CREATE INDEX ix_audit_events_seal ON audit_events (epoch, xact_id, seq);

CREATE INDEX ix_audit_events_time ON audit_events (occurred_at, id);

CREATE TABLE refusals (
    user_id UUID NOT NULL,
    family_id UUID NOT NULL,
    action TEXT NOT NULL,
    minute TIMESTAMP WITH TIME ZONE NOT NULL,
    count INTEGER NOT NULL,
    CONSTRAINT pk_refusals PRIMARY KEY (user_id, family_id, action, minute),
    CONSTRAINT ck_refusals_action CHECK (action IN ('refresh.refused', 'refresh.forged')),
    CONSTRAINT ck_refusals_count CHECK (count > 0)
);

CREATE FUNCTION audit_make_partitions(until timestamptz) RETURNS integer LANGUAGE plpgsql AS $body$
DECLARE
  month timestamp := date_trunc('month', (statement_timestamp() - interval '1 day') AT TIME ZONE 'UTC');
  partition text;
  made integer := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('audit_make_partitions'));
  WHILE month <= until AT TIME ZONE 'UTC' LOOP
    partition := 'audit_events_' || to_char(month, 'YYYY_MM');
    IF to_regclass(partition) IS NULL THEN
      EXECUTE format('CREATE TABLE %I (LIKE audit_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition);
      EXECUTE format('ALTER TABLE audit_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                     partition, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
      made := made + 1;
    END IF;
    month := month + interval '1 month';
  END LOOP;
  RETURN made;
END
$body$;

SELECT audit_make_partitions(statement_timestamp() + interval '90 days');

UPDATE alembic_version SET version_num='0002' WHERE alembic_version.version_num = '0001';

COMMIT;
