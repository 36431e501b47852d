"""Dependencies with known vulnerabilities: one is accepted, is explained, and is never used."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SIGNING = """
import sys
from datetime import UTC, datetime, timedelta
from uuid import uuid4
import app.cli
from app.main import create_app
from app.security.access_tokens import AccessTokens
from app.security.signing_keys import SigningKeys
from app.settings import Settings

create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/nowhere", secrets="x" * 40))
now = datetime.now(UTC)
keys = SigningKeys([b"x" * 40])
tokens = AccessTokens(keys, issuer="i", audience="a", lifetime=timedelta(minutes=5), new_id=uuid4)
tokens.verify_client(tokens.issue_for_client("c", "", now)[0], now)
print(sorted(name for name in sys.modules if name.partition(".")[0] in {"ecdsa", "rsa"}))
print(type(keys.current(now).private).__module__)
"""


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    """The step of CI, as a module."""
    spec = importlib.util.spec_from_file_location("audit_dependencies", ROOT / ".ci" / "audit-dependencies.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ecdsa_is_never_imported() -> None:
    """A process with server and commands, which has signed and verified: the packages in pure Python are not in it."""
    words, environment = [sys.executable, "-c", SIGNING], {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "jose.backends.cryptography_backend"]


def test_each_exception_is_explained(audit: ModuleType) -> None:
    """SECURITY.md names each accepted package with an id; the lock file has it, and python-jose is why."""
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert set(audit.ACCEPTED) == {"ecdsa"}
    for name, ids in audit.ACCEPTED.items():
        assert f"**`{name}`**" in page
        assert any(each in page for each in ids)
        assert f"\n{name}==" in lock
    assert "make audit-dependencies" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def package(name: str, *ids: str, **more: Any) -> dict[str, Any]:
    found = [{"id": each, "aliases": [], "fix_versions": ["9"]} for each in ids]
    return {"name": name, "version": "1.0", "vulns": found, **more}


def test_findings_fail_and_silence_does_not(audit: ModuleType) -> None:
    """Any other finding, another one of the accepted package, an exception that nobody needs: a complaint each."""
    accepted = package("ecdsa", "PYSEC-2024-263")
    silent = {"name": "fastapi", "skip_reason": "not found"}
    assert audit.judge([accepted, package("fastapi")]) == ([], [])
    assert audit.judge([accepted, silent]) == ([], ["fastapi"])
    assert len(audit.judge([accepted, package("fastapi", "CVE-1")])[0]) == 1
    assert len(audit.judge([package("ecdsa", "PYSEC-2024-263", "CVE-1")])[0]) == 1
    assert "exception" in audit.judge([package("ecdsa")])[0][0]
    assert "exception" in audit.judge([package("fastapi")])[0][0]


@pytest.mark.parametrize(
    ("found", "code", "says"),
    [
        ("the network is away", 0, "NOT AUDITED BY PYPI: IT CANNOT BE REACHED"),
        ([package("ecdsa", "CVE-2024-23342"), {"name": "x", "skip_reason": "?"}], 0, "DOES NOT ANSWER FOR 1 OF 2"),
        ([package("ecdsa", "CVE-2024-23342"), package("x", "CVE-1")], 1, "1 complaints"),
    ],
    ids=["unreachable", "unknown", "found"],
)
def test_what_becomes_of_the_step(
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: Any,
    code: int,
    says: str,
) -> None:
    """It passes when nothing can be known and says so in capital letters; with a finding it fails."""
    monkeypatch.setattr(audit, "audit", lambda _service: found)
    if code:
        with pytest.raises(SystemExit) as ended:
            audit.main()
        assert ended.value.code == code
    else:
        audit.main()
    assert says in capsys.readouterr().out
