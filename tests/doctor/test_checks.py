"""The checks that ask more than one statement could make wrong: settings, secrets, services, files, a database away."""

import os
import re
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from app.domain.checks import Verdict
from app.domain.users import Role
from app.jobs.schedule import JOBS
from app.services import checks_settings, checks_trail
from tests.conftest import MakeServices, MovableClock, OwnDatabase, Person, client_at
from tests.doctor.conftest import STRONG, Examine
from tests.migrations.conftest import PGBOUNCER, Pooled, pooled
from tests.trail.conftest import ORIGIN, Log, log

__all__ = ["log", "pooled"]  # fixtures

OK, WARNING, FAILURE, SKIPPED = Verdict.OK, Verdict.WARNING, Verdict.FAILURE, Verdict.SKIPPED
OTHER = "Qp4" + STRONG[::-1]

SETTINGS = [
    ("settings.valid", {"ROTA_PORTT": "1"}, FAILURE, "ROTA_PORTT is not a setting; the nearest is ROTA_PORT"),
    ("settings.valid", {"ROTA_PORT": "99999"}, FAILURE, "ROTA_PORT"),
    ("settings.valid", {"ROTA_SECRETS": "short"}, FAILURE, "at least 32 bytes"),
    ("settings.valid", {"ROTA_SECRETS_FILE": "/nowhere"}, FAILURE, "both set"),
    ("settings.valid", {"ROTA_AUDIT_SINK": "/var/sink"}, FAILURE, "belong together"),
    ("settings.valid", {}, OK, "defaults"),
    ("settings.contradictions", {"ROTA_REFRESH_IDLE_SECONDS": "3000000"}, WARNING, "idle limit has no effect"),
    ("settings.contradictions", {"ROTA_REFRESH_IDLE_SECONDS": "800"}, WARNING, "ROTA_ACCESS_TOKEN_SECONDS"),
    ("settings.contradictions", {"ROTA_ACCESS_TOKEN_SECONDS": "2"}, WARNING, "expires before the view"),
    ("settings.contradictions", {"ROTA_REFRESH_RETRY_SECONDS": "5"}, WARNING, "no Idempotency-Key is needed"),
    (
        "settings.contradictions",
        {"ROTA_AUDIT_LEGAL_HOLD": "true", "ROTA_SESSION_RETENTION_DAYS": "30"},
        WARNING,
        "ROTA_SESSION_RETENTION_DAYS has no effect",
    ),
    ("settings.contradictions", {"ROTA_AUDIT_RETENTION_DAYS": "7"}, WARNING, "how it began"),
    (
        "settings.contradictions",
        {"ROTA_REVOCATION_MODE": "strict", "ROTA_REVOCATION_STALENESS_SECONDS": "2"},
        WARNING,
        "the view is not asked",
    ),
    ("settings.contradictions", {"ROTA_HOST": "0.0.0.0"}, WARNING, "only this host"),  # noqa: S104 - a setting under test
    ("settings.contradictions", {"ROTA_MIGRATION_DATABASE_URL": "postgresql:///other"}, WARNING, "different databases"),
    ("settings.contradictions", {"ROTA_CORS_ORIGINS": "https://a.example"}, OK, "no contradiction"),
    (
        "settings.contradictions",
        {"ROTA_ISSUER": "https://a.example/rota", "ROTA_CORS_ORIGINS": "https://a.example"},
        WARNING,
        "need no leave",
    ),
    (
        "settings.contradictions",
        {"ROTA_ISSUER": "https://a.example", "ROTA_CORS_ORIGINS": "https://b.a.example,http://localhost:3000"},
        WARNING,
        "any program may serve pages",
    ),
    ("settings.contradictions", {}, OK, "no contradiction"),
    ("settings.issuer", {"ROTA_ISSUER": "http://sessions.example.com"}, FAILURE, "not encrypted"),
    ("settings.issuer", {"ROTA_ISSUER": "http://localhost:8000"}, WARNING, "of this host"),
    ("settings.issuer", {"ROTA_ISSUER": "rota"}, WARNING, "not a URL"),
    ("settings.issuer", {"ROTA_ISSUER": "https://sessions.example.com/?a=b"}, FAILURE, "query"),
    ("settings.issuer", {"ROTA_ISSUER": "https://sessions.example.com"}, OK, "https://sessions.example.com"),
    ("settings.password_length", {"ROTA_PASSWORD_MIN_CHARACTERS": "8"}, WARNING, "something else"),
    ("settings.password_length", {}, OK, "15"),
    ("secrets.present", {"ROTA_SECRETS": ""}, FAILURE, "none"),
    ("secrets.present", {"ROTA_SECRETS": ",".join(f"{STRONG}{n}" for n in range(4))}, WARNING, "There are 4"),
    ("secrets.present", {"ROTA_SECRETS": f"{STRONG},{OTHER}"}, OK, "only verify"),
    ("secrets.strength", {"ROTA_SECRETS": "a" * 40}, FAILURE, "0 random bits"),
    ("secrets.strength", {"ROTA_SECRETS": "secret-secret-secret-secret-secret-secret"}, FAILURE, "random bits"),
    ("secrets.strength", {"ROTA_SECRETS": f"{STRONG},{'0123456789abcdef' * 4}"}, WARNING, "random bits"),
    ("secrets.strength", {}, OK, "128"),
    ("database.connections", {"ROTA_DATABASE_POOL_SIZE": "200"}, FAILURE, "202 in all"),
    ("database.connections", {}, OK, "18 in all"),
    ("trail.sink", {}, SKIPPED, "no ROTA_AUDIT_SINK"),
    ("host.backup", {}, SKIPPED, "Nobody told"),
    ("host.backup", {"ROTA_BACKUP_STAMP": "/nowhere/stamp"}, FAILURE, "no backup at all"),
]


@pytest.mark.parametrize(("check", "more", "verdict", "says"), SETTINGS)
async def test_settings_and_secrets(
    examine: Examine, check: str, more: dict[str, str], verdict: Verdict, says: str
) -> None:
    """By the environment alone; no value of a secret and no wrong value is in the sentence."""
    found = (await examine(check, more=more)).finding
    assert (found.verdict, says in found.why) == (verdict, True), found
    assert not [value for name, value in more.items() if "SECRETS" in name and len(value) > 8 and value in found.why]
    assert "99999" not in found.why


async def test_two_secrets_with_one_id(examine: Examine) -> None:
    """A list with which no server starts: found without one."""
    from app.security.keys import key_id  # noqa: PLC0415 - beside its only use

    twin = next(secret for n in range(10_000) if key_id((secret := f"{STRONG}{n}").encode()) == key_id(STRONG.encode()))
    found = (await examine("secrets.present", more={"ROTA_SECRETS": f"{STRONG},{twin}"})).finding
    assert (found.verdict, "share an id" in found.why) == (FAILURE, True)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that everybody can enter, as the tests' own cannot be."""
    folder = Path(tempfile.mkdtemp(prefix="rota-doctor-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def test_files_of_secrets(examine: Examine, environment: dict[str, str], open_folder: Path) -> None:
    """Readable by everybody, writable by a group, behind a closed door, away, and as it should be."""
    path = open_folder / "secrets"
    path.write_text(environment.pop("ROTA_SECRETS"))
    more = {"ROTA_SECRETS_FILE": str(path)}
    seen = []
    for mode, door in ((0o644, 0o755), (0o620, 0o755), (0o644, 0o700), (0o400, 0o755)):
        path.chmod(mode)
        open_folder.chmod(door)
        seen.append((await examine("secrets.files", more=more)).finding.verdict)
    path.unlink()
    open_folder.chmod(0o755)
    valid = await examine("settings.valid", more=more)
    assert seen == [FAILURE, FAILURE, OK, OK]
    assert "ROTA_SECRETS_FILE: the file cannot be read" in valid.finding.why


async def test_secrets_in_use(
    own: OwnDatabase, examine: Examine, make_services: MakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the last server knew and what is listed here; how long it has been minting; a former one that can go."""
    assert (await examine("secrets.in_use")).finding.verdict is SKIPPED
    await make_services(url=own.app, secrets=STRONG).lifecycle.started()
    assert (await examine("secrets.in_use")).finding.verdict is OK
    for listed, says in ((OTHER, "not listed here"), (f"{STRONG},{OTHER}", "restart the servers")):
        found = (await examine("secrets.in_use", more={"ROTA_SECRETS": listed})).finding
        assert (found.verdict, says in found.why) == (FAILURE, True), found

    assert (await examine("secrets.age")).finding.verdict is OK
    await make_services(url=own.app, secrets=f"{OTHER},{STRONG}").lifecycle.started()
    both = {"ROTA_SECRETS": f"{OTHER},{STRONG}"}
    assert (await examine("secrets.age", more=both)).finding.verdict is OK  # too early to say
    later = MovableClock()
    later.advance(hours=2)
    found = (await examine("secrets.age", clock=later, more=both)).finding
    assert (found.verdict, "can be removed" in found.why) == (WARNING, True), found
    monkeypatch.setattr(checks_settings, "AGE_DAYS", -1)
    found = (await examine("secrets.age", more=both)).finding
    assert (found.verdict, "minting for 0 days" in found.why) == (WARNING, True), found


@pytest.mark.parametrize(
    ("seconds", "verdict", "says"),
    [(0, OK, "agree"), (5, WARNING, "behind"), (-5, WARNING, "ahead"), (90, FAILURE, "behind")],
)
async def test_clock(examine: Examine, seconds: float, verdict: Verdict, says: str) -> None:
    """This host's, moved."""

    class Moved(MovableClock):
        def on_host(self) -> object:  # type: ignore[override]
            return super(MovableClock, self).on_host() + timedelta(seconds=seconds)

    found = (await examine("database.clock", clock=Moved())).finding
    assert (found.verdict, says in found.why) == (verdict, True), found


async def test_encoding(server_url: str, examine: Examine, environment: dict[str, str]) -> None:
    """A database that could not hold everybody's name."""
    name = "rota_doctor_latin"
    connection = await asyncpg.connect(server_url)
    await connection.execute(f"DROP DATABASE IF EXISTS {name}")
    await connection.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    url = re.sub(r"/rota_own_\w+", f"/{name}", environment["ROTA_DATABASE_URL"])
    found = (await examine("database.encoding", more={"ROTA_DATABASE_URL": url})).finding
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()
    assert (found.verdict, found.why) == (FAILURE, "It is LATIN1.")
    assert (await examine("database.encoding")).finding.verdict is OK


@pytest.mark.skipif(not PGBOUNCER.exists(), reason="PgBouncer is not installed")
async def test_a_transaction_pooler(own: OwnDatabase, examine: Examine, pooled: Pooled) -> None:
    """Between migrations and the database, and between the listener and the database; direct, both are well."""
    async with pooled(own.owner, "transaction") as url:
        migrating = await examine("database.pooler", more={"ROTA_MIGRATION_DATABASE_URL": url})
        assert migrating.finding.verdict is FAILURE
        listening = (await examine("database.listen", more={"ROTA_DATABASE_URL": url})).finding
        assert (listening.verdict, "did not arrive" in listening.why) == (FAILURE, True), listening
    for check in ("database.pooler", "database.listen"):
        assert (await examine(check)).finding.verdict is OK


async def test_an_old_transaction(
    own_sql: asyncpg.Connection, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named while it is open, with its process and since when; gone with it."""
    monkeypatch.setattr(checks_trail, "OPEN_SECONDS", 0.0)
    pid = own_sql.get_server_pid()
    async with own_sql.transaction():
        await own_sql.execute("SELECT pg_current_xact_id()")
        found = (await examine("trail.horizon")).finding
    assert (found.verdict, f"process {pid}" in found.why) == (WARNING, True), found
    monkeypatch.setattr(checks_trail, "OPEN_SECONDS", 60.0)
    assert (await examine("trail.horizon")).finding.verdict is OK


async def test_sealing_and_publishing(log: Log, examine: Examine, make_services: MakeServices) -> None:
    """Nothing yet, unsealed for hours, sealed, unsigned, signed, signed long ago."""
    assert (await examine("trail.sealing")).finding.verdict is WARNING
    assert (await examine("trail.published")).finding.verdict is SKIPPED
    await log.live("ada")
    await log.seal_all()
    assert (await examine("trail.sealing")).finding.verdict is OK
    unsigned = (await examine("trail.published")).finding
    assert (unsigned.verdict, "signed" in unsigned.why) == (WARNING, True)

    early = MovableClock()
    early.advance(hours=-2)
    before = make_services(early, url=log.own.app, **log.settings)
    await Person(before, (await log.person("ben")).user, "ben").sign_in()
    late = (await examine("trail.sealing")).finding
    assert (late.verdict, "nobody seals" in late.why) == (FAILURE, True), late
    await log.seal_all()
    assert (await examine("trail.sealing")).finding.verdict is OK
    assert before.publishing is not None
    await before.publishing.publish()  # two hours ago, by its clock
    await log.live("cyd")
    await log.seal_all()
    old = (await examine("trail.published")).finding
    assert (old.verdict, "have come since" in old.why) == (FAILURE, True), old
    await log.publish()
    assert (await examine("trail.published")).finding.verdict is OK

    pair = {"ROTA_AUDIT_SIGNING_KEY": str(log.settings["audit_signing_key"]), "ROTA_AUDIT_ORIGIN": ORIGIN}
    assert (await examine("trail.sink", more={**pair, "ROTA_AUDIT_SINK": str(log.sink)})).finding.verdict is OK
    for path in (log.folder / "away", Path(__file__)):
        found = (await examine("trail.sink", more={**pair, "ROTA_AUDIT_SINK": str(path)})).finding
        assert (found.verdict, "not a directory" in found.why) == (FAILURE, True)


async def test_jobs(own_sql: asyncpg.Connection, examine: Examine) -> None:
    """Never run, in time, one that failed, one that is late."""
    never = (await examine("work.jobs")).finding
    assert (never.verdict, f"{len(JOBS)} of {len(JOBS)}" in never.why) == (FAILURE, True)
    names = [job.name for job in JOBS]
    await own_sql.execute(
        "INSERT INTO job_runs (job, began_at, ended_at, next_at, rows, total) "
        "SELECT name, now(), now(), now() + interval '1 hour', 0, 0 FROM unnest($1::text[]) AS name",
        names,
    )
    assert (await examine("work.jobs")).finding.verdict is OK
    await own_sql.execute(
        "UPDATE job_runs SET error = 'history_refused: it is an older copy' WHERE job = 'audit.publish'"
    )
    failed = (await examine("work.jobs")).finding
    assert (failed.verdict, "older copy" in failed.why) == (FAILURE, True)
    await own_sql.execute("UPDATE job_runs SET error = NULL, next_at = now() - interval '3 hours' WHERE job = 'expiry'")
    late = (await examine("work.jobs")).finding
    assert (late.verdict, "1 of" in late.why and "expiry" in late.why) == (FAILURE, True)


async def test_administrators(own: OwnDatabase, own_sql: asyncpg.Connection, examine: Examine, log: Log) -> None:
    """None, one, one who is shut out, one without a password."""
    assert (await examine("work.admin")).finding.verdict is WARNING
    create = log.services.users.create
    await create("root", "correct horse battery staple", role=Role.ADMIN, actor=None, client=client_at())
    assert (await examine("work.admin")).finding.verdict is OK
    for change in ("disabled_at = now()", "disabled_at = NULL, password_hash = NULL"):
        await own_sql.execute(f"UPDATE users SET {change}")
        assert (await examine("work.admin")).finding.verdict is WARNING


async def test_hot_updates(own_sql: asyncpg.Connection, examine: Examine) -> None:
    """With an index on what a refresh writes they are not; without it they are."""
    await own_sql.execute(
        "INSERT INTO families (user_id, id, seed, generation, event_seq, client_id, scope, role, authenticated_at, "
        "amr, created_at, rotated_at, idle_expires_at, expires_at) SELECT gen_random_uuid(), gen_random_uuid(), "
        "sha256('x'), 0, 1, 'first-party', '', 'user', now(), 'pwd', now(), now(), now(), now()"
    )

    async def refresh() -> None:
        await own_sql.execute("SELECT pg_stat_reset_single_table_counters('families'::regclass)")
        for _ in range(1100):
            await own_sql.execute("UPDATE families SET rotated_at = clock_timestamp()")
        await own_sql.execute("SELECT pg_stat_force_next_flush()")

    await own_sql.execute("CREATE INDEX by_hand ON families (rotated_at)")
    await refresh()
    cold = (await examine("tables.hot")).finding
    await own_sql.execute("DROP INDEX by_hand")
    await refresh()
    hot = (await examine("tables.hot")).finding
    assert (cold.verdict, hot.verdict) == (WARNING, OK), (cold, hot)


async def test_backup(examine: Examine, tmp_path: Path) -> None:
    """By the age of the stamp, named by the setting or by the option."""
    stamp = tmp_path / "stamp"
    stamp.touch()
    for hours, verdict in ((1, OK), (30, WARNING), (24 * 8, FAILURE), (-5, FAILURE)):
        at = time.time() - 3600 * hours
        os.utime(stamp, (at, at))
        assert (await examine("host.backup", backup_stamp=str(stamp))).finding.verdict is verdict
        assert (await examine("host.backup", more={"ROTA_BACKUP_STAMP": str(stamp)})).finding.verdict is verdict


async def test_disk(own: OwnDatabase, examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to be seen by the server's login; by one that may know where the data is, by its share."""
    assert (await examine("host.disk")).finding.verdict is SKIPPED
    more = {"ROTA_DATABASE_URL": own.owner}
    for share, verdict in ((0.0, OK), (1.1, WARNING)):
        monkeypatch.setattr(checks_trail, "FREE_SHARE", share)
        monkeypatch.setattr(checks_trail, "FREE_SHARE_FAILURE", 0.0)
        assert (await examine("host.disk", more=more)).finding.verdict is verdict


async def test_open_files(examine: Examine) -> None:
    """Fewer than the streams that are allowed, or enough."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most in {resource.RLIM_INFINITY, -1} or most > 100_000:
        pytest.skip("this host has no limit worth the name")
    many, few = ({"ROTA_STREAMS_PER_CLIENT": number} for number in ("100000", "10"))
    assert (await examine("host.files", more=many)).finding.verdict is WARNING
    assert (await examine("host.files", more=few)).finding.verdict is OK
