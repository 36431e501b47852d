"""Numbers: each event is counted exactly once, and what is answered is what happened."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest
import pytest_asyncio

from app.container import Container
from app.domain.errors import RotaError
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.stats import Width, read_span
from app.domain.users import Role
from app.main import create_app
from app.services import stats as stats_module
from app.services.stats_check import Recounted
from app.services.throttling import account_digest
from tests.conftest import PASSWORD, MakeServices, MovableClock, OwnDatabase, Person, client_at

Answer = dict[str, Any]


@pytest.fixture
def own_services(make_services: MakeServices, own: OwnDatabase, clock: MovableClock) -> Container:
    """Services over a database of the test's own, at the beginning of an hour."""
    clock.time = clock.time.replace(minute=0, second=1, microsecond=0)
    return make_services(clock, own.app, maintenance_database_url=own.maintenance)


async def person(services: Container, name: str) -> Person:
    user = await services.users.create(name, PASSWORD, role=Role.USER, actor=None, client=client_at())
    return Person(services, user, name)


async def fail(services: Container, name: str, address: str, times: int = 1) -> None:
    """So often, as if nobody limited guesses: what was counted of them is forgotten each time."""
    for _ in range(times):
        async with services.database.begin() as db:
            await db.throttles.clear(account_digest(services.throttling._keyring, name))
            await db.commit()
        with pytest.raises(RotaError):
            await services.sign_in.with_password(name, "wrong password", client=client_at(address))


async def count(services: Container) -> int:
    """Count all there is; how many events."""
    counted = 0
    for _ in range(500):
        done = await services.stats.count()
        counted += done.rows
        async with services.database.begin() as db:
            if not done.busy and not (await db.stats.get_standing()).waiting:
                return counted
        await asyncio.sleep(0.01)  # a transaction of some other test holds the horizon back
    raise AssertionError("something keeps events from being counted")


async def check(services: Container) -> Recounted:
    return await services.stats_check.run(lambda _done, _total: None)


async def answer(services: Container, **options: Any) -> Any:
    return await services.stats.answer(
        options.get("since"),
        options.get("until"),
        options.get("width", Width.HOUR),
        actor=SYSTEM,
        client=NO_CLIENT,
    )


async def test_what_happened_is_what_is_answered(own_services: Container, clock: MovableClock) -> None:
    """Each number by itself: sign-ins, refreshes, reuse, failures, ends by reason, in the hour in which it was."""
    services = own_services
    first_hour = clock.time.replace(second=0)
    ada, ben = await person(services, "ada"), await person(services, "ben")
    one = await ada.sign_in()
    two = await ada.refresh((await ada.refresh(one.refresh_token)).refresh_token)
    clock.advance(minutes=30)
    with pytest.raises(RotaError):
        await ada.refresh(one.refresh_token)  # reuse, and the end of the session
    clock.advance(minutes=40)
    issued = await ben.sign_in()
    await ben.sign_in()
    await services.sessions.log_out_with_refresh_token(issued.refresh_token, client=client_at())
    with pytest.raises(RotaError):
        await ada.refresh(two.refresh_token)
    await fail(services, "ben", "198.51.100.9", 3)
    await count(services)
    found = await answer(services)
    by_start = dict(found.buckets)
    early, late = by_start[first_hour], by_start[first_hour + timedelta(hours=1)]
    assert (early.sign_ins, early.refreshes, early.reuse_detections, early.failures) == (1, 2, 1, 1)
    assert early.ends == {"reuse": 1}
    assert (late.sign_ins, late.refreshes, late.reuse_detections, late.failures) == (2, 0, 0, 4)
    assert late.failures_by_action == {"login.failed": 3, "refresh.refused": 1}
    assert late.ends == {"logout": 1}
    assert (found.totals.sign_ins, found.totals.failures, found.totals.ends) == (3, 5, {"logout": 1, "reuse": 1})
    assert (found.active.sessions, found.active.users, found.active.is_exact) == (1, 1, True)
    assert found.addresses.items == [("198.51.100.9", 3), ("203.0.113.7", 2)]
    assert [count for _, count in found.agents.items] == [5]
    assert found.waiting == 0
    by_day = await answer(services, width=Width.DAY)
    assert by_day.totals == found.totals
    assert (await check(services)).differences == []


async def test_sums_count_as_often_as_they_say(own_services: Container, clock: MovableClock) -> None:
    """Forty alike failures are five events and a sum of thirty-five: forty failures, from that address."""
    await person(own_services, "ada")
    await fail(own_services, "ada", "2001:db8::1", 20)
    await fail(own_services, "ada", "2001:db8::2", 20)  # of the same /64
    clock.advance(minutes=2)
    while await own_services.housekeeping.sum_up_login_failures():
        pass
    await count(own_services)
    found = await answer(own_services)
    assert found.totals.failures_by_action == {"login.failed": 40}
    assert found.addresses.items == [("2001:db8::/64", 40)]
    assert (await check(own_services)).differences == []


async def test_the_lapsed_are_not_active(own_services: Container, clock: MovableClock) -> None:
    """Whether or not their ends are written; and the answer says until when they are."""
    ada, ben = await person(own_services, "ada"), await person(own_services, "ben")
    await ada.sign_in()
    clock.advance(days=4)
    await ada.sign_in()
    await ben.sign_in()
    clock.advance(days=4)
    await count(own_services)
    before = (await answer(own_services)).active
    assert (before.sessions, before.users, before.lapsed, before.ends_written_until) == (2, 2, 1, None)
    clock.advance(days=4)
    assert (await answer(own_services)).active.users == 0
    while await own_services.housekeeping.end_lapsed_sessions():
        pass
    await count(own_services)
    after = (await answer(own_services)).active
    assert (after.sessions, after.users, after.lapsed) == (0, 0, 0)
    assert (await check(own_services)).differences == []


async def test_nothing_is_counted_twice_or_never_beside_writers(
    own: OwnDatabase, make_services: MakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four processes count in small batches while sixteen clients write, some cancelled; then all is recounted."""
    monkeypatch.setattr(stats_module, "BATCH", 7)
    writers = make_services(url=own.app)
    counters = [make_services(url=own.app) for _ in range(4)]
    people = [await person(writers, f"person-{number}") for number in range(4)]
    stop = asyncio.Event()

    async def live(somebody: Person) -> None:
        for _ in range(3):
            issued = await somebody.sign_in()
            for _ in range(8):
                issued = await somebody.refresh(issued.refresh_token)
            await writers.sessions.log_out_with_refresh_token(issued.refresh_token, client=client_at())

    async def counting(services: Container) -> None:
        while not stop.is_set():
            task = asyncio.create_task(services.stats.count())
            await asyncio.sleep(0)
            if id(task) % 3 == 0:
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    tasks = [asyncio.create_task(counting(services)) for services in counters]
    await asyncio.gather(*(live(somebody) for somebody in people for _ in range(4)))
    stop.set()
    await asyncio.gather(*tasks)
    await count(counters[0])
    found = await answer(writers)
    assert (found.totals.sign_ins, found.totals.refreshes, found.totals.ends) == (48, 384, {"logout": 48})
    assert (found.active.sessions, found.active.users) == (0, 0)
    assert (await check(writers)).differences == []


async def test_an_event_that_commits_late_is_counted(
    own: OwnDatabase, own_sql: asyncpg.Connection, own_services: Container
) -> None:
    """A transaction that began before others have committed and been looked at: they wait for it, none is lost."""
    slow = await asyncpg.connect(own.owner)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute(
        "INSERT INTO audit_events (id, occurred_at, action, version, outcome, actor_kind, subject_id, detail)"
        " VALUES (gen_random_uuid(), $1, 'user.created', 1, 'success', 'system', gen_random_uuid(), '{}')",
        own_services.clock.on_host(),
    )
    await person(own_services, "ada")
    assert (await own_services.stats.count()).rows == 0  # the entry into the epoch, and nothing below the horizon
    assert (await own_services.stats.count()).rows == 0
    assert (await answer(own_services)).waiting == 1
    await transaction.commit()
    await slow.close()
    assert await count(own_services) == 3  # with the answer's own event
    assert await own_sql.fetchval("SELECT sum(count) FROM stat_counts WHERE width = 'hour'") == 3
    assert (await check(own_services)).differences == []


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ("UPDATE stat_counts SET count = count + 1 WHERE width = 'hour' AND action = 'session.refreshed'", "counted"),
        ("UPDATE stat_counts SET count = count - 1 WHERE width = 'day' AND action = 'session.ended'", "its hours"),
        ("DELETE FROM stat_counts WHERE width = 'hour' AND action = 'session.created'", "0 counted"),
        ("INSERT INTO stat_counts VALUES ('hour', '2024-02-03 04:00Z', 'login.failed', 'failure', '', 9)", "0 by the"),
        ("UPDATE stat_sources SET count = count + 1 WHERE width = 'hour' AND kind = 'address'", "by the trail"),
        ("UPDATE stat_sources SET value = 'x' WHERE width = 'day' AND kind = 'agent'", "its hours"),
        ("UPDATE stat_users SET open = open + 1", "live sessions"),
        ("DELETE FROM stat_users", "live sessions"),
        ("UPDATE stat_positions SET open_sessions = 7", "users' counts make 1"),
        ("UPDATE stat_positions SET open_users = 7", "users' counts make 1"),
        ("UPDATE families SET ended_at = now(), end_reason = 'admin', ended_xact = '9' WHERE ended_at IS NULL", "live"),
    ],
)
async def test_a_difference_is_found(
    own_services: Container, own_sql: asyncpg.Connection, harm: str, says: str
) -> None:
    """Whatever count is changed behind the product's back, the recount names it; before, it names none."""
    ada = await person(own_services, "ada")
    issued = await ada.sign_in()
    await ada.refresh((await ada.sign_in()).refresh_token)
    await own_services.sessions.log_out_with_refresh_token(issued.refresh_token, client=client_at())
    await fail(own_services, "ada", "198.51.100.9")
    await count(own_services)
    assert (await check(own_services)).differences == []
    await own_sql.execute(harm)
    differences = (await check(own_services)).differences
    assert any(says in what for _, what in differences), differences


async def test_erasure_reaches_the_counts_by_address(
    own_services: Container, own_sql: asyncpg.Connection, clock: MovableClock
) -> None:
    """The person's addresses and agents go, those of others from the same place stay, and the recount still agrees."""
    ada = await person(own_services, "ada")
    await person(own_services, "ben")
    await fail(own_services, "ada", "192.0.2.1", 7)
    await fail(own_services, "ada", "192.0.2.2", 2)
    await fail(own_services, "ben", "192.0.2.2", 1)
    clock.advance(minutes=2)
    await own_services.housekeeping.sum_up_login_failures()
    await count(own_services)
    await fail(own_services, "ada", "192.0.2.3", 1)  # not counted before the erasure
    assert (await answer(own_services)).addresses.items == [("192.0.2.1", 7), ("192.0.2.2", 3)]
    await own_services.erasure.erase(ada.user.id, "ticket 1", actor=SYSTEM, client=NO_CLIENT)
    await count(own_services)
    found = await answer(own_services)
    assert found.addresses.items == [("192.0.2.2", 1)]
    assert found.totals.failures == 11
    held = await own_sql.fetch("SELECT DISTINCT value FROM stat_sources WHERE kind = 'address'")
    assert {row["value"] for row in held} == {"", "192.0.2.2"}
    assert (await check(own_services)).differences == []


async def test_old_sources_go(own_services: Container, own_sql: asyncpg.Connection) -> None:
    """Counts by address and agent are kept 400 days and no longer; the counts by hour and day stay."""
    await own_sql.execute(
        "INSERT INTO stat_sources SELECT w, k, date_trunc('day', now()) - d * interval '1 day', 'x', 1"
        " FROM unnest(ARRAY['hour', 'day']) w, unnest(ARRAY['address', 'agent']) k, generate_series(395, 405) d"
    )
    assert (await own_services.stats.remove_old_sources()).rows == 20
    oldest = await own_sql.fetchval("SELECT now() - min(start) FROM stat_sources")
    assert timedelta(days=400) <= oldest < timedelta(days=402)


async def test_counting_goes_on_in_a_further_epoch(own_services: Container, own_sql: asyncpg.Connection) -> None:
    """After a restore the trail has a further incarnation: what is left of the former one is counted first."""
    ada = await person(own_services, "ada")
    while await own_services.sealing.seal():
        pass
    await count(own_services)
    await ada.sign_in()
    await own_sql.execute("SELECT audit_open_epoch(2::smallint, 'example.com/epoch-2', '{}', sha256(''))")
    await ada.sign_in()
    await count(own_services)
    assert await own_sql.fetchval("SELECT epoch FROM stat_positions") == 2
    assert (await answer(own_services)).active.sessions == 2
    assert (await check(own_services)).differences == []


async def test_a_copy_in_another_cluster_is_noticed(own_services: Container, own_sql: asyncpg.Connection) -> None:
    """Where transaction ids have begun anew, counting says so and does not stand still in silence."""
    await person(own_services, "ada")
    await count(own_services)
    await own_sql.execute("UPDATE stat_positions SET xact = '9000000000000000000'")
    with pytest.raises(RotaError, match="another cluster"):
        await own_services.stats.count()


@pytest_asyncio.fixture
async def http(own_services: Container, clock: MovableClock) -> AsyncIterator[httpx2.AsyncClient]:
    """The API over the test's own database, as an auditor."""
    await own_services.users.create("auditor", PASSWORD, role=Role.AUDITOR, actor=None, client=client_at())
    app = create_app(own_services.settings, clock)
    transport = httpx2.ASGITransport(app, client=("198.51.100.1", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as client:
        tokens = (await client.post("/token", data={"username": "auditor", "password": PASSWORD})).json()
        client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        yield client
    await app.state.container.close()


async def test_over_http(
    own_services: Container, http: httpx2.AsyncClient, own_sql: asyncpg.Connection, clock: MovableClock
) -> None:
    """Every bucket of the range stands, each part says as of when it is, and that somebody asked is an event."""
    await count(own_services)
    found: Answer = (await http.get("/admin/stats")).json()
    assert found["active"] == {
        "as_of": found["as_of"],
        "sessions": 1,
        "users": 1,
        "lapsed": 0,
        "is_exact": True,
        "ends_written_until": None,
    }
    series = found["series"]
    assert [series["as_of"], found["failure_sources"]["as_of"]] == [found["as_of"]] * 2
    assert datetime.fromisoformat(found["as_of"]) == clock.time
    assert len(series["items"]) == 24
    assert datetime.fromisoformat(series["to"]) - datetime.fromisoformat(series["from"]) == timedelta(hours=24)
    assert series["items"][-1]["sign_ins"] == series["totals"]["sign_ins"] == 1
    asked = await own_sql.fetchrow("SELECT * FROM audit_events WHERE action = 'admin.queried'")
    assert asked is not None
    assert json.loads(asked["detail"])["what"] == "stats"
    assert asked["ip"] is not None


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"bucket": "minute"}, "bucket"),
        ({"bucket": ""}, "bucket"),
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-13-01"}, "to"),
        ({"from": "2026-11-02", "to": "2026-11-01"}, "from"),
        ({"from": "2026-10-01", "to": "2026-11-05"}, "from"),
        ({"from": "2025-01-01", "to": "2026-11-05", "bucket": "day"}, "from"),
        ({"from": "1969-12-31"}, "from"),
        ({"to": "9999-12-31T23:59:59Z"}, "to"),
        ({"to": "0001-01-01T00:00:00+14:00"}, "to"),
        ({"from": "2100-01-01"}, "from"),
        ({"limit": "3"}, "query"),
    ],
    ids=str,
)
async def test_a_wrong_range_is_named(http: httpx2.AsyncClient, parameters: dict[str, str], field: str) -> None:
    """422, and which parameter it is; never what was sent."""
    answer = await http.get("/admin/stats", params=parameters)
    assert answer.status_code == 422
    assert field in answer.text


@pytest.mark.parametrize(
    ("parameters", "buckets"),
    [
        ({"from": "2026-10-01T00:30", "to": "2026-10-31T23:30"}, 31 * 24),
        ({"from": "2025-10-01", "to": "2026-11-04", "bucket": "day"}, 400),
        ({"from": "2026-11-01T10:59:59.999999", "to": "2026-11-01T11:00:00"}, 2),
        ({"from": "2026-11-01T10:15:00", "to": "2026-11-01T10:15:00"}, 1),
        ({"from": "1970-01-01", "to": "1970-01-01T01:00:00"}, 2),
        ({"to": "1970-01-01T00:30:00"}, 1),
        ({"from": "2026-11-01T12:00:00+14:00", "to": "2026-11-01T12:00:00+14:00", "bucket": "day"}, 1),
    ],
    ids=str,
)
async def test_the_longest_and_the_shortest_range(
    http: httpx2.AsyncClient, parameters: dict[str, str], buckets: int
) -> None:
    """Whole buckets, those that hold any moment of the range."""
    answer = await http.get("/admin/stats", params=parameters)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["series"]["items"]) == buckets


async def test_who_may_ask(own_services: Container, http: httpx2.AsyncClient) -> None:
    """Auditors and administrators."""
    for name, role, status in (("root", Role.ADMIN, 200), ("plain", Role.USER, 403)):
        await own_services.users.create(name, PASSWORD, role=role, actor=None, client=client_at())
        tokens = (await http.post("/token", data={"username": name, "password": PASSWORD})).json()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        for path in ("/admin/stats", "/admin/jobs"):
            assert (await http.get(path, headers=headers)).status_code == status
    assert (await http.get("/admin/jobs", params={"x": "1"})).status_code == 422


async def test_the_largest_are_found_among_many(own_services: Container, own_sql: asyncpg.Connection) -> None:
    """More addresses than are read: the answer is right where it says so, and says where it cannot know."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    many = (
        "INSERT INTO stat_sources SELECT 'hour', 'address', $1::timestamptz - h * interval '1 hour', 'a' || n,"
        " 1 + (n = 5000)::int * 200 FROM generate_series(0, 2) h, generate_series(1, 9000) n"
    )
    await own_sql.execute(many, start)
    await own_sql.execute("ANALYZE stat_sources")
    span = read_span(start - timedelta(hours=2), start, Width.HOUR, now=start)
    async with own_services.database.begin() as db:
        found = await db.stats.list_top("address", span.pieces())
    assert found.items[0] == ("a5000", 603)
    assert not found.is_exact  # the other nine have as many as nearly everybody
    await own_sql.execute("UPDATE stat_sources SET count = 100 + n FROM generate_series(1, 9) n WHERE value = 'a' || n")
    async with own_services.database.begin() as db:
        found = await db.stats.list_top("address", span.pieces())
    assert found.is_exact
    assert found.items[1:] == [(f"a{n}", 3 * (100 + n)) for n in range(9, 0, -1)]
