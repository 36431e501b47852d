"""Writes migrations/sql/NNNN.sql, each revision as a DBA would run it: `make docs`. A test fails when they differ."""

from pathlib import Path

from app.services.migrations import read_revisions
from app.services.sql_scripts import statements

TARGET = Path(__file__).parents[1] / "migrations" / "sql"


def write() -> None:
    TARGET.mkdir(exist_ok=True)
    for old in TARGET.glob("*.sql"):
        old.unlink()
    for revision in read_revisions():
        (TARGET / f"{revision.id}.sql").write_text(statements(revision), encoding="utf-8")


if __name__ == "__main__":
    write()
