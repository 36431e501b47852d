"""The trail and the tables tell the same, or the difference is named."""

import asyncpg
import pytest

from app.domain.events import NO_CLIENT, SYSTEM
from app.services.reconciliation import Reconciled
from tests.trail.conftest import Log
from tests.trail.test_bundles import disable_triggers


async def reconcile(log: Log) -> Reconciled:
    return await log.services.reconciliation.run(progress=lambda _done, _total: None, actor=SYSTEM, client=NO_CLIENT)


async def test_they_agree(log: Log) -> None:
    """Live, ended, disabled, enabled, reused."""
    ada = await log.live("ada", 5, end=True)
    await log.live("ben", 5)
    issued = await ada.sign_in()
    later = await ada.refresh(issued.refresh_token)
    await ada.refresh(later.refresh_token)
    with pytest.raises(Exception):  # noqa: B017 - refused, and the session ends
        await ada.refresh(issued.refresh_token)
    await log.services.users.disable(ada.user.id, actor=SYSTEM, client=NO_CLIENT)
    cleo = await log.live("cleo", 1)
    await log.services.users.disable(cleo.user.id, actor=SYSTEM, client=NO_CLIENT)
    await log.services.users.enable(cleo.user.id, actor=SYSTEM, client=NO_CLIENT)
    found = await reconcile(log)
    assert found.differences == []
    assert (found.users, found.sessions) == (3, 4)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ("UPDATE families SET generation = generation + 1", "by the table"),
        ("UPDATE families SET event_seq = event_seq + 1", "events, and counts"),
        (
            "UPDATE families SET ended_at = now(), end_reason = 'admin', ended_xact = '9' WHERE ended_at IS NULL",
            "ended by the trail: None",
        ),
        ("UPDATE families SET end_reason = 'admin' WHERE ended_at IS NOT NULL", "ended by the trail: logout"),
        ("DELETE FROM families", "has events, and no row"),
        ("DELETE FROM users", "has events, and no row"),
        ("UPDATE users SET disabled_at = now()", "is not disabled by the trail"),
        ("DELETE FROM audit_events WHERE family_id IS NOT NULL", "has a row, and no events"),
        ("DELETE FROM audit_events WHERE family_seq = 3", "is missing, though there is a later one"),
        ("DELETE FROM audit_events WHERE action = 'user.created'", "no event of its creation"),
        ("DELETE FROM audit_events WHERE action = 'session.ended'", "events, and counts"),
    ],
)
async def test_a_difference_is_named(log: Log, own_sql: asyncpg.Connection, harm: str, says: str) -> None:
    """Whatever was changed behind the product's back, in the trail or in the tables, sealed or not."""
    await log.live("ada", 5, end=True)
    await log.live("ben", 5)
    await disable_triggers(own_sql)
    await own_sql.execute(harm)
    assert any(says in what for _, what in (await reconcile(log)).differences)
