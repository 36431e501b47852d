"""Checks of rights, schema, tables, and of what the jobs keep."""

import asyncio
from typing import Any, Final

from app.domain.checks import Finding, failure, graded, ok, warning
from app.services.migrations import look_at, read_revisions
from app.services.patient import Look, Patient, listed

DEAD_ROWS: Final = 10_000  # below which a share says nothing
DEAD_SHARE: Final = 0.2
DEAD_SHARE_FAILURE: Final = 1.0
UPDATES: Final = 1000
HOT_SHARE: Final = 0.9
COUNTED_SECONDS: Final = 300.0
_POWERS: Final = ("a superuser", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS")


async def login(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        name, *powers = await db.diagnostics.describe_login()
    has = [word for word, held in zip(_POWERS, powers, strict=True) if held]
    return failure(f"The login {name} is or has {', '.join(has)}.") if has else ok(f"The login {name} has no power.")


async def role(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = await db.diagnostics.list_memberships()
        name, is_superuser, *_ = await db.diagnostics.describe_login()
    if "rota_app" not in found:
        return failure(f"The login {name} may not act as rota_app.")
    more = [each for each in found if each != "rota_app"]
    if more:
        because = ", since it is a superuser" if is_superuser else ""
        return failure(f"The login {name} may also act as {', '.join(more)}{because}.")
    return ok(f"The login {name} may act as rota_app only.")


async def owner(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        others = await db.diagnostics.list_owned_by_others()
        may_log_in = await db.diagnostics.owner_may_log_in()
    if may_log_in:
        return failure("rota_owner may log in.")
    if others:
        return failure(f"Not rota_owner's: {listed([f'{table} (of {whose})' for table, whose in others])}.")
    return ok("All tables belong to rota_owner, which nobody can sign in as.")


async def trail(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = await db.diagnostics.list_changeable()
    if found:
        named = [f"{rights} on {table} (granted to {whose})" for table, whose, rights in found]
        return failure(f"The server may do more than add and read: {listed(named)}.")
    return ok("The server may add and read, and nothing else.")


async def grants(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = await db.diagnostics.list_lacking()
    if found:
        return failure(f"rota_app lacks {listed([f'{right} on {table}' for table, right in found])}.")
    return ok("rota_app may read every table and write those that it must.")


async def schema_version(patient: Patient) -> Finding:
    revisions = await asyncio.to_thread(read_revisions)
    async with patient.inspection.look() as db:
        await db.schema.see_as_server()
        status = await look_at(db.schema, revisions)
    verdict = status.verdict
    if verdict.refusal is not None:
        return failure(verdict.refusal.message)
    if verdict.pending:
        pending = listed([revision.id for revision in verdict.pending])
        return warning(f"Pending, to be applied when no former release serves any more: {pending}.")
    if verdict.unknown:
        return warning(f"It is of a newer release ({listed(verdict.unknown)}), which lets this one serve.")
    return ok(f"It is at {status.current}, and nothing is pending.")


async def drift(patient: Patient) -> Finding:
    found = await asyncio.to_thread(patient.find_drift, patient.settings.migration_url)
    return failure(found) if found else ok("Tables, columns, indexes and constraints are those of the models.")


async def indexes(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = [index.name for index in await db.schema.list_invalid_indexes()]
    return failure(f"INVALID: {listed(found)}.") if found else ok("All are valid.")


async def constraints(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = await db.schema.list_unvalidated()
    return warning(f"NOT VALID: {listed(found)}.") if found else ok("All were validated.")


async def autovacuum(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = await db.diagnostics.list_dead()
        is_on = await db.diagnostics.settings("autovacuum", "track_counts")
    off = [name for name, value in is_on.items() if value != "on"]
    if off:
        return failure(f"{' and '.join(off)} off: nobody clears dead rows away.")
    if exempt := [name for name, _, _, enabled in found if not enabled]:
        return failure(f"Autovacuum may not touch {listed(exempt)}.")
    name, live, dead, share = _worst(found)
    why = f"{name}: {dead:,} dead rows beside {live:,} live ones, the largest share of all tables."
    if dead < DEAD_ROWS:
        return ok(f"It is on, and no table has {DEAD_ROWS:,} dead rows.")
    return graded(share, why, warn_above=DEAD_SHARE, fail_above=DEAD_SHARE_FAILURE)


def _worst(found: Any) -> tuple[str, int, int, float]:
    counted = [(name, live, dead, dead / max(live, 1)) for name, live, dead, _ in found if dead >= DEAD_ROWS]
    return max(counted, key=lambda each: each[3], default=("none", 0, 0, 0.0))


async def hot(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        updates, hot_updates = await db.diagnostics.count_updates()
    if updates < UPDATES:
        return ok(f"{updates} updates since the statistics began: too few to tell.")
    share = hot_updates / updates
    why = f"{share:.1%} of {updates:,} updates of sessions wrote no index; ends of sessions always write some."
    return ok(why) if share >= HOT_SHARE else warning(why)


async def jobs(patient: Patient) -> Finding:
    lines = await patient.server.job_runs.list_lines(patient.duties)
    late = [line.duty.name for line in lines if line.overdue]
    failed = [f"{line.duty.name} ({line.run.error})" for line in lines if line.run and line.run.error]
    if late:
        return failure(f"{len(late)} of {len(lines)} jobs are overdue: {listed(late)}.")
    if failed:
        return failure(f"The last run failed: {listed(failed)}.")
    return ok(f"All {len(lines)} are in time.")


async def numbers(patient: Patient) -> Finding:
    async with patient.server.database.begin() as db:
        differences = await db.stats_checks.compare_totals()
    async with patient.inspection.look() as looked:
        found = await looked.diagnostics.read_counts()
    if found is None:
        return failure("The place up to which events are counted is lost.")
    sessions, users, least, negative, seconds = found
    wrong = [f"{place} {what}" for place, what in differences]
    wrong += ["a user has fewer than no sessions"] * (least < 0)
    wrong += [f"{negative} counts are below 0"] * (negative > 0)
    wrong += ["more users than sessions"] * (users > sessions)
    if wrong:
        return failure(f"The counts contradict each other: {'; '.join(wrong)}.")
    if seconds is None:
        return warning("Nothing was ever counted.")
    why = f"They agree: {sessions} open sessions of {users} users; counted {seconds:.0f} s ago."
    return graded(seconds, why, warn_above=COUNTED_SECONDS)


async def admin(patient: Patient) -> Finding:
    async with patient.inspection.as_server() as db:
        enabled, with_password = await db.diagnostics.count_admins()
    if not enabled:
        return warning("There is none, or all of them are disabled.")
    if not with_password:
        return warning(f"None of the {enabled} has a password: they can sign in by an API client only.")
    return ok(f"There are {enabled}." if enabled > 1 else "There is one.")


LOOKS: Final[dict[str, Look]] = {
    "rights.login": login,
    "rights.role": role,
    "rights.owner": owner,
    "rights.trail": trail,
    "rights.grants": grants,
    "schema.version": schema_version,
    "schema.drift": drift,
    "schema.indexes": indexes,
    "schema.constraints": constraints,
    "tables.autovacuum": autovacuum,
    "tables.hot": hot,
    "work.jobs": jobs,
    "work.numbers": numbers,
    "work.admin": admin,
}
