"""The outbox: written with the change or not at all, read until it is acknowledged, gone with the person."""

import asyncio
import json
from uuid import UUID

import asyncpg
import pytest

from app.domain.errors import InvalidCredentials, PasswordRefused, UsernameTaken
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.notifications import KEPT, NotificationKind
from app.domain.user_changes import UserChange
from app.services.acting import Acting
from app.services.authentication import Caller
from tests.conftest import PASSWORD, MakeServices, OwnDatabase, Person, client_at
from tests.passwords.conftest import Office, make_mailer

NEW = "a wholly different phrase"
BY = Acting(SYSTEM, NO_CLIENT)


async def kinds(sql: asyncpg.Connection, person: Person) -> list[str]:
    rows = await sql.fetch("SELECT kind FROM notifications WHERE user_id = $1 ORDER BY id", person.user.id)
    return [row["kind"] for row in rows]


async def change(person: Person, current: str, new: str) -> int:
    pair = await person.sign_in()
    caller: Caller = await person.services.authentication.authenticate(pair.access_token)
    return await person.services.password_change.change(caller, current=current, new=new, client=client_at())


async def test_what_people_are_told(office: Office) -> None:
    """Each change of a password and of a name, and nothing else: not what was refused, not what was so already."""
    person = await office.person()
    with pytest.raises(PasswordRefused):
        await change(person, PASSWORD, "passwordpassword1")
    with pytest.raises(InvalidCredentials):
        await change(person, "not the current one", NEW)
    users, credentials = office.services.users, office.services.credentials
    with pytest.raises(UsernameTaken):
        await users.change(person.user.id, UserChange(username="root"), by=BY)
    await users.change(person.user.id, UserChange(username=person.username), by=BY)
    issued, _ = await credentials.reset(person.user.id, forget=False, by=BY)
    assert await kinds(office.sql, person) == []
    await change(person, PASSWORD, NEW)
    assert await kinds(office.sql, person) == ["password_changed"]
    issued, _ = await credentials.reset(person.user.id, forget=True, by=BY)
    assert await kinds(office.sql, person) == ["password_changed"] * 2
    await credentials.redeem(issued.token, NEW, client=client_at())
    assert await kinds(office.sql, person) == ["password_changed"] * 3
    await users.change(person.user.id, UserChange(username="augusta"), by=BY)
    assert await kinds(office.sql, person) == ["password_changed"] * 3 + ["username_changed"]


async def test_no_change_without_its_notification(office: Office) -> None:
    """ASVS 6.3.7: if the outbox cannot be written, the password stays what it was."""
    person = await office.person()
    await office.sql.execute("ALTER TABLE notifications ADD CONSTRAINT shut CHECK (false) NOT VALID")
    with pytest.raises(Exception, match="shut"):
        await change(person, PASSWORD, NEW)
    with pytest.raises(Exception, match="shut"):
        await office.services.users.change(person.user.id, UserChange(username="augusta"), by=BY)
    with pytest.raises(Exception, match="shut"):
        await office.services.credentials.reset(person.user.id, forget=True, by=BY)
    await office.sql.execute("ALTER TABLE notifications DROP CONSTRAINT shut")
    assert await person.sign_in()
    assert await office.events(person.user.id) == []


async def test_a_row_holds_nothing_of_the_person(office: Office) -> None:
    """An id, a kind, a time: no name, address or agent that would have to be erased."""
    person = await office.person("ada@engines.example.com")
    await change(person, PASSWORD, NEW)
    (row,) = map(dict, await office.sql.fetch("SELECT * FROM notifications"))
    assert set(row) == {"user_id", "id", "kind", "created_at"}
    text = json.dumps(row, default=str)
    assert not any(word in text for word in ("ada", "engines", "203.0.113.7", "Mozilla", NEW))


@pytest.mark.parametrize("way", ["delete", "erase"])
async def test_nobody_is_told_who_has_gone(office: Office, way: str) -> None:
    """With the deletion or erasure of a person go their notifications, and only theirs."""
    gone, stays = await office.person(), await office.person()
    for person in (gone, stays):
        await change(person, PASSWORD, NEW)
    if way == "delete":
        await office.services.users.delete(gone.user.id, by=BY)
    else:
        await office.services.erasure.erase(gone.user.id, "ticket 4711", actor=SYSTEM, client=NO_CLIENT)
    assert await kinds(office.sql, gone) == []
    assert await kinds(office.sql, stays) == ["password_changed"]


async def test_what_an_older_release_left_behind_is_not_handed_out(office: Office) -> None:
    """One that does not know the outbox deletes people without emptying it."""
    person = await office.person()
    await change(person, PASSWORD, NEW)
    await office.sql.execute(
        "UPDATE users SET username_key = NULL, disabled_at = now(), deleted_at = now() WHERE id = $1", person.user.id
    )
    assert await office.services.notifications.list_pending(after=None, limit=10) == ([], None)


async def test_one_that_commits_late_is_not_missed(
    own: OwnDatabase, make_services: MakeServices, office: Office
) -> None:
    """A mailer that has emptied the outbox finds a notification that was made before those, and committed after."""
    person, slow = await office.person(), make_services(office.clock, own.app)
    mailer = await make_mailer(office)
    async with slow.database.begin() as db:
        await db.notifications.add(person.user.id, NotificationKind.SIGNED_IN_AFTER_FAILURES, now=await db.now())
        await change(person, PASSWORD, NEW)
        page = await mailer.get()
        assert [each["kind"] for each in page["items"]] == ["password_changed"]
        assert await mailer.acknowledge(page["items"][0]["id"]) == 1
        assert (await mailer.get())["items"] == []
        await db.commit()
    assert [each["kind"] for each in (await mailer.get())["items"]] == ["signed_in_after_failures"]


async def test_two_mailers_at_once(own: OwnDatabase, make_services: MakeServices, office: Office) -> None:
    """Both may tell the same (at least once); of two acknowledgements of one, one counts, in any order."""
    person = await office.person()
    async with office.services.database.begin() as db:
        for _ in range(60):
            await db.notifications.add(person.user.id, NotificationKind.PASSWORD_CHANGED, now=await db.now())
        await db.commit()
    one, other = make_services(office.clock, own.app), make_services(office.clock, own.app)
    found, _ = await one.notifications.list_pending(after=None, limit=100)
    assert (await other.notifications.list_pending(after=None, limit=100))[0] == found
    ids = [each.id for each in found]
    done = await asyncio.gather(
        *(
            services.notifications.acknowledge(order, actor=SYSTEM, client=NO_CLIENT)
            for services in (one, other)
            for order in (ids, ids[::-1], ids[20:] + ids[:20])
        )
    )
    assert sum(done) == 60
    assert await office.sql.fetchval("SELECT count(*) FROM notifications") == 0
    events = await office.events(person.user.id, "notification.acknowledged")
    assert len({json.loads(event["detail"])["notification"] for event in events}) == len(events) == 60


async def test_what_nobody_fetches_is_removed(office: Office) -> None:
    """After thirty days it is no news any more; that it was never told is an event."""
    old, new = await office.person(), await office.person()
    await change(old, PASSWORD, NEW)
    office.clock.advance(days=KEPT.days - 1)
    await change(new, PASSWORD, NEW)
    assert (await office.services.notifications.remove_old()).rows == 0
    office.clock.advance(days=1, seconds=1)
    done = await office.services.notifications.remove_old()
    assert (done.rows, done.more) == (1, False)
    assert (await kinds(office.sql, old), await kinds(office.sql, new)) == ([], ["password_changed"])
    (detail,) = await office.sql.fetch("SELECT detail FROM audit_events WHERE action = 'notification.removed'")
    assert json.loads(detail["detail"])["count"] == 1


async def test_the_server_may_not_rewrite_what_is_to_be_told(own: OwnDatabase, office: Office) -> None:
    """Its role adds and removes rows; whom and when they are about it cannot change."""
    person = await office.person()
    await change(person, PASSWORD, NEW)
    app = await asyncpg.connect(own.app)
    try:
        await app.execute("SET ROLE rota_app")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute("UPDATE notifications SET user_id = $1", UUID(int=1))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute("TRUNCATE notifications")
        with pytest.raises(asyncpg.CheckViolationError):
            await app.execute("UPDATE notifications SET kind = 'anything'")
    finally:
        await app.close()


async def test_the_outbox_is_read_and_emptied_by_its_index(office: Office) -> None:
    """However many wait, a page and an acknowledgement read as many rows as they name."""
    await office.sql.execute(
        "INSERT INTO notifications SELECT gen_random_uuid(), gen_random_uuid(), 'password_changed', now() "
        "FROM generate_series(1, 20000)"
    )
    await office.sql.execute("ANALYZE notifications")
    for statement in (
        "SELECT * FROM notifications ORDER BY id LIMIT 100",
        "SELECT * FROM notifications WHERE id = ANY (ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 100)))",
    ):
        plan = "\n".join(row[0] for row in await office.sql.fetch(f"EXPLAIN {statement}"))
        assert "ix_notifications_id" in plan
        assert "Seq Scan on notifications" not in plan
