"""The trail can be added to and read, by the server and by everybody else; nothing in it changes."""

import asyncpg
import pytest

from app.services.guard import Guard
from tests.conftest import MakePerson, OwnDatabase
from tests.trail.conftest import Log

CHANGES = [
    "UPDATE {table} SET action = 'user.created'",
    "UPDATE {table} SET ip = NULL, user_agent = NULL, commitment = sha256('x')",
    "DELETE FROM {table}",
    "TRUNCATE {table}",
    "ALTER TABLE {table} DISABLE TRIGGER ALL",
    "DROP TABLE {table} CASCADE",
]


async def tables_of(sql: asyncpg.Connection) -> list[str]:
    partitions = await sql.fetch(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_events'::regclass"
    )
    return ["audit_events", *(row[0] for row in partitions)]


@pytest.mark.case(75)
@pytest.mark.parametrize(
    "change", CHANGES, ids=lambda change: " ".join(change.split()[:2]) + str(CHANGES.index(change))
)
async def test_the_server_can_change_nothing(
    own: OwnDatabase, own_sql: asyncpg.Connection, log: Log, change: str
) -> None:
    """On the trail and on each partition: denied by its role, before any trigger is asked."""
    await log.live("ada", 1)
    before = await own_sql.fetch("SELECT * FROM audit_events ORDER BY seq")
    server = await asyncpg.connect(own.app)
    try:
        for table in await tables_of(own_sql):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await server.execute(change.format(table=table))
    finally:
        await server.close()
    assert await own_sql.fetch("SELECT * FROM audit_events ORDER BY seq") == before


@pytest.mark.case(75)
@pytest.mark.parametrize(
    "setting", ["SET session_replication_role = 'origin'", "SET session_replication_role = 'replica'"]
)
async def test_nor_can_the_databases_owner_by_the_way(own_sql: asyncpg.Connection, log: Log, setting: str) -> None:
    """Triggers refuse it, also for a session that says it is a replica, on the trail and on each partition."""
    await log.live("ada", 1)
    await own_sql.execute(setting)
    tables = await tables_of(own_sql)
    assert len(tables) >= 4
    for table in tables:
        if await own_sql.fetchval(f"SELECT count(*) FROM {table}"):
            for change in (CHANGES[0], CHANGES[2]):
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                    await own_sql.execute(change.format(table=table))
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await own_sql.execute(f"TRUNCATE {table}")
    for table in ("audit_batches", "audit_tiles", "audit_checkpoints"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await own_sql.execute(f"TRUNCATE {table}")


@pytest.mark.parametrize(
    "change",
    [
        "ip = NULL",
        "ip = NULL, user_agent = NULL, commitment = sha256('x'), action = 'user.created'",
        "ip = NULL, user_agent = NULL, commitment = 'short'",
        "ip = '10.0.0.1'",
        "commitment = sha256('x')",
    ],
)
async def test_the_maintenance_role_can_only_erase(own: OwnDatabase, log: Log, change: str) -> None:
    """Address and agent give way to a commitment of 32 bytes, both and once; anything else is refused."""
    person = await log.live("ada", 1)
    keeper = await asyncpg.connect(own.maintenance)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await keeper.execute(f"UPDATE audit_events SET {change} WHERE subject_id = $1", person.user.id)
        erase = "UPDATE audit_events SET ip = NULL, user_agent = NULL, commitment = sha256('x') WHERE ip IS NOT NULL"
        await keeper.execute(erase)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await keeper.execute("UPDATE audit_events SET commitment = sha256('y') WHERE commitment IS NOT NULL")
        for other in ("DELETE FROM audit_events", "TRUNCATE audit_events", "DELETE FROM audit_batches"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await keeper.execute(other)
    finally:
        await keeper.close()


async def test_who_owns_what(sql: asyncpg.Connection, own: OwnDatabase) -> None:
    """The owner is no login; the server's login is no superuser, owns nothing, and may not become the owner."""
    assert await sql.fetchval("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'rota_owner'") is False
    owners = (
        "SELECT DISTINCT relowner::regrole::text FROM pg_class "
        "WHERE relname ~ '^(users|families|audit_)' AND relkind IN ('r', 'p')"
    )
    assert [row[0] for row in await sql.fetch(owners)] == ["rota_owner"]
    server = await asyncpg.connect(own.app)
    try:
        assert await server.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = session_user") is False
        for role in ("rota_owner", "rota_maintenance"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await server.execute(f"SET ROLE {role}")
    finally:
        await server.close()


async def test_these_tests_run_as_the_servers_role(make_person: MakePerson, sql: asyncpg.Connection) -> None:
    """Not as a superuser: what the role may not do would fail here too."""
    await make_person()
    users = await sql.fetch(
        "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = 'rota' AND datname = current_database()"
    )
    assert [row[0] for row in users] == ["rota_test"]


async def test_whatever_the_login_may_do_the_product_acts_as_the_server(own: OwnDatabase, log: Log) -> None:
    """A superuser's URL makes no superuser of it."""
    services = log.make(url=own.owner)
    async with services.database.begin() as db:
        found = await db.trail._db.exec_driver_sql("SELECT current_user")
        assert found.scalar_one() == "rota_app"


async def test_new_partitions_are_protected(own: OwnDatabase, own_sql: asyncpg.Connection) -> None:
    """The server may ask for months, a bounded time ahead; each gets its triggers, always on."""
    server = await asyncpg.connect(own.app)
    try:
        made = await server.fetchval("SELECT audit_make_partitions(now() + interval '1000 years')")
    finally:
        await server.close()
    assert 8 <= made <= 14
    for table in await tables_of(own_sql):
        triggers = await own_sql.fetch(
            "SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = $1::text::regclass AND tgname LIKE 'audit%'",
            table,
        )
        assert sorted((row[0], row[1]) for row in triggers) == [
            ("audit_no_delete", b"A"),
            ("audit_no_truncate", b"A"),
            ("audit_no_update", b"A"),
        ]


@pytest.mark.parametrize(
    ("harm", "finding"),
    [
        ("ALTER TABLE audit_events DISABLE TRIGGER audit_no_update", "unprotected"),
        ("ALTER TABLE {first} DISABLE TRIGGER audit_no_truncate", "unprotected"),
        ("ALTER TABLE audit_events ENABLE TRIGGER audit_no_delete", "unprotected"),
        ("DROP TRIGGER audit_no_truncate ON {first}", "unprotected"),
        (
            "; ".join(
                f"ALTER TABLE audit_events DETACH PARTITION {{{which}}}" for which in ("last", "third", "second")
            ),
            "partitions",
        ),
        ("ALTER TABLE audit_events DETACH PARTITION {second}", "partitions"),
    ],
)
async def test_the_daily_check_sees_it(own_sql: asyncpg.Connection, log: Log, harm: str, finding: str) -> None:
    """A trigger off, not always on, or gone; months missing: an alarm in the trail, once."""
    tables = (await tables_of(own_sql))[1:]
    assert await log.services.guard.check_all() == []
    await own_sql.execute(harm.format(first=tables[0], second=tables[1], third=tables[2], last=tables[-1]))
    found = await log.services.guard.check_all()
    assert {reason for reason, _ in found} == {finding}
    await log.services.guard.check_some()
    await log.services.guard.check_some()
    alarms = await own_sql.fetch("SELECT reason FROM audit_events WHERE action = 'audit.alarm'")
    assert [row[0] for row in alarms] == [reason for reason, _ in found]
    assert isinstance(log.services.guard, Guard)
