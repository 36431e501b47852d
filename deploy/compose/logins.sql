-- Roles and logins, by the superuser, as often as you like. The migrations would make the three roles themselves, but
-- then by a login that may make any; this way the login that migrates may do nothing but that.
\set ON_ERROR_STOP on
\set server_password `cat /run/secrets/server_password`
\set migration_password `cat /run/secrets/migration_password`

BEGIN;
SET LOCAL log_statement = 'none';
SET LOCAL log_min_error_statement = 'panic';
SELECT format('CREATE ROLE %I NOLOGIN', wanted)
  FROM unnest(ARRAY['rota_owner', 'rota_app', 'rota_maintenance']) AS wanted
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted)
\gexec
SELECT format('CREATE ROLE %I LOGIN', wanted)
  FROM unnest(ARRAY['rota_server', 'rota_migration']) AS wanted
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted)
\gexec
ALTER ROLE rota_server PASSWORD :'server_password';
ALTER ROLE rota_migration PASSWORD :'migration_password';
GRANT rota_app TO rota_maintenance;
GRANT pg_read_all_stats TO rota_owner;  -- so that an alarm can name who holds up the sealing
GRANT rota_app TO rota_server;
GRANT rota_owner, rota_app, rota_maintenance TO rota_migration;
ALTER DATABASE rota OWNER TO rota_migration;
COMMIT;
