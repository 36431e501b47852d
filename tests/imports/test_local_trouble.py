"""Trouble on this side: full disks, and a database that lets nobody in. One line, and an exit code that says so."""

import subprocess
from pathlib import Path

import pytest
from sqlalchemy import make_url

from app.cli.exits import Exit
from tests.cli.test_cli import ROTA
from tests.conftest import OwnDatabase
from tests.imports.conftest import settings_of


def run(own: OwnDatabase, command: str, *words: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """A shell command about `rota`, which is `$0`."""
    return subprocess.run(
        ["bash", "-c", command, ROTA, *map(str, words)],  # noqa: S607 - found by PATH
        env={**settings_of(own), **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def people(folder: Path, number: int) -> Path:
    file = folder / "users.csv"
    file.write_text("username\n" + "".join(f"somebody-{n}\n" for n in range(number)))
    return file


def test_no_room_for_the_names(own: OwnDatabase, tmp_path: Path) -> None:
    """No trouble of the database's: to try again changes nothing, and the line says what is the matter."""
    done = run(own, 'ulimit -f 4; "$0" users import "$1"', people(tmp_path, 200_000))
    assert (done.returncode, done.stderr.splitlines()[-1]) == (Exit.FAILURE, "File too large")
    assert "Traceback" not in done.stderr
    assert "goes on where it was" not in done.stderr


@pytest.mark.parametrize(
    "command",
    ['"$0" users export > /dev/full', '"$0" users import "$1" --dry-run > /dev/full', '"$0" users list > /dev/full'],
)
def test_no_room_for_what_is_printed(own: OwnDatabase, tmp_path: Path, command: str) -> None:
    """Said on standard error."""
    assert run(own, '"$0" users create somebody --role admin').returncode == Exit.OK
    done = run(own, command, people(tmp_path, 3))
    assert done.returncode == Exit.FAILURE, done.stderr
    assert "No space left on device" in done.stderr.splitlines()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ['"$0" users import "$1"', '"$0" users export', '"$0" users list'])
@pytest.mark.parametrize("wrong", [{"database": "nowhere"}, {"username": "nobody"}])
def test_a_database_that_lets_nobody_in(own: OwnDatabase, tmp_path: Path, command: str, wrong: dict[str, str]) -> None:
    """No such database or login: nothing that passes by itself, and no secret of the URL in the line."""
    urls = {
        name: make_url(url).set(password="a-secret", **wrong).render_as_string(hide_password=False)  # type: ignore[arg-type]
        for name, url in (("ROTA_DATABASE_URL", own.app), ("ROTA_MAINTENANCE_DATABASE_URL", own.maintenance))
    }
    done = run(own, command, people(tmp_path, 3), **urls)
    assert done.returncode == Exit.FAILURE, done.stderr
    assert done.stderr.splitlines()[-1].startswith("The database lets nobody in")
    assert "Traceback" not in done.stderr
    assert "a-secret" not in done.stderr
