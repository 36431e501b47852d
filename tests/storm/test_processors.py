"""How many processors we may use, by what the kernel says of our control groups."""

import os
from pathlib import Path

import pytest

from app.security import processors
from app.security.processors import share_of_processors, usable_processors

TWO = "0::/system.slice/rota.service\n"
ONE = "5:cpuset:/\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"
V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, 8, id="no files"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8, id="no quota"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3, id="three"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "75000 50000\n"}, 1, id="one and a half"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "20000 100000\n"}, 1, id="a fifth"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 8, id="more than is"),
        pytest.param(
            {"proc/self/cgroup": TWO, "sys/fs/cgroup/system.slice/rota.service/cpu.max": "200000 100000\n"},
            2,
            id="of the service",
        ),
        pytest.param(
            {
                "proc/self/cgroup": TWO,
                "sys/fs/cgroup/system.slice/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/system.slice/rota.service/cpu.max": "max 100000\n",
            },
            4,
            id="of the slice above",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/../../pod\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2, id="above our root"
        ),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, 8, id="nonsense"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1 0\n"}, 8, id="no period"),
        pytest.param(
            {
                "proc/self/cgroup": ONE,
                f"{V1}/docker/abc/cpu.cfs_quota_us": "250000\n",
                f"{V1}/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            2,
            id="version 1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": ONE,
                f"{V1}/cpu.cfs_quota_us": "500000\n",
                f"{V1}/cpu.cfs_period_us": "100000\n",
            },
            5,
            id="version 1, the container's own group at the top",
        ),
        pytest.param(
            {
                "proc/self/cgroup": ONE,
                f"{V1}/docker/abc/cpu.cfs_quota_us": "-1\n",
                f"{V1}/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            8,
            id="version 1, no quota",
        ),
    ],
)
def test_the_quota_counts(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least of what the scheduler gives and each quota pays for, in whole processors, and never none."""
    monkeypatch.setattr(processors, "_scheduled", lambda: 8)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_processors(root=tmp_path, environment={}) == expected


@pytest.mark.parametrize(
    ("told", "expected"), [("3", 3), ("64", 64), ("0", 8), ("", 8), ("default", 8), ("-2", 8), ("1.5", 8)]
)
def test_what_the_operator_says(told: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`PYTHON_CPU_COUNT` goes before everything, if it is a number."""
    monkeypatch.setattr(processors, "_scheduled", lambda: 8)
    assert usable_processors(root=tmp_path, environment={"PYTHON_CPU_COUNT": told}) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux pins processes to processors")
def test_pinned_to_one(tmp_path: Path) -> None:
    """A process that may run on one processor only counts one, however many the machine has."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_processors(root=tmp_path, environment={}) == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("count", "workers", "each"), [(8, 1, 8), (8, 4, 2), (8, 3, 3), (2, 4, 1), (1, 64, 1), (7, 2, 4)]
)
def test_workers_share(count: int, workers: int, each: int) -> None:
    """Rounded up, so that none lies idle; at least one each."""
    assert share_of_processors(count, workers) == each
