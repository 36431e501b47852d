-- 0003  Where batch jobs go on.
--
--   why       the expiry job walks the live sessions in bounded batches and must not begin anew each
--             time.
--   locks     none on anything that exists.
--   how long  milliseconds.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops the table; jobs begin anew.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

CREATE TABLE job_cursors (
    job TEXT NOT NULL,
    position UUID NOT NULL,
    CONSTRAINT pk_job_cursors PRIMARY KEY (job)
);

UPDATE alembic_version SET version_num='0003' WHERE alembic_version.version_num = '0002';

COMMIT;
