"""
Counts of all workers of one server together, in a directory of that server.

Each process writes files there that it alone writes, and whoever is asked adds them up. The directory is made by the
process that starts the workers, and the counts begin anew with it.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import prometheus_client
from prometheus_client import CollectorRegistry, multiprocess, values

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"  # by which the library is told, and our workers
PREFIX: Final = "rota-metrics-"
LOCK: Final = "server.lock"
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a directory with a name of its own is made in it


_library: Any = prometheus_client  # it states no types of what we call
_multiprocess: Any = multiprocess


class NoPlace(Exception):
    """There is no directory in which the workers' counts could be kept."""


def directory() -> Path | None:
    """Where the workers of this server count together; `None`: it has one process. Another's variable is not ours."""
    named = os.environ.get(VARIABLE, "")
    path = Path(named)
    return path if path.name.startswith(PREFIX) and path.is_dir() else None


def count_together() -> None:
    """Decide how this process counts, before any metric is made."""
    library: Any = values
    library.ValueClass = library.MutexValue if directory() is None else library.MultiProcessValue()
    _library.disable_created_metrics()  # a time for each count, of no use to anybody


def summed(own: CollectorRegistry) -> CollectorRegistry:
    """What to show: the counts of all workers, or this process's own."""
    place = directory()
    if place is None:
        return own
    forget_the_dead(place)
    registry = CollectorRegistry()
    _multiprocess.MultiProcessCollector(registry, str(place))
    return registry


def forget_the_dead(place: Path) -> None:
    """A process that is gone uses and waits for nothing; what it counted stays."""
    for process in {file.stem.rpartition("_")[2] for file in place.glob("gauge_live*.db")}:
        if process.isdecimal() and not _lives(int(process)):
            with suppress(FileNotFoundError):  # another worker is doing the same
                _multiprocess.mark_process_dead(int(process), str(place))


@contextmanager
def shared_directory(parent: str) -> Iterator[None]:
    """
    Make a fresh directory for the workers to be started, and remove it in the end.

    What servers left that were killed is removed first; those that live hold a lock in theirs.

    Args:
        parent: Where to make it; empty: where the system keeps what is temporary, or in shared memory.
    Raises:
        NoPlace: nothing can be written there.
    """
    where = _writable(parent)
    _remove_leftovers(where)
    made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=where))
    before = os.environ.get(VARIABLE)
    lock = os.open(made / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.environ[VARIABLE] = str(made)
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
        shutil.rmtree(made, ignore_errors=True)
        os.close(lock)


def _writable(parent: str) -> Path:
    if parent:
        candidates = [Path(parent)]
    else:
        candidates = [SHARED_MEMORY]
        with suppress(FileNotFoundError):
            candidates.insert(0, Path(tempfile.gettempdir()))
    for candidate in candidates:
        with suppress(OSError), tempfile.TemporaryFile(dir=candidate):
            return candidate
    raise NoPlace


def _remove_leftovers(where: Path) -> None:
    for left in where.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if left.is_symlink() or left.stat().st_uid != os.geteuid():
                continue
            lock = os.open(left / LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
