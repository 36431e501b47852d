"""Each check of the database in both directions: made wrong, seen, mended, well again."""

from dataclasses import dataclass

import asyncpg
import pytest

from app.domain.checks import Verdict
from app.services.migrations import read_revisions
from tests.conftest import OwnDatabase
from tests.doctor.conftest import LOGIN, Examine

HEAD = read_revisions()[-1]
LAST_MONTHS = """
DO $$
DECLARE
  month regclass;
BEGIN
  FOR month IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'audit_events'::regclass
                ORDER BY inhrelid::regclass::text DESC LIMIT 3 LOOP
    EXECUTE format('DROP TABLE %s', month);
  END LOOP;
END
$$
"""
MIDDLE_MONTH = """
DO $$
BEGIN
  EXECUTE format('DROP TABLE %s', (SELECT inhrelid::regclass FROM pg_inherits
    WHERE inhparent = 'audit_events'::regclass ORDER BY inhrelid::regclass::text OFFSET 2 LIMIT 1));
END
$$
"""
EVERY_MONTH = "SELECT audit_make_partitions(now() + interval '90 days')"
REFUSALS = (
    "INSERT INTO refusals (user_id, family_id, action, minute, count) "
    "SELECT gen_random_uuid(), gen_random_uuid(), 'refresh.refused', now(), 1 FROM generate_series(1, 12000)"
)
DEAD = (
    "ALTER TABLE refusals SET (autovacuum_vacuum_threshold = 1000000)",
    REFUSALS,
    "DELETE FROM refusals",
    "SELECT pg_stat_force_next_flush()",
)


@dataclass(frozen=True)
class Case:
    """`says`: a word of why."""

    check: str
    wrong: tuple[str, ...]
    mend: tuple[str, ...]
    verdict: Verdict = Verdict.FAILURE
    says: str = ""


def case(
    check: str, wrong: str, mend: str, verdict: Verdict = Verdict.FAILURE, says: str = "", name: str = ""
) -> object:
    made = Case(check, (wrong,), (mend,), verdict, says)
    return pytest.param(made, id=f"{check} {name}".strip())


WARNING = Verdict.WARNING
CASES = [
    case(
        "database.writable",
        "ALTER DATABASE {db} SET default_transaction_read_only = on",
        "ALTER DATABASE {db} RESET default_transaction_read_only",
        says="read-only",
    ),
    case(
        "database.time_zone",
        "ALTER ROLE {login} IN DATABASE {db} SET timezone = 'Europe/Paris'",
        "ALTER ROLE {login} IN DATABASE {db} SET timezone = 'UTC'",
        WARNING,
        "Europe/Paris",
    ),
    case(
        "database.durability",
        "ALTER ROLE {login} IN DATABASE {db} SET synchronous_commit = off",
        "ALTER ROLE {login} IN DATABASE {db} RESET synchronous_commit",
        says="synchronous_commit",
    ),
    case(
        "database.connections",
        "ALTER DATABASE {db} CONNECTION LIMIT 5",
        "ALTER DATABASE {db} CONNECTION LIMIT -1",
        says="the limit of the database leaves 5",
        name="of the database",
    ),
    case(
        "database.connections",
        "ALTER ROLE {login} CONNECTION LIMIT 20",
        "ALTER ROLE {login} CONNECTION LIMIT -1",
        WARNING,
        "the limit of the login leaves 20",
        name="of the login",
    ),
    case(
        "database.extensions",
        "UPDATE pg_extension SET extname = 'plpgsql_' WHERE extname = 'plpgsql'",
        "UPDATE pg_extension SET extname = 'plpgsql' WHERE extname = 'plpgsql_'",
        says="plpgsql",
    ),
    case("rights.login", "ALTER ROLE {login} CREATEROLE", "ALTER ROLE {login} NOCREATEROLE", says="CREATEROLE"),
    case(
        "rights.login",
        "ALTER ROLE {login} SUPERUSER",
        "ALTER ROLE {login} NOSUPERUSER",
        says="a superuser",
        name="superuser",
    ),
    case(
        "rights.role",
        "GRANT rota_owner TO {login}",
        "REVOKE rota_owner FROM {login}",
        says="rota_owner",
        name="too much",
    ),
    case(
        "rights.role",
        "REVOKE rota_app FROM {login}",
        "GRANT rota_app TO {login}",
        says="may not act as rota_app",
        name="too little",
    ),
    case(
        "rights.owner",
        "ALTER TABLE refusals OWNER TO {login}",
        "ALTER TABLE refusals OWNER TO rota_owner",
        says="refusals (of",
    ),
    case(
        "rights.owner",
        "ALTER ROLE rota_owner LOGIN",
        "ALTER ROLE rota_owner NOLOGIN",
        says="may log in",
        name="signs in",
    ),
    case(
        "rights.trail",
        "GRANT DELETE ON audit_events TO rota_app",
        "REVOKE DELETE ON audit_events FROM rota_app",
        says="DELETE on audit_events (granted to rota_app)",
    ),
    case(
        "rights.trail",
        "GRANT TRUNCATE ON audit_tiles TO {login}",
        "REVOKE TRUNCATE ON audit_tiles FROM {login}",
        says="TRUNCATE on audit_tiles",
        name="the login",
    ),
    case(
        "rights.trail",
        "GRANT UPDATE (count) ON audit_batches TO PUBLIC",
        "REVOKE UPDATE (count) ON audit_batches FROM PUBLIC",
        says="PUBLIC",
        name="everybody, a column",
    ),
    case(
        "rights.grants",
        "REVOKE INSERT ON families FROM rota_app",
        "GRANT INSERT ON families TO rota_app",
        says="INSERT on families",
    ),
    case(
        "trail.triggers",
        "ALTER TABLE audit_events DISABLE TRIGGER audit_no_delete",
        "SELECT audit_protect('audit_events'); SELECT audit_protect(inhrelid) FROM pg_inherits "
        "WHERE inhparent = 'audit_events'::regclass",
        says="audit_events",
    ),
    case("trail.partitions", LAST_MONTHS, EVERY_MONTH, says="days ahead", name="too few"),
    case("trail.partitions", MIDDLE_MONTH, EVERY_MONTH, says="missing after", name="a gap"),
    case(
        "trail.default_partition",
        "CREATE TABLE audit_rest PARTITION OF audit_events DEFAULT",
        "DROP TABLE audit_rest",
        says="audit_rest",
    ),
    case(
        "trail.statement_logs",
        "ALTER ROLE {login} IN DATABASE {db} SET log_statement = 'all'",
        "ALTER ROLE {login} IN DATABASE {db} SET log_parameter_max_length = 0",
        says="log_statement",
        name="of all statements",
    ),
    case(
        "trail.statement_logs",
        "ALTER ROLE {login} IN DATABASE {db} SET log_min_duration_statement = 100",
        "ALTER ROLE {login} IN DATABASE {db} SET log_parameter_max_length = 0",
        says="log_min_duration_statement",
        name="of slow statements",
    ),
    case(
        "trail.statement_logs",
        "ALTER ROLE {login} IN DATABASE {db} SET log_parameter_max_length_on_error = 100",
        "ALTER ROLE {login} IN DATABASE {db} SET log_parameter_max_length_on_error = 0; "
        "ALTER ROLE {login} IN DATABASE {db} SET log_parameter_max_length = 0",
        says="log_parameter_max_length_on_error",
        name="of failing statements",
    ),
    case(
        "trail.statement_logs",
        "ALTER ROLE {login} IN DATABASE {db} RESET log_parameter_max_length",
        "ALTER ROLE {login} IN DATABASE {db} SET log_parameter_max_length = 0",
        WARNING,
        "No statement is logged now",
        name="of none, yet",
    ),
    case(
        "schema.version",
        f"UPDATE alembic_version SET version_num = '{HEAD.before}'; "
        f"DELETE FROM schema_revisions WHERE revision = '{HEAD.id}'",
        f"UPDATE alembic_version SET version_num = '{HEAD.id}'; INSERT INTO schema_revisions "
        f"VALUES ('{HEAD.id}', '{HEAD.phase}', '{HEAD.oldest_release}', false, now())",
        says=HEAD.id,
        name="too old",
    ),
    case(
        "schema.version",
        "INSERT INTO schema_revisions (revision, phase, oldest_release, rewrites, applied_at) "
        "VALUES ('9998', 'contract', '99.0.0', false, now())",
        "DELETE FROM schema_revisions WHERE revision = '9998'",
        says="99.0.0",
        name="too new",
    ),
    case(
        "schema.drift",
        "ALTER TABLE refusals ADD COLUMN extra integer",
        "ALTER TABLE refusals DROP COLUMN extra",
        says="extra",
    ),
    case(
        "schema.indexes",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_families_id'::regclass",
        "UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'ix_families_id'::regclass",
        says="ix_families_id",
    ),
    case(
        "schema.constraints",
        "ALTER TABLE refusals ADD CONSTRAINT ck_by_hand CHECK (count > 0) NOT VALID",
        "ALTER TABLE refusals VALIDATE CONSTRAINT ck_by_hand",
        WARNING,
        "ck_by_hand",
    ),
    case(
        "tables.autovacuum",
        "ALTER TABLE families SET (autovacuum_enabled = off)",
        "ALTER TABLE families RESET (autovacuum_enabled)",
        says="families",
    ),
    pytest.param(
        Case("tables.autovacuum", DEAD, ("VACUUM refusals",), says="refusals: 12,000 dead rows"),
        id="tables.autovacuum dead rows",
    ),
    case(
        "host.slots",
        "SELECT pg_create_physical_replication_slot('{login}', true)",
        "SELECT pg_drop_replication_slot('{login}')",
        WARNING,
        "holds",
    ),
    case(
        "work.numbers",
        "UPDATE stat_positions SET open_sessions = 5, counted_at = now()",
        "UPDATE stat_positions SET open_sessions = 0",
        says="contradict",
    ),
    case(
        "work.numbers",
        "UPDATE stat_positions SET counted_at = now() - interval '1 hour'",
        "UPDATE stat_positions SET counted_at = now()",
        WARNING,
        "counted 3600 s ago",
        name="late",
    ),
]


@pytest.mark.parametrize("case", CASES)
async def test_wrong_is_seen_and_mended_is_well(
    own: OwnDatabase, own_sql: asyncpg.Connection, examine: Examine, case: Case
) -> None:
    """By whatever is wrong and by nothing before or after it; the sentence names it."""
    names = {"db": own.owner.partition("?")[0].rpartition("/")[2], "login": LOGIN}
    try:
        for statement in case.wrong:
            await own_sql.execute(statement.replace("{db}", names["db"]).replace("{login}", names["login"]))
        found = await examine(case.check)
        assert found.finding.verdict is case.verdict, found.finding
        assert case.says in found.finding.why
        assert found.fix
    finally:
        for statement in case.mend:
            await own_sql.execute(statement.replace("{db}", names["db"]).replace("{login}", names["login"]))
    found = await examine(case.check)
    assert found.finding.verdict is Verdict.OK, found.finding
    assert found.fix is None
