"""How many processors this process may use: fewer, in a container or under a service manager, than the machine has."""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

VARIABLE: Final = "PYTHON_CPU_COUNT"  # Python's own from 3.13 on; obeyed here with every version

_CGROUPS: Final = Path("sys/fs/cgroup")
_CPU_CONTROLLERS: Final = ("cpu,cpuacct", "cpu")  # version 1 has a tree a controller, under either name


def usable_processors(*, root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """
    Those that the scheduler gives us, no more than the control groups' quotas pay for, and at least one.

    A quota of one and a half processors is one: with two busy threads the kernel would stop the whole process, its
    event loop too, for a quarter of the time. What `PYTHON_CPU_COUNT` says goes before all that.

    Args:
        root: Where `proc` and `sys` are.
    """
    if (told := environment.get(VARIABLE, "")).isdecimal() and int(told) > 0:
        return int(told)
    quotas = [math.floor(quota) for quota in _quotas(root)]
    return max(1, min([_scheduled(), *quotas]))


def share_of_processors(processors: int, processes: int) -> int:
    """How many of them each of so many processes uses; rounded up, so that none lies idle."""
    return max(1, math.ceil(processors / processes))


def _scheduled() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """
    Of this process's control groups and of all above them: each of them binds.

    A container that sees its own group as the root, or not at all, finds its quota at the top of the tree.
    """
    groups = root / _CGROUPS
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for folder in _upwards(groups, path):
                yield from _quota_of_two(folder)
        elif "cpu" in controllers.split(","):
            for controller in _CPU_CONTROLLERS:
                for folder in _upwards(groups / controller, path):
                    yield from _quota_of_one(folder)


def _upwards(top: Path, path: str) -> Iterator[Path]:
    """From the group to the top of the tree; from a group above what we see (`/../…`) there is only the top."""
    parts = [] if ".." in path.split("/") else [part for part in path.split("/") if part]
    for length in range(len(parts), -1, -1):
        yield top.joinpath(*parts[:length])


def _quota_of_two(folder: Path) -> Iterator[float]:
    match _read(folder / "cpu.max").split():
        case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period):  # not "max"
            yield int(quota) / int(period)


def _quota_of_one(folder: Path) -> Iterator[float]:
    quota, period = (_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    if quota.isdecimal() and period.isdecimal() and int(period):  # not "-1"
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    """What a file says; nothing where there is none, or we may not read it."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
