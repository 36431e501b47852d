"""Questions about the database itself, for `rota doctor`. They change nothing and take no lock that matters."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models import Base
from app.repositories.engine import APP, MAINTENANCE, OWNER

TABLES: Final = tuple(sorted(Base.metadata.tables))
APPEND_ONLY: Final = ("audit_events", "audit_batches", "audit_tiles", "audit_checkpoints")
# What the server must be able to do besides reading everything; it inserts into the trail by column.
WRITES: Final = {
    "INSERT": ("users", "families", "refusals", "job_cursors", "job_runs"),
    "UPDATE": ("users", "families", "refusals", "job_cursors", "job_runs"),
    "DELETE": ("refusals",),
}

SETTINGS: Final = """
SELECT name, current_setting(name, true) FROM unnest(CAST(:names AS text[])) AS name
"""
CONNECTIONS: Final = """
SELECT current_setting('max_connections')::int
       - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true)::int, 0),
       nullif((SELECT datconnlimit FROM pg_database WHERE datname = current_database()), -1),
       nullif((SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user), -1),
       count(*) FILTER (WHERE application_name <> ALL (:ours)),
       count(*) FILTER (WHERE application_name = 'rota-ends' AND datname = current_database())
  FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
LOGIN: Final = """
SELECT rolname::text, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls
  FROM pg_roles WHERE rolname = session_user
"""
MEMBERSHIPS: Final = """
SELECT rolname::text FROM pg_roles
 WHERE rolname = ANY(:roles) AND pg_has_role(session_user, oid, 'MEMBER') ORDER BY 1
"""
OWNED_BY_OTHERS: Final = """
SELECT c.relname::text, pg_get_userbyid(c.relowner)::text FROM pg_class AS c
  LEFT JOIN pg_inherits AS up ON up.inhrelid = c.oid LEFT JOIN pg_class AS parent ON parent.oid = up.inhparent
 WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
   AND coalesce(parent.relname, c.relname) = ANY(:tables) AND c.relowner <> to_regrole(:owner) ORDER BY 1
"""
# A login that inherits from rota_owner has all of its rights, and is found as that; here it is what was granted.
CHANGEABLE: Final = """
SELECT c.relname::text, who.name, string_agg(DISTINCT granted.privilege_type, ', ' ORDER BY granted.privilege_type)
  FROM pg_class AS c
  LEFT JOIN pg_inherits AS up ON up.inhrelid = c.oid LEFT JOIN pg_class AS parent ON parent.oid = up.inhparent
  CROSS JOIN LATERAL (
    SELECT grantee, privilege_type FROM aclexplode(c.relacl)
    UNION ALL
    SELECT x.grantee, x.privilege_type FROM pg_attribute AS a, aclexplode(a.attacl) AS x WHERE a.attrelid = c.oid
  ) AS granted
  CROSS JOIN LATERAL (
    SELECT CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(granted.grantee)::text END AS name
  ) AS who
 WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
   AND coalesce(parent.relname, c.relname) = ANY(:tables)
   AND granted.privilege_type IN ('UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER', 'REFERENCES')
   AND granted.grantee <> c.relowner
   AND (granted.grantee = 0 OR pg_has_role(to_regrole(:app), granted.grantee, 'MEMBER')
        OR granted.grantee = (SELECT oid FROM pg_roles WHERE rolname = session_user))
 GROUP BY 1, 2 ORDER BY 1, 2
"""
LACKING: Final = """
SELECT name, wanted.privilege
  FROM unnest(CAST(:tables AS text[]), CAST(:privileges AS text[])) AS wanted(name, privilege)
 WHERE NOT has_table_privilege(:app, to_regclass(wanted.name), wanted.privilege)
UNION ALL
SELECT 'audit_events', 'INSERT' WHERE NOT has_any_column_privilege(:app, 'audit_events', 'INSERT')
UNION ALL
SELECT 'the schema ' || current_schema(), 'USAGE' WHERE NOT has_schema_privilege(:app, current_schema(), 'USAGE')
 ORDER BY 1, 2
"""
DEFAULT_PARTITION: Final = """
SELECT c.relname::text FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'audit_events'::regclass AND pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT'
"""
# By the owner's function, where it may be asked; whoever sees everybody's transactions sees those without an id, too.
OLDEST: Final = """
SELECT kind, pid, database, username, application, extract(epoch FROM clock_timestamp() - since)::float
  FROM audit_horizon_holders() WHERE since IS NOT NULL
UNION ALL
SELECT 'transaction', pid, datname::text, usename::text, application_name,
       extract(epoch FROM clock_timestamp() - xact_start)::float
  FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND backend_xid IS NULL AND xact_start IS NOT NULL
   AND pid <> pg_backend_pid() AND backend_type = 'client backend'
 ORDER BY 6 DESC LIMIT 1
"""
DEAD: Final = """
SELECT s.relname::text, s.n_live_tup, s.n_dead_tup,
       coalesce((SELECT option_value FROM pg_options_to_table(c.reloptions)
                  WHERE option_name = 'autovacuum_enabled'), 'true') IN ('true', 'on', '1', 'yes')
  FROM pg_stat_user_tables AS s JOIN pg_class AS c ON c.oid = s.relid
 WHERE c.relnamespace = current_schema()::regnamespace AND s.relname = ANY(:tables)
 ORDER BY s.n_dead_tup DESC
"""
HOT: Final = """
SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables
 WHERE relname = 'families' AND schemaname = current_schema()
"""
FREEZE: Final = """
SELECT datname::text, age(datfrozenxid)::bigint, mxid_age(datminmxid)::bigint FROM pg_database
 ORDER BY greatest(age(datfrozenxid), mxid_age(datminmxid)) DESC LIMIT 1
"""
SLOTS: Final = """
SELECT slot_name::text, active, wal_status,
       coalesce(pg_wal_lsn_diff(
         CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn
       ), 0)::bigint
  FROM pg_replication_slots ORDER BY 4 DESC
"""
COUNTED: Final = """
SELECT p.open_sessions, p.open_users, coalesce((SELECT min(open) FROM stat_users), 0),
       (SELECT count(*) FROM stat_counts WHERE count < 0),
       extract(epoch FROM statement_timestamp() - p.counted_at)::float
  FROM stat_positions AS p
"""
ADMINS: Final = """
SELECT count(*), count(*) FILTER (WHERE password_hash IS NOT NULL) FROM users
 WHERE role = 'admin' AND disabled_at IS NULL AND deleted_at IS NULL
"""
MISSING_TABLES: Final = """
SELECT name FROM unnest(CAST(:tables AS text[])) AS name WHERE to_regclass(name) IS NULL ORDER BY 1
"""
# Only where this login may know it; the path is on the database's host.
DATA_DIRECTORY: Final = """
SELECT CASE WHEN pg_has_role(session_user, 'pg_read_all_settings', 'MEMBER') THEN current_setting('data_directory') END,
       inet_server_addr() IS NULL OR host(inet_server_addr()) IN ('127.0.0.1', '::1'),
       pg_database_size(current_database())
"""


class DiagnosticRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def _rows(self, statement: str, **values: object) -> Sequence[Any]:
        return (await self._db.execute(text(statement), values)).all()

    async def ask(self) -> str:
        """The database's name; the shortest sign of life."""
        return str((await self._rows("SELECT current_database()"))[0][0])

    async def settings(self, *names: str) -> dict[str, str | None]:
        """Settings as they are in effect for this login in this database; `None`: there is no such one."""
        return {row[0]: row[1] for row in await self._rows(SETTINGS, names=list(names))}

    async def clock(self) -> float:
        """The database's time, in seconds since 1970."""
        return float((await self._rows("SELECT extract(epoch FROM clock_timestamp())::float"))[0][0])

    async def is_standby(self) -> bool:
        return bool((await self._rows("SELECT pg_is_in_recovery()"))[0][0])

    async def count_connections(self) -> Any:
        """Room for ordinary logins, the database's limit, the login's, connections of others, our processes."""
        ours = ["rota", "rota-ends", "rota-doctor", "rota-migrate"]
        return (await self._rows(CONNECTIONS, ours=ours))[0]

    async def list_extensions(self) -> list[str]:
        return [row[0] for row in await self._rows("SELECT extname::text FROM pg_extension ORDER BY 1")]

    async def is_encrypted(self) -> bool:
        found = await self._rows("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        return bool(found and found[0][0])

    async def describe_login(self) -> Any:
        """Name, superuser, createrole, createdb, replication, bypassrls."""
        return (await self._rows(LOGIN))[0]

    async def list_memberships(self) -> list[str]:
        """Rota's roles that the login may act as."""
        return [row[0] for row in await self._rows(MEMBERSHIPS, roles=[APP, MAINTENANCE, OWNER])]

    async def owner_may_log_in(self) -> bool:
        return bool(await self._rows("SELECT 1 FROM pg_roles WHERE rolname = :owner AND rolcanlogin", owner=OWNER))

    async def list_owned_by_others(self) -> Sequence[Any]:
        """Tables of ours that do not belong to the owner, and whose they are."""
        return await self._rows(OWNED_BY_OTHERS, tables=list(TABLES), owner=OWNER)

    async def list_changeable(self) -> Sequence[Any]:
        """Append-only tables that the server may change: table, by which role, which rights."""
        return await self._rows(CHANGEABLE, tables=list(APPEND_ONLY), app=APP)

    async def list_lacking(self) -> Sequence[Any]:
        """Rights that the server needs and does not have: table, right."""
        pairs = [(table, "SELECT") for table in TABLES]
        pairs += [(table, privilege) for privilege, tables in WRITES.items() for table in tables]
        tables, privileges = zip(*pairs, strict=True)
        return await self._rows(LACKING, tables=list(tables), privileges=list(privileges), app=APP)

    async def list_missing_tables(self) -> list[str]:
        return [row[0] for row in await self._rows(MISSING_TABLES, tables=list(TABLES))]

    async def list_default_partitions(self) -> list[str]:
        return [row[0] for row in await self._rows(DEFAULT_PARTITION)]

    async def find_oldest_transaction(self) -> Any:
        """Kind, process, database, login, application and age in seconds; `None`: there is none."""
        rows = await self._rows(OLDEST)
        return rows[0] if rows else None

    async def list_dead(self) -> Sequence[Any]:
        """Of our tables and months: live and dead rows, and whether autovacuum may clear them."""
        months = [row[0] for row in await self._rows(_MONTHS)]
        return await self._rows(DEAD, tables=[*TABLES, *months])

    async def count_updates(self) -> Any:
        """Updates of sessions since the statistics began, and how many of them were HOT."""
        rows = await self._rows(HOT)
        return rows[0] if rows else (0, 0)

    async def find_oldest_freeze(self) -> Any:
        """The database that is nearest to running out of ids, and the ages of its oldest two kinds of them."""
        return (await self._rows(FREEZE))[0]

    async def list_slots(self) -> Sequence[Any]:
        """Name, whether somebody reads it, state of its WAL, bytes held back; the largest first."""
        return await self._rows(SLOTS)

    async def read_counts(self) -> Any:
        """Open sessions, open users, the least of a user, negative counts, seconds since counting."""
        rows = await self._rows(COUNTED)
        return rows[0] if rows else None

    async def count_admins(self) -> Any:
        """Enabled administrators, and those of them with a password."""
        return (await self._rows(ADMINS))[0]

    async def find_data(self) -> Any:
        """The data directory if the login may know it, whether the server may be on this host, the database's size."""
        return (await self._rows(DATA_DIRECTORY))[0]


_MONTHS: Final = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass('audit_events')"
