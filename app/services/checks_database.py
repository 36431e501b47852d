"""Checks of the database server as a whole."""

import asyncio
from datetime import timedelta
from typing import Final

from app.domain.checks import Finding, failure, graded, ok, skipped, warning
from app.domain.schema import PoolerInTheWay
from app.repositories.inspection import refuse_transaction_pooler
from app.security.certificates import certificate_expires_at
from app.services.patient import Look, Patient, listed

VERSIONS: Final = range(15, 19)
CLOCK_SECONDS: Final = 1.0  # as /readyz has it
CLOCK_FAILURE_SECONDS: Final = 60.0  # from then on Rota refuses what it has issued as not valid yet
HEAR_SECONDS: Final = 3.0
PROBE_SECONDS: Final = 3.0
CERTIFICATE: Final = timedelta(days=30)
CERTIFICATE_FAILURE: Final = timedelta(days=3)
CONNECTIONS_SHARE: Final = 0.8
PER_PROCESS: Final = 2  # beside the pool: one that hears of ends, one for maintenance
_OFF: Final = "off"


async def reachable(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        return ok(f"The database {await db.diagnostics.ask()} answers.")


async def version(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        number = int((await db.diagnostics.settings("server_version_num"))["server_version_num"] or 0)
    major = number // 10_000
    told = f"It is PostgreSQL {major}.{number % 10_000}."
    if major in VERSIONS:
        return ok(told)
    return failure(told) if major < VERSIONS[0] else warning(f"{told} Rota was not tested with it.")


async def writable(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        standby = await db.diagnostics.is_standby()
        found = await db.diagnostics.settings("default_transaction_read_only")
    if standby:
        return failure("It is a standby: it only reads.")
    if found["default_transaction_read_only"] != _OFF:
        return failure("Transactions of this login are read-only by default (default_transaction_read_only).")
    return ok("It is a primary, and this login's transactions may write.")


async def clock(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        before = patient.clock.on_host().timestamp()
        there = await db.diagnostics.clock()
        after = patient.clock.on_host().timestamp()
    # What the question itself took may be anywhere in the difference.
    away = max(before - there, there - after, 0.0)
    ahead = "behind" if before > there else "ahead of"
    why = f"The database's clock is {away:.1f} s {ahead} this host's." if away else "They agree."
    return graded(away, why, warn_above=CLOCK_SECONDS, fail_above=CLOCK_FAILURE_SECONDS)


async def encoding(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = (await db.diagnostics.settings("server_encoding"))["server_encoding"]
    return ok("It is UTF8.") if found == "UTF8" else failure(f"It is {found}.")


async def time_zone(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = (await db.diagnostics.settings("TimeZone"))["TimeZone"]
    if found in {"UTC", "Etc/UTC", "GMT", "Etc/GMT", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu", "Universal"}:
        return ok("It is UTC.")
    return warning(f"It is {found} for whoever signs in by this login without asking for another.")


async def durability(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = await db.diagnostics.settings("fsync", "full_page_writes", "synchronous_commit")
    wrong = [name for name, value in found.items() if value == _OFF]
    if wrong:
        return failure(f"Off for this login: {', '.join(sorted(wrong))}. A crash loses what was committed, or more.")
    return ok(f"All are on; synchronous_commit is {found['synchronous_commit']}.")


async def checksums(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = (await db.diagnostics.settings("data_checksums"))["data_checksums"]
    return ok("They are on.") if found == "on" else warning("They are off: a spoilt page is read as if it were good.")


async def connections(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        room, of_database, of_login, others, running = await db.diagnostics.count_connections()
    limits = {"max_connections, without those reserved,": room - others}
    if of_database is not None:
        limits["the limit of the database"] = of_database
    if of_login is not None:
        limits["the limit of the login"] = of_login
    name, least = min(limits.items(), key=lambda limit: limit[1])
    processes = patient.processes or running or 1
    whence = "as told" if patient.processes else "that run now" if running else "none runs now; `--processes` tells"
    each = patient.settings.database_pool_size + PER_PROCESS
    why = (
        f"{processes} processes ({whence}) want up to {each} connections each, {processes * each} in all; "
        f"{name} leaves {least} (others have {others} now)."
    )
    return graded(processes * each, why, warn_above=CONNECTIONS_SHARE * least, fail_above=least)


async def pooler(patient: Patient) -> Finding:
    try:
        await refuse_transaction_pooler(patient.settings.migration_url)
    except PoolerInTheWay:
        return failure("A transaction pooler stands between `rota db` and the database.")
    return ok("`rota db` reaches the database itself, or a pooler that keeps to one session.")


async def listening(patient: Patient) -> Finding:
    if await patient.inspection.hears(HEAR_SECONDS):
        return ok("A notification that was sent arrived.")
    return failure(f"A notification that was sent did not arrive within {HEAR_SECONDS:g} s.")


async def deadlines(patient: Patient) -> Finding:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    async with patient.inspection.as_server() as db:
        found = await db.diagnostics.settings(*names)
    missing = [name for name in names if found[name] == "0"]
    if missing:
        return failure(f"Connections of the server do not get {', '.join(missing)}.")
    return ok(", ".join(f"{name} {found[name]}" for name in names) + ".")


async def prepared(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = (await db.diagnostics.settings("max_prepared_transactions"))["max_prepared_transactions"]
    return ok("It is 0.") if found == "0" else warning(f"It is {found}; Rota prepares none.")


async def extensions(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = await db.diagnostics.list_extensions()
    if "plpgsql" not in found:
        return failure("plpgsql is not installed in this database.")
    if "citus" in found:
        return warning("Citus is installed: Rota's tables are made for it, but this release is not tested on it.")
    return ok(f"Rota needs plpgsql and no other; installed: {listed(found)}.")


async def certificate(patient: Patient) -> Finding:
    address = patient.inspection.address
    if address is None:
        return ok("The connection is a socket of this host.")
    async with patient.inspection.look() as db:
        encrypted = await db.diagnostics.is_encrypted()
    host, port = address
    ends = await asyncio.to_thread(certificate_expires_at, host, port, seconds=PROBE_SECONDS)
    if not encrypted:
        if host in {"127.0.0.1", "::1", "localhost"}:
            return ok("The connection does not leave this host.")
        return warning(f"The connection to {host} is not encrypted" + ("." if ends is None else ", and could be."))
    if ends is None:
        return ok("The connection is encrypted; the server shows no certificate to those who only ask.")
    return judge_certificate((ends - patient.clock.on_host()).total_seconds(), f"{ends:%Y-%m-%d %H:%M} UTC")


def judge_certificate(left: float, ends: str) -> Finding:
    """By how many seconds it is still good."""
    if left <= 0:
        return failure(f"The database's certificate expired on {ends}.")
    why = f"The connection is encrypted; the certificate is good until {ends}."
    if left < CERTIFICATE_FAILURE.total_seconds():
        return failure(why)
    return warning(why) if left < CERTIFICATE.total_seconds() else ok(why)


async def slots(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = await db.diagnostics.list_slots()
        limit = (await db.diagnostics.settings("max_slot_wal_keep_size"))["max_slot_wal_keep_size"]
    lost = [row[0] for row in found if row[2] in {"lost", "unreserved"}]
    idle = [f"{row[0]} holds {row[3] / 1024**2:.0f} MB back" for row in found if not row[1]]
    if lost:
        return failure(f"Slots whose WAL is gone, or about to be: {listed(lost)}.")
    if idle:
        return warning(f"Nobody reads {len(idle)} of {len(found)} slots: {listed(idle)}; the limit is {limit}.")
    return ok(f"{len(found)} slots, each of them read.") if found else ok("There is no slot.")


async def freeze(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        name, xids, multixacts = await db.diagnostics.find_oldest_freeze()
        settings = await db.diagnostics.settings("autovacuum_freeze_max_age")
    if not settings["autovacuum_freeze_max_age"]:
        return skipped("The limit may not be seen by this login.")
    limit = int(settings["autovacuum_freeze_max_age"])
    oldest = max(xids, multixacts)
    why = f"The oldest ids are {oldest:,} transactions old, in the database {name}; autovacuum begins at {limit:,}."
    return graded(oldest, why, warn_above=1.25 * limit, fail_above=1_500_000_000)


LOOKS: Final[dict[str, Look]] = {
    "database.reachable": reachable,
    "database.version": version,
    "database.writable": writable,
    "database.clock": clock,
    "database.encoding": encoding,
    "database.time_zone": time_zone,
    "database.durability": durability,
    "database.checksums": checksums,
    "database.connections": connections,
    "database.pooler": pooler,
    "database.listen": listening,
    "database.deadlines": deadlines,
    "database.prepared": prepared,
    "database.extensions": extensions,
    "database.certificate": certificate,
    "host.slots": slots,
    "tables.freeze": freeze,
}
