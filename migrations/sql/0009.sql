-- 0009  Bulk ends of sessions, as jobs that any process can go on with.
--
--   why       ending a million sessions takes longer than a request, a connection or a process may live.
--             Where the work stands is written in the same transaction as the work.
--   locks     none on anything that exists.
--   how long  milliseconds.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops the table. What is under way stops where it is; every session that has ended stays
--             so, with its event.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

CREATE TABLE session_revocations (
    id UUID NOT NULL,
    state TEXT NOT NULL,
    filter TEXT,
    shown TEXT NOT NULL,
    cut TIMESTAMP WITH TIME ZONE NOT NULL,
    end_reason TEXT NOT NULL,
    why TEXT NOT NULL,
    requested_by UUID,
    spared UUID,
    preview BYTEA,
    expected BIGINT NOT NULL,
    xact_id XID8 DEFAULT pg_current_xact_id() NOT NULL,
    listed BOOLEAN,
    settled BOOLEAN DEFAULT false NOT NULL,
    cursor UUID NOT NULL,
    again_from UUID,
    ended BIGINT DEFAULT 0 NOT NULL,
    looked_at BIGINT DEFAULT 0 NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    worked_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_session_revocations PRIMARY KEY (id),
    CONSTRAINT ck_session_revocations_state CHECK (state IN ('queued', 'running', 'done', 'cancelled')),
    CONSTRAINT ck_session_revocations_reason CHECK (end_reason = 'bulk_admin' OR end_reason = 'restore'),
    CONSTRAINT ck_session_revocations_finished CHECK ((finished_at IS NULL) = (state IN ('queued', 'running'))),
    CONSTRAINT ck_session_revocations_why_length CHECK (char_length(why) BETWEEN 3 AND 200),
    CONSTRAINT uq_session_revocations_preview UNIQUE (preview)
);

CREATE INDEX ix_session_revocations_open ON session_revocations (id) WHERE finished_at IS NULL;

ALTER TABLE session_revocations OWNER TO rota_owner;

GRANT SELECT, INSERT, UPDATE ON session_revocations TO rota_app;

UPDATE alembic_version SET version_num='0009' WHERE alembic_version.version_num = '0008';

COMMIT;
