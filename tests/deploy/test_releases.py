"""`migrations/releases.toml`: what the gate of compatibility goes by."""

import datetime as dt
import re
import subprocess
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from app import __version__
from app.services.migrations import read_revisions

ROOT = Path(__file__).parents[2]
RELEASES: list[dict[str, Any]] = tomllib.loads((ROOT / "migrations" / "releases.toml").read_text()).get("release", [])

each = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release["version"])
in_a_clone = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git clone")


def git(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=False)  # noqa: S607


@each
def test_a_release_is_recorded_with_all_that_tells_it(release: dict[str, Any]) -> None:
    """Version, date, commit and revision, and nothing misspelt."""
    assert set(release) == {"version", "date", "commit", "revision"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", release["version"])
    assert isinstance(release["date"], dt.date)
    assert re.fullmatch(r"[0-9a-f]{40}", release["commit"])


@each
def test_its_revision_exists(release: dict[str, Any]) -> None:
    """Nobody has removed or renamed a revision that a release knows."""
    assert release["revision"] in [revision.id for revision in read_revisions()]


@each
@in_a_clone
def test_its_commit_is_in_the_history(release: dict[str, Any]) -> None:
    """And says itself that it is that version."""
    if git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true":
        pytest.skip("a shallow clone")
    assert git("cat-file", "-e", f"{release['commit']}^{{commit}}").returncode == 0
    assert git("merge-base", "--is-ancestor", release["commit"], "HEAD").returncode == 0
    shown = git("show", f"{release['commit']}:app/__init__.py").stdout.decode()
    assert f'__version__ = "{release["version"]}"' in shown


def test_releases_ascend() -> None:
    """In versions, dates and revisions."""
    known = [revision.id for revision in read_revisions()]
    for former, later in pairwise(RELEASES):
        assert Version(former["version"]) < Version(later["version"])
        assert former["date"] <= later["date"]
        assert known.index(former["revision"]) <= known.index(later["revision"])


def test_this_tree_has_a_version_of_its_own() -> None:
    """Above the last release; equal to it only if nothing that runs has changed since."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["version"] == __version__
    if not RELEASES or Version(__version__) > Version(RELEASES[-1]["version"]):
        return
    assert __version__ == RELEASES[-1]["version"]
    if (ROOT / ".git").exists():
        changed = git("diff", "--quiet", RELEASES[-1]["commit"], "HEAD", "--", "app", "migrations/versions")
        assert changed.returncode == 0, "the release has gone out: this tree needs the next version"


def test_revisions_name_releases_that_there_are() -> None:
    """The oldest release that may run on a revision is a recorded one, or this one."""
    known = {Version(release["version"]) for release in RELEASES} | {Version(Version(__version__).base_version)}
    for revision in read_revisions():
        assert Version(revision.oldest_release) in known
