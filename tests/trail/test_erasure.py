"""A person is forgotten: nothing of theirs is left, and every proof is what it was."""

import asyncio
import hmac
import json
from uuid import uuid4

import asyncpg
import pytest

from app.domain.entries import commit, event_salt, personal_data
from app.domain.errors import InvalidCredentials, RefreshTokenRejected, Unavailable, UserNotFound
from app.domain.events import SYSTEM, Actor, ActorKind
from app.services.erasure import Erasure
from tests.conftest import PASSWORD, OwnDatabase, client_at
from tests.trail.conftest import Log

HERS = "198.51.100.77"


async def everything(sql: asyncpg.Connection) -> str:
    """All tables, as text."""
    tables = await sql.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    )
    return "\n".join([str(await sql.fetch(f"SELECT * FROM {table[0]}")) for table in tables])


@pytest.mark.case(89)
async def test_nothing_is_left_and_every_proof_stays(log: Log, own_sql: asyncpg.Connection) -> None:
    """
    Account, sessions, trail: no name, address or agent remains, whoever's subject the event was; entries and proofs,
    hers and others', are byte for byte the same; the bundle verifies and says that she was erased.
    """
    ada, ben = await log.person("ada.lovelace"), await log.live("ben", 3)
    issued = await ada.sign_in(client=client_at(HERS, "Adas-Engine/1.0"))
    issued = await log.services.refresh.rotate(
        issued.refresh_token, idempotency_key=None, client=client_at(HERS, "Adas-Engine/1.0")
    )
    for _ in range(8):
        with pytest.raises(InvalidCredentials):
            await log.services.sign_in.with_password("ada.lovelace", "wrong password", client=client_at(HERS))
    acting = Actor(ActorKind.ADMIN, ada.user.id)
    await log.services.users.disable(ben.user.id, actor=acting, client=client_at(HERS, "Adas-Engine/1.0"))
    await log.publish()
    ids = [row[0] for row in await own_sql.fetch("SELECT id FROM audit_events ORDER BY seq")]
    before = [(await log.services.proofs.prove(event)).text() for event in ids]
    events = await log.services.erasure.erase(ada.user.id, "ticket 4711", actor=SYSTEM, client=client_at())
    assert events > 9
    # Failures are counted by address, whosever they are, for half an hour at most.
    await own_sql.execute("UPDATE address_throttle SET full_at = now() - interval '1 second'")
    await log.services.housekeeping.remove_old_throttles()

    left = await everything(own_sql)
    for trace in (HERS, "Adas-Engine", "ada.lovelace"):
        assert trace not in left
    assert [(await log.services.proofs.prove(event)).text() for event in ids] == before
    assert "203.0.113.7" in left, "Ben's are still there"
    with pytest.raises(RefreshTokenRejected):
        await log.services.refresh.rotate(issued.refresh_token, idempotency_key=None, client=client_at(HERS))
    assert HERS not in await everything(own_sql), "nothing new is kept of her"
    await log.publish()
    report = log.verify(await log.export())
    assert (report.findings, report.erased) == ([], events)
    assert await log.services.trail.find_person("ada.lovelace") is None
    reconciled = await log.services.reconciliation.run(
        progress=lambda _done, _total: None, actor=SYSTEM, client=client_at()
    )
    assert reconciled.differences == []


async def test_it_can_be_broken_off_and_run_again(
    log: Log, own_sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In small pages, killed after the first: the same command goes on, and the end is the same."""
    monkeypatch.setattr("app.services.erasure.BATCH", 7)
    ada = await log.live("ada", 40)
    await log.publish()
    honest, calls = Erasure._replace_page, 0

    async def dies(*arguments: object, **more: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Unavailable(why="killed")
        return await honest(*arguments, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Erasure, "_replace_page", dies)
        with pytest.raises(Unavailable):
            await log.services.erasure.erase(ada.user.id, "ticket 1", actor=SYSTEM, client=client_at())
    some = await own_sql.fetchval("SELECT count(*) FROM audit_events WHERE commitment IS NOT NULL")
    assert 0 < some < 41
    await log.services.erasure.erase(ada.user.id, "ticket 1", actor=SYSTEM, client=client_at())
    assert await own_sql.fetchval("SELECT count(*) FROM audit_salts WHERE subject_id = $1", ada.user.id) == 0
    await log.publish()
    assert log.verify(await log.export()).exit_code == 0


async def test_erased_while_it_is_sealed(log: Log, own_sql: asyncpg.Connection) -> None:
    """Sealer and erasure at once, again and again: no leaf depends on which was first."""
    for turn in range(6):
        person = await log.live(f"person-{turn}", 30)
        await asyncio.gather(
            log.services.erasure.erase(person.user.id, "ticket 2", actor=SYSTEM, client=client_at()),
            log.seal(),
            log.seal(),
        )
    await log.publish()
    report = log.verify(await log.export())
    assert (report.findings, report.exit_code) == ([], 0)
    assert await own_sql.fetchval("SELECT count(*) FROM audit_events WHERE ip IS NOT NULL") == 0


def test_the_salt_is_an_hmac() -> None:
    """HMAC-SHA256 of the event's id under the person's salt, as the standard library computes it."""
    for salt in (bytes(32), bytes(range(32)), b"\xff" * 32):
        event = uuid4()
        assert event_salt(salt, event) == hmac.digest(salt, event.bytes, "sha256")


@pytest.mark.case(90)
async def test_a_commitment_tells_nothing_without_its_salt() -> None:
    """The address space is small: without the salt, trying all of it finds no match."""
    salt = bytes(range(32))
    hidden = commit(salt, personal_data("10.0.7.9", None))
    guesses = (
        commit(bytes(32), personal_data(f"10.0.{third}.{fourth}", None)) for third in range(16) for fourth in range(256)
    )
    assert hidden not in set(guesses)
    assert hidden == commit(salt, personal_data("10.0.7.9", None))


async def test_only_the_maintenance_role_may(log: Log, own: OwnDatabase) -> None:
    """With the server's login alone it is refused before anything changed."""
    ada = await log.live("ada", 1)
    services = log.make(url=own.app)
    with pytest.raises(Exception) as refused:
        await services.erasure.erase(ada.user.id, "ticket 3", actor=SYSTEM, client=client_at())
    assert not isinstance(refused.value, UserNotFound)
    await ada.sign_in()
    with pytest.raises(UserNotFound):
        await log.services.erasure.erase(uuid4(), "ticket 4", actor=SYSTEM, client=client_at())


@pytest.mark.case(93)
async def test_a_flood_of_failures_is_summed_up_exactly(log: Log, own_sql: asyncpg.Connection) -> None:
    """Five events of a minute for those that are alike, then one sum; unknown names only as their keyed hash."""
    await log.person("ada")
    for number in range(40):
        await own_sql.execute("TRUNCATE login_throttle, address_throttle")  # as if nobody limited guesses
        with pytest.raises(InvalidCredentials):
            await log.services.sign_in.with_password("ada", "wrong password", client=client_at("192.0.2.1"))
        stranger = client_at(f"2001:db8:0:1::{number + 1:x}")
        with pytest.raises(InvalidCredentials):
            await log.services.sign_in.with_password(f"unknown-{number}", PASSWORD, client=stranger)
    await own_sql.execute("UPDATE login_failures SET minute = minute - interval '2 minutes'")
    await log.services.housekeeping.sum_up_login_failures()
    rows = await own_sql.fetch("SELECT * FROM audit_events WHERE action = 'login.failed' ORDER BY seq")
    single = [row for row in rows if row["reason"] != "rolled_up"]
    summed = sum(json.loads(row["detail"])["count"] for row in rows if row["reason"] == "rolled_up")
    assert len(single) + summed == 80
    assert len(rows) <= 24, "a new minute may have begun"
    assert "unknown-" not in str(rows)
    assert {str(row["ip"]) for row in rows if row["reason"] == "rolled_up"} <= {"192.0.2.1", "2001:db8:0:1::"}
    assert await own_sql.fetchval("SELECT count(*) FROM login_failures") == 0
    await log.publish()
    assert log.verify(await log.export()).exit_code == 0
