"""Writes docs/operation/doctor.md from the list of checks: `make docs`. A test fails when the two differ."""

from pathlib import Path

from app.domain.check_list import CHECKS, GROUPS
from app.domain.checks import Check, Need

TARGET = Path(__file__).parent / "operation" / "doctor.md"

HEAD = """# rota doctor: the checks

*Made from `app/domain/check_list.py` by `make docs`; do not edit.*

```sh
rota doctor                                        # a table for people
rota doctor --json                                 # for a monitor
rota doctor --check database.clock --check trail.sealing
rota doctor --processes 8                          # how many server processes there are to be in all
rota doctor --backup-stamp /var/backups/rota.stamp # a file that the backup touches at its end
```

Run it with the environment of the servers, secrets included, on a host of theirs: by a timer, after a change, and before
you call somebody. It changes nothing. Exit code 0: all is well, or there are warnings only; 5: something fails.

| verdict | |
| --- | --- |
| `ok` | looked at, and well |
| `warning` | works, and should be changed |
| `failure` | does not work, is not safe, or soon will not be |
| `skipped` | could not be looked at, and says why: never a sign that all is well |

Each check stands for itself and has a deadline; one that breaks or gets no answer is a failure and keeps no other from being
made. When the database is away, whatever needs it is skipped. `--json` prints `checks` (each with `id`, `group`, `title`,
`verdict`, `why`, and `fix` or null) and `counts` by verdict. Ids are stable; checks may be added.

The doctor signs in as the server does. What its login may not see (other people's transactions without an id, the data
directory's path) it cannot judge; the same command with a login in `pg_monitor` sees more.
"""

NEEDS = {
    Need.NOTHING: "the environment only",
    Need.DATABASE: "the database",
    Need.SCHEMA: "the database with Rota's tables",
    Need.SERVER: "the database with Rota's tables, and settings with which a server starts",
}


def _entry(check: Check) -> str:
    return (
        f"\n### `{check.id}`\n\n{check.title}.\n\n- why: {check.matters}\n- what to do: {check.fix}\n"
        f"- needs {NEEDS[check.need]}; deadline {check.seconds:g} s\n"
    )


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for group, title in GROUPS.items():
        parts.append(f"\n## {title}\n")
        parts += [_entry(check) for check in CHECKS if check.group == group]
    return "".join(parts)


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
