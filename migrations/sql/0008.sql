-- 0008  Indexes for finding sessions: by address, device, browser, system, client, role, end.
--
--   why       each of these questions must be answered within 50 ms at ten million sessions. Each index
--             goes on with the id, which is the order of the list, so that a page is read and no more;
--             the one on lifetimes tells how far back sessions that are still used can reach. None
--             stands on a column that rotation writes. What nearly every session has, the first-party
--             client and the role of a user, is left out: a sign-in writes five more index entries, an
--             end two, a refresh none.
--   locks     SHARE UPDATE EXCLUSIVE on families, one index after the other (built concurrently).
--   how long  some two minutes for ten million sessions, without holding anybody up.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops the indexes.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

COMMIT;

SET lock_timeout = 0;
SET statement_timeout = 0;

DROP INDEX CONCURRENTLY IF EXISTS ix_families_created_ip;

CREATE INDEX CONCURRENTLY ix_families_created_ip ON families (created_ip, id);

DROP INDEX CONCURRENTLY IF EXISTS ix_families_device;

CREATE INDEX CONCURRENTLY ix_families_device ON families (device, id);

DROP INDEX CONCURRENTLY IF EXISTS ix_families_browser;

CREATE INDEX CONCURRENTLY ix_families_browser ON families (browser, id);

DROP INDEX CONCURRENTLY IF EXISTS ix_families_os;

CREATE INDEX CONCURRENTLY ix_families_os ON families (os, id);

DROP INDEX CONCURRENTLY IF EXISTS ix_families_client;

CREATE INDEX CONCURRENTLY ix_families_client ON families (client_id, id) WHERE client_id <> 'first-party';

DROP INDEX CONCURRENTLY IF EXISTS ix_families_role;

CREATE INDEX CONCURRENTLY ix_families_role ON families (role, id) WHERE role <> 'user';

DROP INDEX CONCURRENTLY IF EXISTS ix_families_life;

CREATE INDEX CONCURRENTLY ix_families_life ON families ((extract(epoch FROM expires_at - created_at)::bigint));

DROP INDEX CONCURRENTLY IF EXISTS ix_families_end_reason;

CREATE INDEX CONCURRENTLY ix_families_end_reason ON families (end_reason, id) WHERE end_reason IS NOT NULL;

DROP INDEX CONCURRENTLY IF EXISTS ix_families_ended_by;

CREATE INDEX CONCURRENTLY ix_families_ended_by ON families (ended_by, id) WHERE ended_by IS NOT NULL;

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

UPDATE alembic_version SET version_num='0008' WHERE alembic_version.version_num = '0007';

COMMIT;
