"""`rota doctor`, `rota config show` and `rota keys list` as processes, and what becomes of them when things fail."""

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from app.domain.check_list import CHECKS
from app.domain.checks import Check, Finding, Need, Verdict, ok
from app.domain.errors import Unavailable
from app.security.certificates import certificate_expires_at
from app.security.keys import key_id, spell_key_id
from app.services import doctor
from app.services.checks_database import judge_certificate
from tests.conftest import OwnDatabase
from tests.doctor.conftest import STRONG, Examine
from tests.postgresql import make_database

ROOT = Path(__file__).parents[2]
MAIN = "from app.cli import main; main()"
OTHER = "Qp4" + STRONG[::-1]


async def rota(environment: dict[str, str], *words: str) -> tuple[int, str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MAIN, *words,
        env={**clean, "PYTHONPATH": str(ROOT), **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_doctor_for_people_and_for_monitors(environment: dict[str, str]) -> None:
    """All checks, in their order, as a table and as JSON; a failure is exit code 5; nothing secret on either output."""
    code, out, err = await rota(environment, "doctor", "--json")
    found = json.loads(out)
    assert code == 5
    assert err == ""
    assert [each["id"] for each in found["checks"]] == [check.id for check in CHECKS]
    assert set(found["counts"]) <= {"ok", "warning", "failure", "skipped"}
    assert sum(found["counts"].values()) == len(CHECKS)
    failing = [each["id"] for each in found["checks"] if each["verdict"] == "failure"]
    assert failing == ["work.jobs"]  # nobody serves this database
    for each in found["checks"]:
        assert bool(each["fix"]) == (each["verdict"] in {"warning", "failure"}), each
        assert each["why"].endswith("."), each
    people = await rota(environment, "doctor")
    assert people[0] == 5
    assert all(check.id in people[1] for check in CHECKS)
    assert STRONG not in out + people[1] + people[2]


async def test_warnings_only_are_exit_code_0(environment: dict[str, str]) -> None:
    """And a check that there is not is a wrong use."""
    code, out, _ = await rota(environment, "doctor", "--check", "settings.issuer", "--json")
    assert (code, [each["verdict"] for each in json.loads(out)["checks"]]) == (0, ["warning"])
    assert (await rota(environment, "doctor", "--check", "settings.isuer"))[0] == 2


async def test_a_database_that_is_away_makes_nothing_ok(environment: dict[str, str]) -> None:
    """One failure that says so; what needs it is skipped; the rest is looked at all the same."""
    code, out, err = await rota(
        {**environment, "ROTA_DATABASE_URL": "postgresql://u@127.0.0.1:1/x"}, "doctor", "--json"
    )
    verdicts = {each["id"]: each["verdict"] for each in json.loads(out)["checks"]}
    assert (code, err) == (5, "")
    assert verdicts.pop("database.reachable") == "failure"
    needing = {check.id for check in CHECKS if check.need is not Need.NOTHING}
    assert {verdicts[name] for name in needing} == {"skipped"}
    assert verdicts["secrets.present"] == "ok"


async def test_a_server_that_accepts_and_says_nothing(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline ends it, and what needs the database is skipped without waiting for it again."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x"
        assert (await examine("database.reachable", more={"ROTA_DATABASE_URL": url})).finding.verdict is Verdict.FAILURE
        found = (await examine("trail.triggers", more={"ROTA_DATABASE_URL": url})).finding
        assert (found.verdict, "does not answer" in found.why) == (Verdict.SKIPPED, True)


async def test_an_empty_database(server_url: str, environment: dict[str, str], examine: Examine) -> None:
    """Says what to run; what needs tables is skipped."""
    url = await make_database(server_url, "rota_doctor_empty")
    more = {"ROTA_DATABASE_URL": url, "ROTA_MIGRATION_DATABASE_URL": url}
    version = await examine("schema.version", more=more)
    assert (version.finding.verdict, "rota db upgrade" in (version.fix or "")) == (Verdict.FAILURE, True)
    for name in ("rights.trail", "trail.partitions", "work.jobs", "schema.drift"):
        found = (await examine(name, more=more)).finding
        assert (found.verdict, "rota db upgrade" in found.why) == (Verdict.SKIPPED, True), found
    assert (await examine("database.version", more=more)).finding.verdict is Verdict.OK


async def test_no_check_hides_another(
    own: OwnDatabase, environment: dict[str, str], examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs, one that breaks, one that is refused, one that is broken off: each is told for itself."""

    async def hangs(_: Any) -> Finding:
        await asyncio.sleep(3600)
        return ok("never")

    async def breaks(_: Any) -> Finding:
        raise ValueError("with a value that must not be told")

    async def refused(patient: Any) -> Finding:
        connection = await asyncpg.connect(patient.settings.database_url.get_secret_value())
        try:
            await connection.execute("SELECT * FROM pg_authid")
        finally:
            await connection.close()
        return ok("never")

    async def interrupted(_: Any) -> Finding:
        raise Unavailable(why="SQLSTATE 57014")

    made = {"a.hangs": hangs, "a.breaks": breaks, "a.refused": refused, "a.interrupted": interrupted}
    monkeypatch.setattr(doctor, "LOOKS", {**doctor.LOOKS, **made})
    checks = [Check(name, "Title", "matters", "what to do about it", seconds=0.3) for name in made]
    last, reachable = (
        next(check for check in CHECKS if check.id == name) for name in ("database.version", "database.reachable")
    )
    monkeypatch.setattr(doctor, "CHECKS", (*checks, last, reachable))
    found = {name: (await examine(name)).finding for name in [*made, last.id]}
    verdicts = [each.verdict.value for each in found.values()]
    assert verdicts == ["failure", "failure", "skipped", "failure", "ok"], found
    assert "must not be told" not in str(found)
    assert found["a.hangs"].why == "No answer within 0.3 s."


async def test_config_show(environment: dict[str, str], tmp_path: Path) -> None:
    """Every setting with value, default, origin and unit; secrets by whether and from where; what contradicts what."""
    secret = tmp_path / "secrets"
    secret.write_text(f"{environment.pop('ROTA_SECRETS')}\n")
    given = {
        **environment,
        "ROTA_SECRETS_FILE": str(secret),
        "ROTA_REFRESH_IDLE_SECONDS": "3000000",
        "ROTA_PORT": "8001",
    }
    code, out, _ = await rota(given, "config", "show", "--json")
    found = {each["setting"]: each for each in json.loads(out)["settings"]}
    assert code == 0
    assert found["ROTA_SECRETS"]["value"] == f"set (from file {secret})"
    assert found["ROTA_DATABASE_URL"]["value"] == "set (from environment)"
    assert found["ROTA_MAINTENANCE_DATABASE_URL"]["value"] == "not set"
    port = found["ROTA_PORT"]
    assert (port["value"], port["default"], port["origin"], port["unit"]) == (8001, 8000, "environment", None)
    idle = found["ROTA_REFRESH_IDLE_SECONDS"]
    assert (idle["value"], idle["default"], idle["unit"]) == (3_000_000, 604_800, "seconds")
    assert idle["contradicts"] == ["ROTA_SESSION_MAX_SECONDS"]
    assert found["ROTA_AUDIENCE"]["origin"] == "default"
    people = await rota(given, "config", "show")
    assert (people[0], "Contradiction: " in people[1]) == (0, True)
    assert STRONG not in out + people[1]
    assert "rota_test" not in out + people[1]  # the password in the URL


async def test_config_show_of_a_wrong_environment(environment: dict[str, str]) -> None:
    """All that is wrong at once, not only the first of it; no value; exit code 5."""
    wrong = {"ROTA_PORT": "hunter2", "ROTA_REGISTRATION": "hunter3", "ROTA_HOSTT": "x", "ROTA_SECRETS": "hunter4"}
    code, out, err = await rota({**environment, **wrong}, "config", "show", "--json")
    found = json.loads(out)
    assert (code, err) == (5, "")
    assert len(found["wrong"]) == 4
    assert {each["setting"] for each in found["settings"] if each["wrong"]} == set(wrong) - {"ROTA_HOSTT"}
    assert "hunter" not in out


async def test_keys_list_without_a_database(environment: dict[str, str]) -> None:
    """The host's time, and it says so; which mints and which verifies; no byte of a secret; exit code 5 if missing."""
    alone = {"ROTA_SECRETS": f"{STRONG},{OTHER}"}
    ids = [spell_key_id(key_id(secret.encode())) for secret in (STRONG, OTHER)]
    code, out, _ = await rota(alone, "keys", "list", "--json")
    found = json.loads(out)
    assert (code, found["time_from"]) == (0, "host")
    assert [(each["id"], each["state"]) for each in found["secrets"]] == list(
        zip(ids, ("mints", "verifies"), strict=True)
    )
    assert [key["state"] for key in found["keys"]] == ["past", "signs", "next", "past", "published", "published"]
    assert all(key["from"] < key["to"] < key["published_until"] for key in found["keys"])
    away = await rota({**alone, "ROTA_DATABASE_URL": "postgresql://u@127.0.0.1:1/x"}, "keys", "list")
    assert (away[0], "does not answer" in away[1]) == (0, True)
    none = await rota({}, "keys", "list")
    assert (none[0], "ROTA_SECRETS is not set" in none[1]) == (5, True)
    for part in (STRONG, OTHER, STRONG[:8], OTHER[:8]):
        assert part not in out + away[1] + away[2]


async def test_keys_list_is_what_the_server_publishes(own: OwnDatabase, environment: dict[str, str]) -> None:
    """The same kids as the key set, and the first one signs; with the database's time."""
    from app.container import Container  # noqa: PLC0415 - beside its only use
    from tests.conftest import make_settings  # noqa: PLC0415 - likewise

    services = Container.build(make_settings(own.app, secrets=f"{STRONG},{OTHER}"))
    now = services.clock.on_host()
    published = [key.kid for key in services.signing_keys.published(now)]
    signing = services.signing_keys.current(now).kid
    await services.close()
    code, out, _ = await rota({**environment, "ROTA_SECRETS": f"{STRONG},{OTHER}"}, "keys", "list", "--json")
    found = json.loads(out)
    assert (code, found["time_from"]) == (0, "database")
    assert [key["kid"] for key in found["keys"]] == published
    assert [key["kid"] for key in found["keys"] if key["state"] == "signs"] == [signing]


@contextmanager
def tls_server(folder: Path, expires_at: datetime) -> Iterator[int]:
    """Speaks PostgreSQL's first two words and TLS, and nothing more."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "db.test")])
    begun = expires_at - timedelta(days=90)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(begun).not_valid_after(expires_at)
    (folder / "cert").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    (folder / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plain, _ = listener.accept()
            with plain:
                assert plain.recv(8) == bytes.fromhex("0000000804d2162f")
                plain.sendall(b"S")
                with context.wrap_socket(plain, server_side=True) as encrypted:
                    encrypted.recv(1)

        thread = Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


@pytest.mark.parametrize(
    ("days", "verdict"), [(-1, Verdict.FAILURE), (2, Verdict.FAILURE), (20, Verdict.WARNING), (60, Verdict.OK)]
)
def test_the_certificate_s_last_day(tmp_path: Path, days: int, verdict: Verdict) -> None:
    """As the server shows it, expired or not, and judged by what is left of it."""
    expires_at = (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)
    with tls_server(tmp_path, expires_at) as port:
        shown = certificate_expires_at("127.0.0.1", port, seconds=5)
    assert shown == expires_at
    left = (expires_at - datetime.now(UTC)).total_seconds()
    assert judge_certificate(left, "then").verdict is verdict
