"""Which release may run on which schema, and what is said when one may not."""

import json

import asyncpg
import pytest

from app.cli.exits import Exit
from app.domain.schema import (
    Applied,
    DocstringInvalid,
    Notes,
    Phase,
    Revision,
    SchemaTooNew,
    SchemaTooOld,
    judge,
    read_notes,
    release_order,
)
from app.repositories.engine import APP
from app.repositories.logins import make_login
from app.services.migrations import read_revisions
from tests.conftest import SECRET
from tests.migrations.conftest import Tree, ended

NOTES = Notes("title", "why", "locks", "how long", "back")


def revision(name: str, phase: Phase = Phase.EXPAND) -> Revision:
    return Revision(name, "base", phase, "1.0.0", rewrites=False, notes=NOTES, source="")


KNOWN = [revision("1"), revision("2", Phase.MIGRATE), revision("3", Phase.CONTRACT)]


@pytest.mark.parametrize(
    ("applied", "refused", "pending"),
    [
        pytest.param({}, SchemaTooOld, "123", id="empty"),
        pytest.param({"1": "1.0.0"}, None, "23", id="expanded: the rest can wait"),
        pytest.param({"1": "1.0.0", "2": "1.0.0", "3": "1.1.0"}, None, "", id="complete"),
        pytest.param({"1": "1.0.0", "2": "1.0.0", "3": "1.1.0", "4": "1.1.9"}, None, "", id="newer, and may run"),
        pytest.param({"1": "1.0.0", "2": "1.0.0", "3": "1.1.0", "4": "1.10.0"}, SchemaTooNew, "", id="too new"),
        pytest.param({"4": "1.10.0"}, SchemaTooNew, "123", id="both: going up does not help"),
    ],
)
def test_verdicts(applied: dict[str, str], refused: type[Exception] | None, pending: str) -> None:
    """Release 1.2.0, by what the database has; numbers compare as numbers."""
    verdict = judge(KNOWN, [Applied(*one) for one in applied.items()], "1.2.0")
    assert type(verdict.refusal) is (refused or type(None))
    assert "".join(one.id for one in verdict.pending) == pending


def test_releases_compare_as_numbers() -> None:
    """Not as text; a suffix does not count."""
    assert release_order("0.10.0") > release_order("0.9.9")
    assert release_order("1.2.3rc1") == release_order("1.2.3")
    with pytest.raises(ValueError):
        release_order("latest")


@pytest.mark.parametrize(
    ("docstring", "complaint"),
    [
        ("Title.\n\nWhy: a\nLocks: b\nHow long: c\nBack:\n", "belongs|empty|sections"),
        ("Title.\n\nWhy: a\nHow long: c\nLocks: b\nBack: d\n", "in this order"),
        ("Title.\n\nWhy: a\nLocks: b\nHow long: c\n", "must be"),
        ("Title.\n\nWhy: a\nWhy: a\nLocks: b\nHow long: c\nBack: d\n", "twice"),
        ("Title.\n\nNo section.\nWhy: a\nLocks: b\nHow long: c\nBack: d\n", "belongs to no section"),
        ("\n\nWhy: a\nLocks: b\nHow long: c\nBack: d\n", "belongs|empty|sections"),
    ],
)
def test_docstrings_are_strict(docstring: str, complaint: str) -> None:
    """`plan` prints them, so none may be half written."""
    with pytest.raises(DocstringInvalid, match=complaint):
        read_notes(docstring)


def test_a_docstring_is_read_whole() -> None:
    """Lines are joined; the last section may be missing."""
    text = "Two\nlines.\n\nWhy: one\ntwo: three\nLocks: b\nHow long: c\nBack: d\n\nNeeds: a superuser\n"
    assert read_notes(text) == Notes("Two lines.", "one two: three", "b", "c", "d", "a superuser")


async def serve(tree: Tree, url: str, code: int) -> str:
    words = ["serve", "--port", "0"]
    return await tree.rota(url, *words, code=code, ROTA_SECRETS=SECRET)


async def server_login(url: str) -> str:
    return await make_login(url, "rota_test", role=APP, password="rota_test")


async def test_an_empty_database_is_not_served(tree: Tree, fresh_url: str, migrated_url: str) -> None:
    """By the server's own login, which may hardly see anything: one sentence that says what to run."""
    login = (await server_login(migrated_url)).replace("rota_migrated", "rota_migrations")
    said = await serve(tree, login, Exit.CHECK_FAILED)
    assert "The database has no schema; run `rota db upgrade`." in said
    assert len(said.splitlines()) == 1
    await tree.rota(fresh_url, "db", "upgrade", "--to", "0003")
    said = await serve(tree, login, Exit.CHECK_FAILED)
    assert "run `rota db upgrade`." in said


async def test_expanding_first(tree: Tree, migrated_url: str, head: str) -> None:
    """`--phase expand` stops before what the former release could not run on; both releases serve then."""
    tree.add("9001", 'op.execute("CREATE TABLE added ()")')
    tree.add("9002", before="9001", phase="migrate")
    tree.add("9003", before="9002", phase="contract", oldest="9.0.0")
    said = await tree.rota(migrated_url, "db", "upgrade", "--phase", "expand", "--json")
    assert json.loads(said.splitlines()[0])["applied"] == ["9001"]
    status = json.loads((await tree.rota(migrated_url, "db", "status", "--json")).splitlines()[0])
    assert (status["served"], status["pending"]) == (True, ["9002", "9003"])
    await tree.rota(migrated_url, "db", "check", code=Exit.CHECK_FAILED)
    said = await tree.rota(migrated_url, "db", "upgrade", "--phase", "expand")
    assert "nothing to do" in said
    await tree.rota(await server_login(migrated_url), "db", "wait", "--timeout", "0")
    said = await tree.rota(migrated_url, "db", "downgrade", head, "--yes", "--json")
    assert json.loads(said.splitlines()[0])["undone"] == ["9001"]


async def test_expanding_an_empty_database_goes_all_the_way(tree: Tree, fresh_url: str) -> None:
    """Nobody serves from it yet."""
    tree.add("9001", phase="contract")
    tree.add("9002", before="9001")
    said = await tree.rota(fresh_url, "db", "upgrade", "--phase", "expand", "--json")
    assert json.loads(said.splitlines()[0])["to"] == "9002"


@pytest.mark.parametrize("oldest", ["0.1.0", "9.0.0"])
async def test_an_older_release_on_a_newer_schema(
    tree: Tree, migrated_url: str, look: asyncpg.Connection, oldest: str
) -> None:
    """It learns from the database whether it may: it serves, or says which release is needed. It never migrates."""
    served = oldest == "0.1.0"
    tree.add("9001", phase="contract", oldest=oldest)
    await tree.rota(migrated_url, "db", "upgrade")
    assert await look.fetchval("SELECT oldest_release FROM schema_revisions WHERE revision = '9001'") == oldest
    (tree.path / "migrations" / "versions" / "9999_9001.py").unlink()  # the older release
    login = await server_login(migrated_url)
    status = json.loads((await tree.rota(login, "db", "status", "--json")).splitlines()[0])
    assert (status["served"], status["unknown"], status["pending"]) == (served, ["9001"], [])
    await tree.rota(login, "db", "wait", "--timeout", "0", code=0 if served else Exit.REFUSED)
    await tree.rota(migrated_url, "db", "check", code=0 if served else Exit.CHECK_FAILED)
    said = await tree.rota(migrated_url, "db", "upgrade", code=Exit.REFUSED)
    assert "9001" in said
    if not served:
        said = await serve(tree, login, Exit.REFUSED)
        assert "it needs 9.0.0 or later" in said


async def test_waiting_ends_with_the_migration(tree: Tree, fresh_url: str) -> None:
    """What an init container does: it waits, somebody migrates, it goes on. If nobody does, exit code 75."""
    await tree.rota(fresh_url, "db", "wait", "--timeout", "0.1", code=Exit.TRY_AGAIN)
    waiting = tree.start(fresh_url, "db", "wait", "--timeout", "100")
    await tree.rota(fresh_url, "db", "upgrade")
    await ended(waiting)


async def test_a_revision_that_there_is_not(tree: Tree, migrated_url: str) -> None:
    """A usage error."""
    for words in (["upgrade", "--to", "nonsense"], ["downgrade", "nonsense", "--yes"], ["sql", "nonsense:"]):
        said = await tree.rota(migrated_url, "db", *words, code=Exit.USAGE)
        assert "nonsense" in said or "FROM:TO" in said


async def test_plain_alembic_keeps_the_books_too(tree: Tree, fresh_url: str, head: str) -> None:
    """Each applied revision's declaration is kept; a downgrade takes its row away; `-x phase=expand` works."""
    program = "import sys; from alembic.config import main; main(sys.argv[1:])"

    async def alembic(*words: str) -> set[str]:
        await ended(tree.start(fresh_url, *words, program=program))
        connection = await asyncpg.connect(fresh_url)
        rows = await connection.fetch("SELECT revision FROM schema_revisions")
        await connection.close()
        return {row["revision"] for row in rows}

    known = {one.id for one in read_revisions()}
    tree.add("9001")
    tree.add("9002", before="9001", phase="contract")
    assert await alembic("upgrade", head) == known
    assert await alembic("-x", "phase=expand", "upgrade", "head") == known | {"9001"}
    assert await alembic("upgrade", "+1") == known | {"9001", "9002"}
    assert await alembic("downgrade", "-2") == known
    assert await alembic("stamp", "9002") == known | {"9001", "9002"}
    assert await alembic("stamp", head) == known
