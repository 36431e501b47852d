"""The list of checks against the code, the page and the commands that it names."""

import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import typer.main

from app.cli import cli
from app.domain.check_list import CHECKS, GROUPS
from app.services.doctor import LOOKS
from app.settings import SECRET_FIELDS, Settings, variable
from docs import generate_doctor

ROOT = Path(__file__).parents[2]
QUOTED = [(check.id, text) for check in CHECKS for text in re.findall(r"`([^`]+)`", check.fix)]
OPERATORS = {"chmod", "openssl", "pg_checksums", "ulimit"}  # programs of the host and of PostgreSQL
SQL = re.compile(r"(ALTER|CREATE|DROP|GRANT|REVOKE|SELECT|VACUUM|REINDEX|ROLLBACK)\b")


def test_every_check_of_the_list_is_made_and_no_other() -> None:
    """Once each, in a group that has a title."""
    ids = [check.id for check in CHECKS]
    assert len(set(ids)) == len(ids) >= 20
    assert set(ids) == set(LOOKS)
    assert {check.group for check in CHECKS} == set(GROUPS)


def test_the_page_is_made_from_the_list() -> None:
    """`make docs` makes this page."""
    assert generate_doctor.TARGET.read_text(encoding="utf-8") == generate_doctor.page()


@pytest.mark.parametrize(("check", "text"), QUOTED, ids=[f"{check}: {text[:40]}" for check, text in QUOTED])
def test_what_a_fix_names_exists(check: str, text: str) -> None:
    """Commands with their options, settings; SQL is SQL, and other programs are few and well known."""
    if text.startswith("rota "):
        assert _resolve(text.split()[1:]) is None, f"{check}: {text}"
    elif text.startswith("ROTA_"):
        known = {variable(name) for name in Settings.model_fields} | {
            f"{variable(name)}_FILE" for name in SECRET_FIELDS
        }
        assert text.partition("=")[0] in known, check
    elif text.startswith("GET /"):
        assert f"`{text}`" in (ROOT / "README.md").read_text()
    else:
        assert SQL.match(text) or text.split(maxsplit=1)[0] in OPERATORS, f"{check}: {text}"


def _resolve(words: list[str]) -> str | None:
    """What there is not of a command line; `None`: it is all there."""
    command: Any = typer.main.get_command(cli)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        command = command.commands.get(words.pop(0))
        if command is None:
            return "no such command"
    if hasattr(command, "commands"):
        return "a group, not a command"
    options = {name for parameter in command.params for name in parameter.opts}
    arguments = sum(parameter.param_type_name == "argument" for parameter in command.params)
    while words:
        word = words.pop(0)
        if word.startswith("-"):
            if word not in options:
                return f"no option {word}"
            flag = next(parameter for parameter in command.params if word in parameter.opts)
            words = words if flag.is_flag else words[1:]
        elif (arguments := arguments - 1) < 0:
            return f"too many arguments: {word}"
    return None


async def test_settings_of_postgresql_that_a_fix_names_exist(sql: asyncpg.Connection) -> None:
    """By the server's own list; so do the functions."""
    named = {name for _, text in QUOTED for name in re.findall(r"(?:SYSTEM|\}) (?:RE)?SET (\w+)", text)}
    assert len(named) >= 8
    known = {row[0].lower() for row in await sql.fetch("SELECT name FROM pg_settings")}
    assert named <= known
    functions = {name for _, text in QUOTED for name in re.findall(r"SELECT (\w+)\(", text)}
    for name in functions:
        assert await sql.fetchval("SELECT count(*) FROM pg_proc WHERE proname = $1", name), name


def test_pages_that_a_fix_names_exist() -> None:
    """Paths of this repository."""
    for check in CHECKS:
        for path in re.findall(r"docs/[\w/]+\.md", check.fix):
            assert (ROOT / path).is_file(), check.id


def test_sentences_are_whole() -> None:
    """No title ends with a full stop, no reason begins with a capital; each is something to read."""
    for check in CHECKS:
        assert not check.title.endswith("."), check.id
        assert check.title[0].isupper(), check.id
        assert not check.matters.endswith("."), check.id
        assert len(check.fix) > 15, check.id
