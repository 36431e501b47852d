"""Finding sessions over HTTP: what a filter finds, how pages join, and what is refused."""

import asyncio
import base64
import random
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.domain.events import ANONYMOUS, NO_CLIENT
from app.domain.families import EndReason
from app.domain.users import Role
from app.repositories import session_lists
from app.services import session_search
from tests.admin.found import Desk, Holds, Row, last_used, made_id, within
from tests.admin.found import desk as desk  # noqa: PLC0414 - a fixture
from tests.conftest import client_at


def filters(desk: Desk) -> dict[str, tuple[dict[str, Any], Holds]]:
    """Each filter by itself: how it is asked for, and what it must find."""
    now = desk.clock.time
    ada = next(row["user_id"] for row in desk.rows if row["username"] == "ada")
    early, late = now - timedelta(days=30), now - timedelta(days=5)
    return {
        **{f"state {state}": ({"state": state}, in_state(desk, state)) for state in ("active", "ended", "lapsed")},
        "user id": ({"user": str(ada)}, lambda row: row["user_id"] == ada),
        "user name": ({"user": "Ada_B"}, lambda row: row["username"] == "ada_b"),
        "prefix": ({"username_prefix": "ada"}, lambda row: row["username"].startswith("ada")),
        "prefix with _": ({"username_prefix": "ada_"}, lambda row: row["username"] == "ada_b"),
        "prefix with %": ({"username_prefix": "ben%"}, lambda row: row["username"] == "ben%"),
        "client": ({"client": "cli"}, lambda row: row["client_id"] == "cli"),
        "first-party": ({"client": "first-party"}, lambda row: row["client_id"] == "first-party"),
        "role": ({"role": "admin"}, lambda row: row["role"] == "admin"),
        "role user": ({"role": "user"}, lambda row: row["role"] == "user"),
        "ip": ({"ip": "203.0.113.7"}, lambda row: within(row, "203.0.113.7/32")),
        "cidr": ({"ip": "203.0.113.0/24"}, lambda row: within(row, "203.0.113.0/24")),
        "ipv6": ({"ip": "2001:db8::/32"}, lambda row: within(row, "2001:db8::/32")),
        "device": ({"device": "iPhone"}, lambda row: row["device"] == "iPhone"),
        "browser": ({"browser": "Chrome 131"}, lambda row: row["browser"] == "Chrome 131"),
        "any version": ({"browser": "Chrome"}, lambda row: row["browser"] in {"Chrome 130", "Chrome 131"}),
        "no version": ({"browser": "Firefox"}, lambda row: row["browser"] == "Firefox"),
        "os": ({"os": "Windows"}, lambda row: row["os"] in {"Windows 10", "Windows XP"}),
        "created": (
            {"created_from": early.isoformat(), "created_to": late.isoformat()},
            lambda row: early <= row["created_at"] <= late,
        ),
        "last used": (
            {"last_used_from": early.isoformat(), "last_used_to": late.isoformat()},
            lambda row: early <= last_used(row) <= late,
        ),
        "reason": ({"end_reason": "reuse"}, lambda row: row["end_reason"] == "reuse"),
        "ended by": ({"ended_by": "ada"}, lambda row: row["ended_by"] == ada),
    }


def in_state(desk: Desk, state: str) -> Holds:
    return lambda row: desk.state(row) == state


def all_of(conditions: list[Holds]) -> Holds:
    return lambda row: all(holds(row) for holds in conditions)


async def test_each_filter_finds_what_it_names_and_nothing_else(desk: Desk) -> None:
    """One by one, both ways, in pages of twenty: the same as the condition in Python over all rows."""
    await desk.make_rows(150)
    mine = await own_sessions(desk, desk.auditor.user.id)
    for name, (asked, holds) in filters(desk).items():
        for order in ("newest", "oldest"):
            found = await desk.all_pages(**asked, order=order, limit=20)
            others = [each for each in found if each not in mine]
            assert others == desk.expected(holds, newest_first=order == "newest"), (name, order)
            assert others, name


async def own_sessions(desk: Desk, user_id: UUID) -> set[str]:
    return {str(row["id"]) for row in await desk.sql.fetch("SELECT id FROM families WHERE user_id = $1", user_id)}


async def test_filters_together(desk: Desk) -> None:
    """All of two or three drawn at random must hold, whichever way into the table is taken."""
    await desk.make_rows(300)
    mine, dice = await own_sessions(desk, desk.auditor.user.id), random.Random(7)
    every, nonempty = filters(desk), 0
    for _ in range(80):
        drawn = dice.sample(sorted(every), dice.choice((2, 3)))
        asked = {name: value for each in drawn for name, value in every[each][0].items()}
        # Of two that ask for the same thing, the later one counts.
        last = {tuple(sorted(every[each][0])): each for each in drawn}
        if len({name for names in last for name in names}) != sum(len(names) for names in last):
            continue
        order = dice.choice(("newest", "oldest"))
        found = [each for each in await desk.all_pages(**asked, order=order, limit=20) if each not in mine]
        holds = all_of([every[each][1] for each in last.values()])
        wanted = desk.expected(holds, newest_first=order == "newest")
        assert found == wanted, (drawn, order)
        nonempty += bool(found)
    assert nonempty > 15


async def test_a_page_that_is_cut_short_says_so_and_loses_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no time to look, pages are short or empty, and together still all."""
    await desk.make_rows(300)
    monkeypatch.setattr(session_search, "LOOKS_MINIMUM", 0)
    monkeypatch.setattr(desk.services.session_search, "_look_seconds", 0.0)
    asked: dict[str, Any] = {"state": "active", "browser": "Safari", "os": "Windows", "limit": 2}
    pages: list[str] = []
    cut, after = 0, dict[str, str]()
    while True:
        page = await desk.ask(**asked, **after)
        pages += [item["id"] for item in page["items"]]
        assert page["cut_short"] == (page["next"] is not None and len(page["items"]) < 2)
        cut += page["cut_short"]
        if page["next"] is None:
            break
        after = {"after": page["next"]}

    def holds(row: Row) -> bool:
        right = row["browser"] == "Safari 17" and (row["os"] or "").startswith("Windows")
        return right and desk.state(row) == "active"

    assert pages == desk.expected(holds)
    assert cut >= 2


async def test_what_somebody_has_open_is_not_looked_for_among_what_has_ended(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many sessions of theirs have ended before: the first page is full, though there is no time to look."""
    await desk.make_rows(400)
    ada = next(row["user_id"] for row in desk.rows if row["username"] == "ada")
    long_ago = desk.clock.time - timedelta(days=100)
    await desk.sql.execute(
        "UPDATE families SET ended_at = $2, end_reason = 'logout', ended_xact = '3',"
        " id = overlay(id::text PLACING '0000' FROM 1 FOR 4)::uuid"
        " WHERE user_id = $1 AND (ended_at IS NOT NULL OR least(idle_expires_at, expires_at) <= $3)",
        ada,
        long_ago,
        desk.clock.time,
    )
    monkeypatch.setattr(session_search, "LOOKS_MINIMUM", 0)
    monkeypatch.setattr(desk.services.session_search, "_look_seconds", 0.0)
    expected = desk.expected(lambda row: row["user_id"] == ada and desk.state(row) == "active", newest_first=False)
    for user in ({"user": "ada"}, {"user": str(ada)}):
        page = await desk.ask(**user, state="active", order="oldest", limit=2)
        assert [item["id"] for item in page["items"]] == expected[:2]
        assert page["next"] is not None
        assert not page["cut_short"]


async def test_pages_join_while_sessions_start_and_end(desk: Desk) -> None:
    """Sessions that are there all the time are neither skipped nor repeated, both ways, whoever comes and goes."""
    await desk.make_rows(200)
    stable = {str(row["id"]) for row in desk.rows if row["ended_at"] is not None}
    goers = [row["id"] for row in desk.rows if row["ended_at"] is None]
    person, done = await desk.person("busy"), asyncio.Event()

    async def come_and_go() -> int:
        acts = 0
        while not done.is_set():
            await person.sign_in()
            if goers:
                gone = goers.pop()
                await desk.sql.execute(
                    "UPDATE families SET ended_at = now(), end_reason = 'admin', ended_xact = '3' WHERE id = $1", gone
                )
            acts += 1
        return acts

    task = asyncio.create_task(come_and_go())
    try:
        for order in ("newest", "oldest"):
            found = await desk.all_pages(order=order, limit=5)
            assert len(found) == len(set(found)), order
            assert stable <= set(found), order
            ended = await desk.all_pages(order=order, limit=5, state="ended")
            assert len(ended) == len(set(ended))
            assert stable <= set(ended)
    finally:
        done.set()
        assert await task > 5


async def test_by_last_use(desk: Desk) -> None:
    """A bounded set in order of last use, both ways, in pages; the cursor is a place in that order."""
    await desk.make_rows(120)
    rows = [row for row in desk.rows if row["username"] == "cleo"]
    in_order = [str(row["id"]) for row in sorted(rows, key=lambda row: (last_used(row), row["id"]))]
    assert await desk.all_pages(user="cleo", sort="last_used", order="oldest", limit=4) == in_order
    assert await desk.all_pages(user="cleo", sort="last_used", order="newest", limit=4) == in_order[::-1]


async def test_what_cannot_be_sorted_is_refused_with_advice(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """422 says how to narrow; one user, one address or a short range is narrow enough."""
    await desk.make_rows(120)
    monkeypatch.setattr(session_lists, "SORT_LIMIT", 60)
    refused = await desk.refused(422, sort="last_used")
    assert refused["code"] == "query_too_broad"
    assert all(word in refused["detail"] for word in ("user", "ip", "created_from", "last_used"))
    assert (await desk.refused(422, sort="last_used", state="ended"))["code"] == "query_too_broad"
    day = (desk.clock.time - timedelta(days=1)).isoformat()
    for narrow in ({"user": "ada"}, {"ip": "198.51.100.9"}, {"created_from": day}):
        await desk.ask(sort="last_used", **narrow)


async def test_any_address_that_a_session_was_used_from(desk: Desk) -> None:
    """By the trail: sign-in, refresh, and a thief's attempt; not the address of whoever ended it."""
    person = await desk.person("ada")
    first = await person.sign_in(client=client_at("203.0.113.1"))
    second = await person.refresh(first.refresh_token, address="198.51.100.2")
    await person.refresh(second.refresh_token, address="198.51.100.3")
    desk.clock.advance(minutes=5)
    with pytest.raises(Exception, match="not valid"):
        await person.refresh(first.refresh_token, address="192.0.2.66")
    other = await person.sign_in(client=client_at("203.0.113.9"))
    await desk.services.sessions.end(
        person.user.id,
        other.session_id,
        actor=ANONYMOUS,
        client=client_at("192.0.2.99"),
        reason=EndReason.ADMIN,
    )
    of_first, of_other = [str(first.session_id)], [str(other.session_id)]
    for address in ("203.0.113.1", "198.51.100.2", "198.51.100.3", "192.0.2.66"):
        assert await desk.all_pages(ip=address, ip_scope="any") == of_first, address
    assert await desk.all_pages(ip="198.51.100.0/24", ip_scope="any") == of_first
    assert await desk.all_pages(ip="203.0.113.0/24", ip_scope="any") == of_other + of_first
    assert await desk.all_pages(ip="203.0.113.0/24", ip_scope="any", state="active") == []
    assert await desk.all_pages(ip="192.0.2.99", ip_scope="any") == []
    assert await desk.all_pages(ip="198.51.100.2") == []


async def test_an_address_used_too_often_is_refused_with_advice(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trail is not read without end."""
    person = await desk.person("ada")
    for _ in range(5):
        await person.sign_in(client=client_at("203.0.113.1"))
    monkeypatch.setattr(session_lists, "USES_LIMIT", 4)
    refused = await desk.refused(422, ip="203.0.113.1", ip_scope="any")
    assert (refused["code"], "created_from" in refused["detail"]) == ("query_too_broad", True)


async def test_fields(desk: Desk) -> None:
    """Those of one's own list, with user, addresses, generation and time of authentication; no secret."""
    person = await desk.person("ada")
    issued = await person.sign_in(client=client_at("203.0.113.1"))
    await person.refresh(issued.refresh_token, address="198.51.100.2")
    (item,) = (await desk.ask(user="ada"))["items"]
    assert item["user"] == {"id": str(person.user.id), "username": "ada"}
    assert (item["first_ip"], item["last_ip"]) == ("203.0.113.1", "198.51.100.2")
    assert (item["generation"], item["role"], item["state"], item["current"]) == (1, "user", "active", False)
    assert item["authenticated_at"] == item["created_at"]
    assert not {"seed", "attempt", "password_hash"} & item.keys()
    (mine,) = (await desk.ask(user="auditor"))["items"]
    assert mine["current"] is True


BAD: dict[str, dict[str, str]] = {
    "state": {"state": "dead"},
    "user": {"user": "two words"},
    "username_prefix": {"username_prefix": "a"},
    "client": {"client": ""},
    "role": {"role": "root"},
    "ip": {"ip": "203.0.113.0/33"},
    "ip_scope": {"ip": "203.0.113.1", "ip_scope": "last"},
    "device": {"device": "x" * 201},
    "browser": {"browser": "a\0b"},
    "created_from": {"created_from": "yesterday"},
    "created_to": {"created_from": "2026-02-01", "created_to": "2026-01-01"},
    "last_used_from": {"last_used_from": "2026-02-30"},
    "last_used_to": {"last_used_to": "0000-01-01"},
    "end_reason": {"end_reason": "bored"},
    "sort": {"sort": "seed"},
    "order": {"order": "up"},
    "limit": {"limit": "501"},
    "after": {"after": "eA=="},
    "ip_scope ": {"ip_scope": "any"},
}


@pytest.mark.case(66)
@pytest.mark.parametrize(("field", "asked"), BAD.items(), ids=BAD)
async def test_what_is_wrong_is_named(desk: Desk, field: str, asked: dict[str, str]) -> None:
    """422, with the parameter's name."""
    refused = await desk.refused(422, **asked)
    named = [each["loc"][-1] for each in refused.get("errors", [])] + refused["detail"].split()
    assert field.strip() in [word.strip(".:,") for word in map(str, named)], refused


@pytest.mark.case(70)
async def test_unknown_and_repeated_parameters_are_refused(desk: Desk) -> None:
    """A misspelt filter must not widen the answer; of two values none is dropped unseen."""
    await desk.refused(422, users="ada")
    answer = await desk.http.get("/admin/sessions?state=active&state=ended")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["query", "state"]


@pytest.mark.case(68)
async def test_a_cursor_is_of_one_filter_and_order(desk: Desk) -> None:
    """Another filter, another order, another sort, a changed byte: 422."""
    await desk.make_rows(30)
    after = (await desk.ask(state="ended", limit=2))["next"]
    await desk.ask(state="ended", limit=5, after=after)
    raw = bytearray(base64.urlsafe_b64decode(after))
    raw[10] ^= 1
    edited = base64.urlsafe_b64encode(raw).decode()
    for asked in (
        {"after": after},
        {"state": "ended", "order": "oldest", "after": after},
        {"state": "ended", "sort": "last_used", "after": after},
        {"state": "ended", "client": "cli", "after": after},
        {"state": "ended", "after": edited},
    ):
        assert "after" in (await desk.refused(422, **asked))["detail"]


@pytest.mark.case(67)
async def test_whoever_is_demoted_between_two_pages_sees_no_second(desk: Desk) -> None:
    """The change of role ends their sessions, so the next page is refused."""
    await desk.make_rows(10)
    after = (await desk.ask(limit=2))["next"]
    (row,) = await desk.sql.fetch("SELECT id FROM families WHERE user_id = $1", desk.auditor.user.id)
    await desk.services.sessions.end(
        desk.auditor.user.id, row["id"], actor=ANONYMOUS, client=NO_CLIENT, reason=EndReason.ROLE_CHANGE
    )
    assert (await desk.refused(401, limit=2, after=after))["code"] == "access_token_rejected"


async def test_only_auditors_and_administrators_may(desk: Desk) -> None:
    """403 for a user, on each route; an administrator may."""
    ada, eve = await desk.person("ada"), await desk.person("eve", Role.ADMIN)
    session = (issued := await ada.sign_in()).session_id
    for path in ("", f"/{session}", f"/{session}/explain", "/export"):
        as_user = await desk.http.get(
            f"/admin/sessions{path}", headers={"Authorization": f"Bearer {issued.access_token}"}
        )
        assert as_user.status_code == 403, path
        as_admin = await desk.http.get(
            f"/admin/sessions{path}", headers={"Authorization": f"Bearer {(await eve.sign_in()).access_token}"}
        )
        assert as_admin.status_code == 200, path


async def test_reading_is_an_event_without_personal_data(desk: Desk) -> None:
    """Who, what they asked for and how many they saw; names and addresses only as digests that tell equal ones."""
    await desk.make_rows(20)
    for _ in range(2):
        await desk.ask(user="ada", ip="203.0.113.0/24", username_prefix="ada", state="ended")
    events = await desk.sql.fetch("SELECT * FROM audit_events WHERE action = 'admin.queried' ORDER BY seq")
    assert [event["actor_id"] for event in events] == [desk.auditor.user.id] * 2
    details = [event["detail"] for event in events]
    assert details[0] == details[1]
    assert '"state":"ended"' in details[0]
    assert '"what":"sessions"' in details[0]
    assert not any(word in details[0] for word in ("ada", "203.0.113"))


async def test_an_id_bound_never_hides_a_session(desk: Desk) -> None:
    """The host's clock may be half an hour off: a range of times still finds the session by the database's time."""
    now = desk.clock.time
    await desk.make_rows(5)
    row: Row = {**desk.rows[0], "id": made_id(now - timedelta(minutes=30), 99)}
    await desk.sql.execute(
        "UPDATE families SET id = $1, created_at = $2 WHERE id = $3", row["id"], now, desk.rows[0]["id"]
    )
    found = await desk.all_pages(created_from=(now - timedelta(seconds=1)).isoformat(), user=row["username"])
    assert found == [str(row["id"])]


async def test_a_session_that_is_not_there(desk: Desk) -> None:
    """404; what is no id at all is 422."""
    for path in (f"/{uuid4()}", f"/{uuid4()}/explain"):
        assert (await desk.refused(404, path))["code"] == "session_not_found"
    await desk.refused(422, "/nonsense")
