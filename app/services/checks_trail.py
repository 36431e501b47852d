"""Checks of the audit trail, and of what lies around the database: backups, disks, files."""

import asyncio
import os
import resource
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

from app.domain.checks import Finding, failure, graded, ok, skipped, warning
from app.services.patient import GIGABYTE, Look, Patient, listed, size
from app.services.sinks import DirectorySink

AHEAD: Final = timedelta(days=60)
AHEAD_FAILURE: Final = timedelta(days=30)
OPEN_SECONDS: Final = 60.0
OPEN_FAILURE_SECONDS: Final = 600.0
LAG_SECONDS: Final = 10.0
LAG_FAILURE_SECONDS: Final = 60.0
PUBLISHED_SECONDS: Final = 900.0  # there is a heartbeat every ten minutes
BACKUP_HOURS: Final = 26.0
BACKUP_FAILURE_HOURS: Final = 24.0 * 7
FREE_SHARE: Final = 0.1
FREE_SHARE_FAILURE: Final = 0.03
FILES_SPARE: Final = 200  # beside connections and streams
# Each of these writes statements, and with them, unless that is forbidden, their values.
_ALWAYS: Final = {"log_statement": ("mod", "all")}
_DURATIONS: Final = ("log_min_duration_statement", "log_min_duration_sample")


async def triggers(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = await db.partitions.list_unprotected()
    return failure(f"Not protected: {listed(found)}.") if found else ok("Every table of the trail has them, always on.")


async def partitions(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = [each for each in await db.partitions.list_all() if not each.half_detached and each.start is not None]
        now = await db.diagnostics.clock()
    if not found:
        return failure("There is none: nothing can be written.")
    if gaps := [a.name for a, b in pairwise(found) if a.end != b.start]:
        return failure(f"A month is missing after {listed(gaps)}.")
    left = found[-1].end.timestamp() - now
    why = f"There are months until {found[-1].end:%Y-%m-%d}, {left / 86_400:.0f} days ahead."
    if left < AHEAD_FAILURE.total_seconds():
        return failure(why)
    return warning(why) if left < AHEAD.total_seconds() else ok(why)


async def default_partition(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = await db.diagnostics.list_default_partitions()
    return failure(f"It has {listed(found)}.") if found else ok("It has none.")


async def statement_logs(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        found = await db.diagnostics.settings(
            "log_parameter_max_length",
            "log_parameter_max_length_on_error",
            "log_statement",
            "log_transaction_sample_rate",
            "auto_explain.log_min_duration",
            "auto_explain.log_parameter_max_length",
            "pgaudit.log_parameter",
            *_DURATIONS,
        )
    logging = [name for name, values in _ALWAYS.items() if found[name] in values]
    logging += [name for name in _DURATIONS if found[name] not in {"-1", None}]
    logging += ["log_transaction_sample_rate"] * (float(found["log_transaction_sample_rate"] or 0) > 0)
    writing = []
    if logging and found["log_parameter_max_length"] != "0":
        writing.append(f"those of statements that {' and '.join(logging)} write (log_parameter_max_length is not 0)")
    if found["log_parameter_max_length_on_error"] != "0":
        writing.append("those of statements that fail (log_parameter_max_length_on_error is not 0)")
    if found["pgaudit.log_parameter"] == "on":
        writing.append("those of audited statements (pgaudit.log_parameter is on)")
    explains = found["auto_explain.log_min_duration"] not in {"-1", None}
    if explains and found["auto_explain.log_parameter_max_length"] not in {"0", None}:
        writing.append("those of explained statements (auto_explain.log_parameter_max_length is not 0)")
    if writing:
        return failure(f"The values go into the log: {'; '.join(writing)}.")
    if found["log_parameter_max_length"] != "0":
        return warning("No statement is logged now; whoever switches that on for a look logs the values, too.")
    return ok("Statements are logged without their values, if at all.")


async def horizon(patient: Patient) -> Finding:
    async with patient.inspection.as_server() as db:
        found = await db.diagnostics.find_oldest_transaction()
    if found is None:
        return ok("No other transaction is open.")
    kind, pid, database, username, application, seconds = found
    who = f"process {pid}" if pid else f"{application!r}"
    named = f" ({application})" if pid and application else ""
    why = f"The oldest {kind} is {who}{named} of {username} in {database}, open for {seconds:.0f} s."
    return graded(seconds, why, warn_above=OPEN_SECONDS, fail_above=OPEN_FAILURE_SECONDS)


async def sealing(patient: Patient) -> Finding:
    status = await patient.server.sealing.status()
    if status is None:
        return warning("Nothing was ever sealed: no server has run with this database yet.")
    why = f"{status.tree_size} entries are sealed; the oldest event that is not is {status.lag_seconds:.0f} s old."
    if status.holders:
        first = status.holders[0]
        why += (
            f" In the way: process {first.pid} of {first.username}." if first.pid else f" In the way: a {first.kind}."
        )
    elif status.lag_seconds > LAG_SECONDS:
        why += " No transaction is in the way: nobody seals."
    return graded(status.lag_seconds, why, warn_above=LAG_SECONDS, fail_above=LAG_FAILURE_SECONDS)


async def published(patient: Patient) -> Finding:
    status = await patient.server.sealing.status()
    if status is None or not status.tree_size:
        return skipped("Nothing is sealed yet.")
    if status.checkpoint_size is None or status.checkpoint_at is None:
        return warning(f"None of the {status.tree_size} sealed entries is signed: no process has a signing key.")
    async with patient.inspection.look() as db:
        seconds = await db.diagnostics.clock() - status.checkpoint_at.timestamp()
    behind = status.tree_size - status.checkpoint_size
    why = f"The newest checkpoint was signed {seconds:.0f} s ago; {behind} entries have come since."
    return failure(why) if behind and seconds > PUBLISHED_SECONDS else ok(why)


async def sink(patient: Patient) -> Finding:
    path = patient.settings.audit_sink
    if not path:
        return skipped("This environment has no ROTA_AUDIT_SINK: another process publishes, or none.")
    return await asyncio.to_thread(_examine_sink, Path(path), patient.settings.log_origin)


def _examine_sink(path: Path, origin: str) -> Finding:
    if not path.is_dir():
        return failure(f"{path} is not a directory, or not there.")
    if not os.access(path, os.W_OK | os.X_OK):
        return failure(f"This user may not add files to {path}.")
    try:
        DirectorySink(path).find_newest(origin)
    except OSError as error:
        return failure(f"{path} cannot be read ({error.strerror}).")
    return ok(f"{path} is a directory that takes files; there is no certificate that could expire.")


async def backup(patient: Patient) -> Finding:
    path = patient.backup_stamp or patient.settings.backup_stamp
    if not path:
        return skipped("Nobody told where a backup leaves its stamp.")
    try:
        made = await asyncio.to_thread(os.stat, path)
    except OSError as error:
        return failure(f"The stamp {path} cannot be looked at ({error.strerror}): there may be no backup at all.")
    hours = (patient.clock.on_host().timestamp() - made.st_mtime) / 3600
    if hours < -1:
        return failure(f"The stamp {path} is of a time that has not come yet, by {-hours:.1f} h.")
    why = f"The last backup was {max(hours, 0):.1f} h ago, by {path}."
    return graded(hours, why, warn_above=BACKUP_HOURS, fail_above=BACKUP_FAILURE_HOURS)


async def disk(patient: Patient) -> Finding:
    async with patient.inspection.look() as db:
        directory, is_here, stored = await db.diagnostics.find_data()
    places = {"the sink": patient.settings.audit_sink} if patient.settings.audit_sink else {}
    if directory and is_here and await asyncio.to_thread(os.path.isdir, directory):
        places["the database"] = directory
    free = {}
    for name, path in places.items():
        try:
            found = await asyncio.to_thread(os.statvfs, path)
        except OSError:
            continue  # that the sink is away is said by another check
        free[name] = (found.f_bavail / max(found.f_blocks, 1), found.f_bavail * found.f_frsize)
    told = f"The database takes {size(stored)}"
    if not free:
        return skipped(f"{told}; the room on its disk cannot be seen from here.")
    name, (share, room) = min(free.items(), key=lambda each: each[1][0])
    why = f"{told}; {size(room)} are free where {name} is, {share:.0%}."
    if "the database" not in free:
        why += " The database's own disk cannot be seen from here."
    if share < FREE_SHARE_FAILURE or room < GIGABYTE / 4:
        return failure(why)
    return warning(why) if share < FREE_SHARE else ok(why)


async def files(patient: Patient) -> Finding:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # a server raises its own limit to this
    settings = patient.settings
    wanted = settings.streams_per_client + settings.database_pool_size + FILES_SPARE
    if most in {resource.RLIM_INFINITY, -1}:
        return ok("There is no limit.")
    why = f"Up to {most}; one API client's streams and the pool may take {wanted}."
    return warning(why) if most < wanted else ok(why)


LOOKS: Final[dict[str, Look]] = {
    "trail.triggers": triggers,
    "trail.partitions": partitions,
    "trail.default_partition": default_partition,
    "trail.statement_logs": statement_logs,
    "trail.horizon": horizon,
    "trail.sealing": sealing,
    "trail.published": published,
    "trail.sink": sink,
    "host.backup": backup,
    "host.disk": disk,
    "host.files": files,
}
