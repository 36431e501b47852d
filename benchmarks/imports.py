"""
Importing users: how many a second, against a bare COPY of the very same rows, and in how much memory.

    python -m benchmarks.imports [--quick] [--rows N] [--json PATH]

`rota users import` as an operator runs it, from its start to its end: the file is checked, then users and their events
are written. The bare COPY is `psql`'s, of the same users and events into another database of the same schema, without
any check. Then the export. All of it shares this machine's cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import rig

FULL, QUICK = 1_000_000, 20_000

# What a project of Django's has: a name, and a hash with a salt of its own.
HASH = "pbkdf2_sha256$1000000${salt:012x}abcdefghij$2Pc68qS2u3Gxfc9HpG0IuaCcYgCIh2Km2F9TchKmj50="


def write_file(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("username,password_hash,role,disabled\r\n")
        for n in range(rows):
            name = f"person{n}@example.org" if n % 20 else f"pers\u00f6n{n}@example.org"
            role = "auditor" if n % 1000 == 0 else "user"
            file.write(f"{name},{HASH.format(salt=n)},{role},{'true' if n % 100 == 0 else 'false'}\r\n")


def rota(url: str, *words: str) -> tuple[float, float]:
    """Run `rota users …`: seconds, and the most memory it had, in megabytes."""
    settings = {"ROTA_DATABASE_URL": url, "ROTA_SECRETS": rig.SECRET}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", rig.TELLS_ITS_PEAK, "users", *words],
        check=True,
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    return time.perf_counter() - began, int(done.stderr.split()[-1]) * 1024 / 1e6


def bare_copy(url: str, other: str, folder: Path) -> float:
    """Seconds in which the other database takes the same rows by COPY, and nothing else."""
    columns = {}
    for table, left_out in (("users", ()), ("audit_events", ("xact_id", "seq", "epoch"))):
        (found,) = rig.psql(
            url,
            "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute"
            f" WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
            f" AND attname <> ALL ('{{{','.join(left_out)}}}')",
        )
        columns[table] = found
        rig.psql(url, f"\\copy (SELECT {found} FROM {table}) TO '{folder / table}'")
    began = time.perf_counter()
    for table, found in columns.items():
        rig.psql(other, f"\\copy {table} ({found}) FROM '{folder / table}'")
    return time.perf_counter() - began


def measure(url: str, rows: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="rota-bench-") as name:
        folder = Path(name)
        write_file(folder / "users.csv", rows)
        checked, _ = rota(url, "import", str(folder / "users.csv"), "--dry-run")
        seconds, peak = rota(url, "import", str(folder / "users.csv"))
        copied = bare_copy(url, rig.another_database(url, "bare"), folder)
        exported, export_peak = rota(url, "export", "--output", str(folder / "out.ndjson"))
        lines = sum(1 for _ in (folder / "out.ndjson").open(encoding="utf-8"))
    assert lines == rows, lines
    return {
        "users_per_s": rows / seconds,
        "checked_per_s": rows / checked,
        "bare_copy_per_s": rows / copied,
        "ratio_to_copy": copied / seconds,
        "import_peak_mb": peak,
        "exported_per_s": rows / exported,
        "export_peak_mb": export_peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"some seconds, {QUICK:,} users")
    parser.add_argument("--rows", type=int, metavar="N", help="how many users")
    parser.add_argument("--json", metavar="PATH", help="write the figures as a JSON object")
    options = parser.parse_args()
    with rig.database() as url:
        figures = measure(url, options.rows or (QUICK if options.quick else FULL))
    rig.report(figures, options.json)


if __name__ == "__main__":
    main()
