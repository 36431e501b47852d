"""SECURITY.md says what is so: the files and tests that it names exist."""

import ast
import re
from pathlib import Path

import httpx2
from fastapi import FastAPI

from app.main import create_app
from tests.conftest import make_settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\d+\.\d+\.\d+(?:, \d+\.\d+\.\d+)*) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
CHAPTERS = {1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16}


def named_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def missing(page: str) -> list[str]:
    """What a page names in backticks as a file or a test, and there is not."""
    found = []
    for named in re.findall(r"`((?:app|docs|tests|migrations|\.ci)/[^`]+)`", page):
        path, _, test = named.partition("::")
        if not (ROOT / path).exists() or (test and test not in named_in(ROOT / path)):
            found.append(named)
    return found


def test_what_the_table_names_exists() -> None:
    """Each file and each test; and a row names both, unless it says that something is not offered."""
    assert missing(PAGE) == []
    rows = ROW.findall(PAGE)
    assert len(rows) > 60
    assert {int(numbers.partition(".")[0]) for numbers, *_ in rows} == CHAPTERS
    for numbers, how, where, test in rows:
        excused = "not offered" in how or "there is none" in how
        assert excused or ("`" in where and "::test_" in test), numbers
    named = [number for numbers, *_ in rows for number in numbers.split(", ")]
    assert len(named) == len(set(named)), "a requirement stands in two rows"


def test_a_name_that_is_none_is_found() -> None:
    """The test can fail: a file, a test, and a test of another file."""
    assert len(missing("`app/nowhere.py` `tests/conftest.py::test_x` `tests/api/test_wire.py::test_rotation`")) == 3
    assert missing("`app/main.py` `tests/api/test_wire.py::test_a_long_url_is_cut`") == []


def test_the_page_says_what_is_not_met() -> None:
    """A second factor, bound tokens, leeway, timing of imported hashes: deviations are in words."""
    for word in (
        "not met",
        "not offered",
        "deviation",
        "imported hash",
        "TLS is the proxy's",
        "ecdsa",
        "second factor",
    ):
        assert word in PAGE, word


async def test_headers_of_every_answer() -> None:
    """`nosniff` and, unless the route keeps otherwise, `no-store`: on answers and refusals of every route."""
    app: FastAPI = create_app(make_settings("postgresql://nobody@127.0.0.1:1/nowhere"))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://rota") as http:
        for path, methods in app.openapi()["paths"].items():
            for method in methods:
                answer = await http.request(method.upper(), re.sub(r"{\w+}", "x", path))
                assert answer.headers["x-content-type-options"] == "nosniff", path
                assert answer.headers["cache-control"] == "no-store" or answer.headers["cache-control"].startswith(
                    ("public, max-age=", "no-cache", "no-store, ")
                ), (path, answer.headers["cache-control"])
    await app.state.container.close()
