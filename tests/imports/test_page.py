"""The page on importing, as its readers use it."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.domain.user_imports import COLUMNS, Field, Reason
from app.security.password_hashes import read_hash

PAGE = (Path(__file__).parents[2] / "docs/administration/importing.md").read_text(encoding="utf-8")


def test_all_reasons_and_columns_are_told() -> None:
    """Each code that a report may hold stands on the page, and each column."""
    told = set(re.findall(r"`(\w+)`", PAGE))
    assert {reason.value for reason in Reason} - told == set()
    assert {column.value for column in COLUMNS} - told == set()
    assert Field.LINE not in COLUMNS


@pytest.mark.parametrize(
    ("algorithm", "digest", "stored"),
    [("pbkdf2-sha256", "sha256", 64), ("pbkdf2-sha512", "sha512", 64), ("pbkdf2", "sha1", 64)],
)
def test_what_the_page_says_of_keycloak(algorithm: str, digest: str, stored: int) -> None:
    """Its function makes of a credential of Keycloak's a hash that verifies."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, found)  # noqa: S102 - our own page
    salt = b"\xff\xfe sixteen byte"
    value = hashlib.pbkdf2_hmac(digest, b"a password", salt, 1000, stored)
    secret = {"value": base64.b64encode(value).decode(), "salt": base64.b64encode(salt).decode()}
    data = {"hashIterations": 1000, "algorithm": algorithm}
    known = read_hash(found["keycloak"]({"secretData": json.dumps(secret), "credentialData": json.dumps(data)}))
    assert known.handler.verify("a password", known.text)
    assert not known.handler.verify("another", known.text)


def test_the_example_of_the_page_is_read() -> None:
    """Its hash is of a kind that is taken."""
    (lines,) = re.findall(r"```csv\n(.*?)```", PAGE, re.DOTALL)
    assert read_hash(lines.splitlines()[1].split(",")[1]).scheme == "pbkdf2_sha256"
