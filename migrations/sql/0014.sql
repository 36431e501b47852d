-- 0014  What each applied revision declared.
--
--   why       an older release must be able to tell whether it may run on a schema that a newer one has
--             made.
--   locks     none on anything that exists.
--   how long  milliseconds.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops the table; the next upgrade fills it again from the revisions' files.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

CREATE TABLE schema_revisions (
    revision TEXT NOT NULL,
    phase TEXT NOT NULL,
    oldest_release TEXT NOT NULL,
    rewrites BOOLEAN NOT NULL,
    applied_at TIMESTAMP WITH TIME ZONE NOT NULL,
    told_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_schema_revisions PRIMARY KEY (revision),
    CONSTRAINT ck_schema_revisions_phase CHECK (phase IN ('expand', 'migrate', 'contract'))
);

ALTER TABLE schema_revisions OWNER TO rota_owner;

GRANT SELECT ON schema_revisions, alembic_version TO rota_app;

UPDATE alembic_version SET version_num='0014' WHERE alembic_version.version_num = '0013';

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0001', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0002', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0003', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0004', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0005', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0006', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0007', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0008', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0009', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0010', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0011', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0012', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0013', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) VALUES ('0014', 'expand', '0.1.0', false, statement_timestamp()) ON CONFLICT (revision) DO NOTHING;

DELETE FROM schema_revisions WHERE revision = '0015';

DELETE FROM schema_revisions WHERE revision = '0016';

DELETE FROM schema_revisions WHERE revision = '0017';

COMMIT;
