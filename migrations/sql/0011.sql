-- 0011  Counts of the trail, the table of jobs, and the removal of ended sessions.
--
--   why       questions about numbers must be answered from counts, not from twenty million events;
--             whoever operates must see which job ran when; ended sessions past their retention must go,
--             and nothing else.
--   locks     ACCESS EXCLUSIVE on job_cursors for a moment: a nullable column without a default.
--   how long  milliseconds. The counts are made later, by the job, in batches.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops the counts, which can be made anew from the trail, and the jobs' history. Removed
--             sessions stay removed.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

ALTER TABLE job_cursors ADD COLUMN began_at TIMESTAMP WITH TIME ZONE;

CREATE TABLE job_runs (
    job TEXT NOT NULL,
    began_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE NOT NULL,
    next_at TIMESTAMP WITH TIME ZONE NOT NULL,
    rows BIGINT NOT NULL,
    found_at TIMESTAMP WITH TIME ZONE,
    total BIGINT NOT NULL,
    whole_since TIMESTAMP WITH TIME ZONE,
    error TEXT,
    failed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_job_runs PRIMARY KEY (job),
    CONSTRAINT ck_job_runs_counts CHECK (rows >= 0 AND total >= 0),
    CONSTRAINT ck_job_runs_error_length CHECK (char_length(error) <= 500)
);

CREATE TABLE stat_positions (
    id SMALLINT NOT NULL,
    epoch SMALLINT NOT NULL,
    xact XID8 NOT NULL,
    seq BIGINT NOT NULL,
    events BIGINT NOT NULL,
    open_sessions BIGINT NOT NULL,
    open_users BIGINT NOT NULL,
    counted_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_stat_positions PRIMARY KEY (id),
    CONSTRAINT ck_stat_positions_only_one CHECK (id = 1)
);

CREATE TABLE stat_counts (
    width TEXT NOT NULL,
    start TIMESTAMP WITH TIME ZONE NOT NULL,
    action TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    count BIGINT NOT NULL,
    CONSTRAINT pk_stat_counts PRIMARY KEY (width, start, action, outcome, reason),
    CONSTRAINT ck_stat_counts_width CHECK (width IN ('hour', 'day'))
);

CREATE TABLE stat_sources (
    width TEXT NOT NULL,
    kind TEXT NOT NULL,
    start TIMESTAMP WITH TIME ZONE NOT NULL,
    value TEXT NOT NULL,
    count BIGINT NOT NULL,
    CONSTRAINT pk_stat_sources PRIMARY KEY (width, kind, start, value),
    CONSTRAINT ck_stat_sources_width CHECK (width IN ('hour', 'day')),
    CONSTRAINT ck_stat_sources_kind CHECK (kind IN ('address', 'agent'))
);

CREATE INDEX ix_stat_sources_top ON stat_sources (width, kind, start, count DESC);

CREATE TABLE stat_users (
    user_id UUID NOT NULL,
    open INTEGER NOT NULL,
    CONSTRAINT pk_stat_users PRIMARY KEY (user_id)
);

INSERT INTO stat_positions VALUES (1, 0, '0', 0, 0, 0, 0, NULL);

CREATE FUNCTION families_remove_ended(users uuid[], sessions uuid[], ended_before timestamptz)
RETURNS integer LANGUAGE sql AS $body$
  WITH over AS (
    SELECT f.user_id, f.id FROM families AS f JOIN unnest(users, sessions) AS given (user_id, id) USING (user_id, id)
     WHERE f.ended_at < ended_before FOR UPDATE OF f SKIP LOCKED
  ), removed AS (
    DELETE FROM families AS f USING over WHERE f.user_id = over.user_id AND f.id = over.id RETURNING 1
  )
  SELECT count(*)::integer FROM removed
$body$;

DO $body$
BEGIN
  ALTER FUNCTION families_remove_ended(uuid[], uuid[], timestamptz) OWNER TO rota_owner;
  ALTER FUNCTION families_remove_ended(uuid[], uuid[], timestamptz) SECURITY DEFINER;
  EXECUTE format('ALTER FUNCTION families_remove_ended(uuid[], uuid[], timestamptz) SET search_path = %I, pg_temp',
                 current_schema());
  REVOKE ALL ON FUNCTION families_remove_ended(uuid[], uuid[], timestamptz) FROM PUBLIC;
  GRANT EXECUTE ON FUNCTION families_remove_ended(uuid[], uuid[], timestamptz) TO rota_app;
END
$body$;

ALTER TABLE job_runs OWNER TO rota_owner;

GRANT SELECT, INSERT, UPDATE ON job_runs TO rota_app;

ALTER TABLE stat_positions OWNER TO rota_owner;

GRANT SELECT, UPDATE ON stat_positions TO rota_app;

ALTER TABLE stat_counts OWNER TO rota_owner;

GRANT SELECT, INSERT, UPDATE, DELETE ON stat_counts TO rota_app;

ALTER TABLE stat_sources OWNER TO rota_owner;

GRANT SELECT, INSERT, UPDATE, DELETE ON stat_sources TO rota_app;

ALTER TABLE stat_users OWNER TO rota_owner;

GRANT SELECT, INSERT, UPDATE, DELETE ON stat_users TO rota_app;

UPDATE alembic_version SET version_num='0011' WHERE alembic_version.version_num = '0010';

COMMIT;
