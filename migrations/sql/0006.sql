-- 0006  Indexes for asking the trail: by address, by action, by failure, by who acted on others.
--
--   why       each of these questions must be answered within 50 ms at twenty million events. Refreshes
--             are nearly all of the trail and find themselves by time, so only the index on addresses
--             has them; the other three are partial and cost a refresh nothing.
--   locks     SHARE UPDATE EXCLUSIVE on one partition after the other (built concurrently); the parent's
--             own index is only a catalogue entry. Printed as SQL it is the plain form, which keeps
--             writers out while it builds.
--   how long  about a minute for ten million events, without holding anybody up.
--   rewrites  no table
--   phase     expand; Rota 0.1.0 and later run on it
--   back      drops the indexes.

SET lock_timeout = '1s';
SET statement_timeout = '5s';

BEGIN;

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX ix_audit_events_ip ON audit_events (ip, occurred_at);

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX ix_audit_events_action ON audit_events (action, occurred_at) WHERE action <> 'session.refreshed';

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX ix_audit_events_failure ON audit_events (occurred_at) WHERE outcome = 'failure';

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX ix_audit_events_actor ON audit_events (actor_id, occurred_at) WHERE actor_id <> subject_id;

UPDATE alembic_version SET version_num='0006' WHERE alembic_version.version_num = '0005';

COMMIT;
