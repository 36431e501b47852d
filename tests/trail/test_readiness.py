"""If the trail cannot be written, nothing changes, and readiness says so."""

import asyncpg
import httpx2
import pytest

from app.domain.errors import Unavailable
from app.main import create_app
from app.services import housekeeping
from tests.trail.conftest import Log


@pytest.mark.parametrize(
    ("harm", "mend"),
    [
        ("REVOKE INSERT ON audit_events FROM rota_app", "GRANT INSERT ON audit_events TO rota_app"),
        ("ALTER TABLE audit_events RENAME TO away", "ALTER TABLE away RENAME TO audit_events"),
        (
            "ALTER TABLE audit_events ADD CONSTRAINT no_more CHECK (false) NOT VALID",
            "ALTER TABLE audit_events DROP CONSTRAINT no_more",
        ),
    ],
)
async def test_a_trail_that_cannot_be_written(
    log: Log, own_sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, harm: str, mend: str
) -> None:
    """Signing in fails and leaves no session; `/readyz` is 503; when it is mended, both are well again."""
    monkeypatch.setattr(housekeeping, "CHECK_SECONDS", 0)
    person = await log.person("ada")
    app = create_app(log.services.settings)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as http:
        assert (await http.get("/readyz")).status_code == 200
        await own_sql.execute(harm)
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "temporarily_unavailable")
        with pytest.raises(Exception):  # noqa: B017 - whatever it is called
            await person.sign_in()
        assert await own_sql.fetchval("SELECT count(*) FROM families") == 0
        await own_sql.execute(mend)
        assert (await http.get("/readyz")).status_code == 200
        await person.sign_in()
    await app.state.container.close()


async def test_asking_often_writes_seldom(log: Log, own_sql: asyncpg.Connection) -> None:
    """At most one attempt a second, however many ask; and what was tried is not in the trail."""
    before = int(await own_sql.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))
    for _ in range(50):
        await log.services.housekeeping.check_writable()
    after = int(await own_sql.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))
    assert after - before <= 3
    assert await own_sql.fetchval("SELECT count(*) FROM audit_events") == 0


async def test_a_database_that_is_away(log: Log) -> None:
    """Unavailable, not a crash."""
    services = log.make(url="postgresql://nobody@127.0.0.1:1/nowhere")
    with pytest.raises(Unavailable):
        await services.housekeeping.check_writable()


async def test_start_and_stop_are_events(log: Log, own_sql: asyncpg.Connection) -> None:
    """With the settings that are no secret, the ids of the keys, and nothing that is one."""
    await log.services.lifecycle.started()
    await log.services.lifecycle.stopped()
    rows = await own_sql.fetch("SELECT action, detail FROM audit_events ORDER BY seq")
    assert [row["action"] for row in rows] == ["server.started", "server.stopped"]
    assert '"audit_signing_key":true' in rows[0]["detail"]
    for secret in (log.settings["audit_signing_key"], log.own.app, "test-secret"):
        assert secret not in rows[0]["detail"]
