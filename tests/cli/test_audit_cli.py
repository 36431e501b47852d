"""`rota audit` as its users see it: operators with a database, auditors without one."""

import asyncio
import base64
import csv
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import asyncpg
import pytest

from app.domain.users import Role
from tests.conftest import SECRET, client_at
from tests.trail.conftest import ORIGIN, Log
from tests.trail.conftest import log as log  # noqa: PLC0414 - a fixture

ROTA = str(Path(sys.executable).with_name("rota"))


def rota(environment: dict[str, str], *words: str, code: int = 0) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
    done = subprocess.run(
        [ROTA, *words], env={**clean, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr + done.stdout


@pytest.fixture
def operator(log: Log) -> dict[str, str]:
    """The operator's environment."""
    return {
        "ROTA_DATABASE_URL": log.own.app,
        "ROTA_MAINTENANCE_DATABASE_URL": log.own.maintenance,
        "ROTA_SECRETS": SECRET,
        "ROTA_AUDIT_ORIGIN": ORIGIN,
        "ROTA_AUDIT_SIGNING_KEY": log.settings["audit_signing_key"],
        "ROTA_AUDIT_SINK": log.settings["audit_sink"],
    }


async def test_from_key_to_verdict(log: Log, operator: dict[str, str], tmp_path: Path) -> None:
    """Seal, export, prove, verify; the auditor's part with an empty environment."""
    ada = await log.live("ada", 20, end=True)
    rota(operator, "audit", "seal")
    status = json.loads(rota(operator, "audit", "status", "--json"))
    assert (status["origin"], status["tree_size"], status["checkpoint_size"], status["lag_seconds"]) == (
        ORIGIN,
        23,
        23,
        0,
    )
    keys = tmp_path / "keys"
    keys.write_text("# whom we trust\n" + rota(operator, "audit", "key"))
    bundle = tmp_path / "bundle"
    rota(operator, "audit", "export", "--output", str(bundle))
    verdict = json.loads(rota({}, "audit", "verify", str(bundle), "--keys", str(keys), "--json"))
    assert (verdict["ok"], verdict["entries"], verdict["sessions"]) == (True, 23, 1)
    rota({}, "audit", "verify", str(bundle), "--keys", str(keys), "--checkpoints", operator["ROTA_AUDIT_SINK"])
    found = json.loads(rota(operator, "audit", "search", "--subject", "ada", "--action", "session.ended", "--json"))
    event = found["items"][0]["id"]
    proof = tmp_path / "event.tlog-proof"
    rota(operator, "audit", "prove", event, "-o", str(proof))
    assert json.loads(rota({}, "audit", "verify", str(proof), "--keys", str(keys)))["id"] == event
    genuine = proof.read_text()
    entry = base64.b64decode(re.findall("extra (.*)", genuine)[0])
    other = base64.b64encode(entry.replace(b'"logout"', b'"reuse"')).decode()
    proof.write_text(re.sub("extra .*", f"extra {other}", genuine))
    rota({}, "audit", "verify", str(proof), "--keys", str(keys), code=14)
    proof.write_text(genuine.replace("index 22", "index 21"))
    rota({}, "audit", "verify", str(proof), "--keys", str(keys), code=10)
    entries = next(path for path in (bundle / "tile" / "entries").rglob("*") if path.is_file())
    entries.write_bytes(entries.read_bytes().replace(b'"logout"', b'"reuse"x'))
    assert "altered: entry 22" in rota({}, "audit", "verify", str(bundle), "--keys", str(keys), code=14)
    assert "there already" in rota(operator, "audit", "export", "--output", str(bundle), code=1)
    erased = json.loads(rota(operator, "users", "erase", "ada", "--reason", "ticket 1", "--yes", "--json"))
    assert erased == {"id": str(ada.user.id), "events": 23}
    assert json.loads(rota(operator, "audit", "reconcile", "--json"))["differences"] == []
    assert json.loads(rota(operator, "audit", "check", "--json")) == {"findings": []}
    assert len(rota(operator, "audit", "tail", "-n", "3").splitlines()) == 3


async def test_the_verifier_needs_no_database(log: Log, tmp_path: Path) -> None:
    """It runs where neither SQLAlchemy nor asyncpg nor the web framework can be imported, nor a socket be opened."""
    await log.live("ada", 5)
    await log.publish()
    bundle, keys = await log.export(), tmp_path / "keys"
    keys.write_text(f"{log.signer.key(ORIGIN)}\n")
    program = textwrap.dedent("""
        import socket, sys
        for name in ("sqlalchemy", "asyncpg", "fastapi", "starlette", "alembic"):
            sys.modules[name] = None
        from app.cli import main
        socket.socket.connect = socket.socket.bind = None
        main()
    """)
    words = [sys.executable, "-c", program, "audit", "verify", str(bundle), "--keys", str(keys)]
    done = await asyncio.to_thread(
        subprocess.run, words, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stderr


async def test_lists_for_other_programs(log: Log, operator: dict[str, str], own_sql: asyncpg.Connection) -> None:
    """NDJSON and CSV have every event; no cell of the CSV is a formula; a time range restricts to the microsecond."""
    for agent in ("=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-1", 'quo"te', "plain"):
        await log.services.users.create(
            f"user{abs(hash(agent))}", "long enough password", role=Role.USER, actor=None, client=client_at(agent=agent)
        )
    rows = list(csv.DictReader(io.StringIO(rota(operator, "audit", "export", "--format", "csv"))))
    agents = {row["user_agent"] for row in rows}
    assert {"'=cmd|' /C calc'!A0", "'@SUM(1)", "'+1", "'-1", 'quo"te', "plain"} <= agents
    lines = [json.loads(line) for line in rota(operator, "audit", "export", "--format", "ndjson").splitlines()]
    assert len(lines) == len(rows) + 1, "the export before is an event itself"
    assert lines[-1]["action"] == "audit.exported"
    at = lines[2]["occurred_at"]
    one = rota(operator, "audit", "export", "--format", "ndjson", "--from", at, "--to", at, "--no-personal-data")
    assert [json.loads(line)["id"] for line in one.splitlines()] == [lines[2]["id"]]
    assert json.loads(one)["ip"] is None


async def test_what_cannot_be_is_one_sentence(log: Log, operator: dict[str, str], tmp_path: Path) -> None:
    """And an exit code of its kind."""
    key = tmp_path / "key"
    rota({}, "audit", "new-key", str(key))
    assert key.stat().st_mode & 0o077 == 0
    assert "there already" in rota({}, "audit", "new-key", str(key), code=4)
    keys = tmp_path / "keys"
    keys.write_text("nonsense\n")
    assert "not a verifier key" in re.sub(
        r"[\s│]+", " ", rota({}, "audit", "verify", str(tmp_path), "--keys", str(keys), code=2)
    )
    keys.write_text(f"{log.signer.key(ORIGIN)}\n")
    rota({}, "audit", "verify", str(tmp_path / "nowhere"), "--keys", str(keys), code=3)
    assert "manifest.json" in rota({}, "audit", "verify", str(tmp_path), "--keys", str(keys), code=10)
    assert "No checkpoint" in rota(operator, "audit", "export", "-o", str(tmp_path / "b"), code=75)
    unsigned = {name: value for name, value in operator.items() if "AUDIT_S" not in name}
    assert "ROTA_AUDIT_SIGNING_KEY" in rota(unsigned, "audit", "seal", code=2)
    half = {name: value for name, value in operator.items() if name != "ROTA_AUDIT_SINK"}
    assert "belong together" in rota(half, "audit", "status", code=2)
    assert "not a key" in rota({**operator, "ROTA_AUDIT_SIGNING_KEY": "x"}, "audit", "status", code=2)
    assert "no such event" in rota(operator, "audit", "prove", "01a20919-3dff-75f0-b469-d2bd459f7ae8", code=3)
    assert "RETENTION_DAYS" in rota(
        {**operator, "ROTA_MAINTENANCE_DATABASE_URL": log.own.owner},
        "audit",
        "retain",
        "--archive",
        str(tmp_path),
        code=4,
    )
    assert "--yes" in rota(operator, "users", "erase", "ada", "--reason", "ticket", code=2)
    assert "no such user" in rota(operator, "users", "erase", "nobody", "--reason", "ticket", "--yes", code=3)
    assert "cannot be used" in rota({**operator, "ROTA_AUDIT_SINK": str(tmp_path / "away")}, "audit", "seal", code=75)
