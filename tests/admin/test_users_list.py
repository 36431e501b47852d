"""Looking for users: what each filter finds, how pages join, what is refused, and that looking is an event."""

import base64
import json
import re
from typing import Any

import pytest

from app.domain.errors import UsernameRefused, UsernameTaken
from app.domain.events import SYSTEM
from app.domain.users import Role, name_prefix, prefix_end
from tests.admin.conftest import Office
from tests.conftest import client_at

NAMES = [
    "ada", "adam", "Adele", "100%", "100_percent", "100\\percent", "1000", "a_b", "a%b", "axb", "ångström", "ÅSA",
    "ß", "ss", "中文", "中立", "zoë", "\U0001d4aa", "o'hara", 'quo"te', "\u05d3\u05d5\u05d3", "\u05d3\u05d5\u05d31",
]  # fmt: skip


async def build(office: Office) -> None:
    """Somebody of every kind, at times of their own."""
    for number, name in enumerate(NAMES):
        role = (Role.USER, Role.USER, Role.AUDITOR, Role.ADMIN)[number % 4]
        try:
            person = await office.person(name, role)
        except (UsernameRefused, UsernameTaken):
            continue  # PRECIS has its own mind about some of them
        office.clock.advance(minutes=number % 2)  # some are made at the same moment
        for _ in range(number % 3):
            await person.sign_in()
        if number % 5 == 0:
            await office.services.users.disable(person.user.id, actor=SYSTEM, client=client_at())
    office.http.headers.update(await office.headers(office.admin))


async def ask(office: Office, **parameters: Any) -> dict[str, Any]:
    return await office.ok("GET", "/admin/users", params={name: str(value) for name, value in parameters.items()})


async def test_each_filter_finds_what_it_names_and_nothing_else(office: Office) -> None:
    """One by one and together, both ways, compared with the same condition in Python over all users."""
    await build(office)
    every = (await ask(office, limit=100))["items"]
    assert len(every) > 15
    assert [one["created_at"] for one in every] == sorted((one["created_at"] for one in every), reverse=True)
    middle, late = every[len(every) // 2]["created_at"], every[3]["created_at"]
    filters: dict[str, tuple[dict[str, Any], Any]] = {
        "role": ({"role": "auditor"}, lambda u: u["role"] == "auditor"),
        "ordinary": ({"role": "user"}, lambda u: u["role"] == "user"),
        "disabled": ({"disabled": True}, lambda u: u["disabled_at"] is not None),
        "enabled": ({"disabled": False}, lambda u: u["disabled_at"] is None),
        "from": ({"created_from": middle}, lambda u: u["created_at"] >= middle),
        "to": ({"created_to": middle}, lambda u: u["created_at"] <= middle),
        "the very moment": ({"created_from": middle, "created_to": middle}, lambda u: u["created_at"] == middle),
        "active": ({"has_active_sessions": True}, lambda u: u["active_sessions"] > 0),
        "inactive": ({"has_active_sessions": False}, lambda u: u["active_sessions"] == 0),
        "several": (
            {"role": "user", "disabled": False, "has_active_sessions": True, "created_to": late, "prefix": "a"},
            lambda u: (
                u["role"] == "user"
                and u["disabled_at"] is None
                and u["active_sessions"] > 0
                and u["created_at"] <= late
                and name_prefix(u["username"]).startswith("a")
            ),
        ),
    }
    for name, (parameters, matches) in filters.items():
        expected = [one["id"] for one in every if matches(one)]
        assert expected, name
        for order in ("newest", "oldest"):
            found = [one["id"] for one in (await ask(office, limit=100, order=order, **parameters))["items"]]
            assert found == (expected if order == "newest" else expected[::-1]), name


@pytest.mark.case(65)
async def test_a_prefix_is_the_beginning_of_a_name_and_no_pattern(office: Office) -> None:
    """Each beginning of each name, in any case: `%`, `_` and the backslash stand for themselves."""
    await build(office)
    names = [one["username"] for one in (await ask(office, limit=100))["items"]]
    beginnings = {name[:length].swapcase() for name in names for length in range(1, len(name) + 1)}
    for beginning in {*beginnings, "%", "_", "\\", "%a", "a%", "_da", "nobody", "'", '"', "\ud7ff"}:
        prefix = name_prefix(beginning)
        expected = {name for name in names if name_prefix(name).startswith(prefix)}
        found = {one["username"] for one in (await ask(office, limit=100, prefix=beginning))["items"]}
        assert found == expected, repr(beginning)


def test_the_end_of_a_prefix() -> None:
    """The first text behind all that begin so: never a surrogate, and none behind the last code point."""
    assert prefix_end("a") == "b"
    assert prefix_end("a\ud7ff") == "a\ue000"
    assert prefix_end("a\U0010ffff") == "b"
    assert prefix_end("\U0010ffff") is None


@pytest.mark.parametrize(
    "parameters", [{}, {"order": "oldest"}, {"prefix": "page"}, {"has_active_sessions": "false"}], ids=str
)
async def test_pages_join_while_users_come_and_go(office: Office, parameters: dict[str, str]) -> None:
    """Made, disabled, renamed and deleted between the pages: nobody who stayed as they were is skipped or repeated."""
    people = [await office.person(f"page-{number}") for number in range(12)]
    for _ in range(3):
        office.clock.advance(seconds=1)
        people += [await office.person() for _ in range(4)]
    stay = {str(p.user.id) for p in people if "prefix" not in parameters or p.username.startswith("page")}
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = await office.ok("GET", "/admin/users", params={**parameters, "limit": "3", **after})
        seen += [one["id"] for one in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
        newcomer = await office.person()
        gone = await office.person()
        await office.ok("DELETE", f"/admin/users/{gone.user.id}")
        await office.ok("PATCH", f"/admin/users/{newcomer.user.id}", json={"username": f"new-{newcomer.username}"})
        office.clock.advance(seconds=1)
        if "order" in parameters and stay <= set(seen):
            break  # oldest first, newcomers are always ahead
    assert stay <= set(seen)
    assert len(seen) == len(set(seen))


@pytest.mark.case(66)
@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "1e1"}, "limit"),
        ({"order": "username"}, "order"),
        ({"sort": "password_hash"}, "extra_forbidden"),
        ({"password_hash": "x"}, "extra_forbidden"),
        ({"role": "superuser"}, "role"),
        ({"disabled": "perhaps"}, "disabled"),
        ({"has_active_sessions": "2"}, "has_active_sessions"),
        ({"prefix": ""}, "prefix"),
        ({"prefix": "x" * 300}, "prefix"),
        ({"prefix": "a\0"}, "prefix"),
        ({"created_from": "yesterday"}, "created_from"),
        ({"created_to": "2026-13-01"}, "created_to"),
        ({"created_to": "infinity"}, "created_to"),
        ({"created_from": "2026-11-02", "created_to": "2026-11-01"}, "created_to must not be before created_from"),
        ({"after": "AAAA"}, "after"),
        ({"after": "'; DROP TABLE users"}, "after"),
        ({"after": base64.urlsafe_b64encode(bytes(40)).decode()}, "after"),
    ],
    ids=str,
)
async def test_bad_questions_are_refused(office: Office, parameters: dict[str, str], names: str) -> None:
    """422 that names the parameter and repeats nothing."""
    answer = await office.http.get("/admin/users", params=parameters)
    assert answer.status_code == 422, answer.text
    assert names in answer.text
    assert all(len(value) < 5 or value not in answer.text for value in parameters.values())


@pytest.mark.case(68)
async def test_a_cursor_is_of_one_filter(office: Office) -> None:
    """Edited, or with another filter or order, or of another list: refused."""
    for number in range(5):
        await office.person(f"page-{number}")
    cursor = (await ask(office, prefix="page", limit=2))["next"]
    assert (await ask(office, prefix="page", limit=3, after=cursor))["items"]
    for other in (
        {},
        {"prefix": "pag"},
        {"prefix": "page", "order": "oldest"},
        {"prefix": "page", "disabled": "false"},
    ):
        answer = await office.http.get("/admin/users", params={**other, "after": cursor})
        assert answer.status_code == 422
        assert "after" in answer.json()["detail"]
    raw = bytearray(base64.urlsafe_b64decode(cursor))
    for at in range(len(raw)):
        raw[at] ^= 1
        edited = base64.urlsafe_b64encode(raw).decode()
        params = {"prefix": "page", "after": edited}
        assert (await office.http.get("/admin/users", params=params)).status_code == 422
        raw[at] ^= 1
    assert (await office.http.get("/admin/events", params={"after": cursor})).status_code == 422


async def test_reading_is_an_event(office: Office) -> None:
    """Who, which filter, how many; the beginning of a name only as its keyed hash; not the rows."""
    ada = await office.person("ada-lovelace")
    await ask(office, prefix="Ada-Love", role="user", limit=7)
    await office.ok("GET", f"/admin/users/{ada.user.id}")
    rows = await office.sql.fetch("SELECT * FROM audit_events WHERE action = 'admin.queried' ORDER BY seq")
    listed, shown = (json.loads(row["detail"]) for row in rows)
    assert {(row["actor_kind"], row["actor_id"], str(row["ip"])) for row in rows} == {
        ("admin", office.admin.user.id, "198.51.100.1")
    }
    assert (listed["what"], listed["count"]) == ("users", 1)
    assert {**listed["filter"], "prefix": ""} == {"prefix": "", "role": "user", "order": "newest", "limit": 7}
    assert re.fullmatch(r"[0-9a-f]{32}", listed["filter"]["prefix"])
    assert shown == {"what": "user", "filter": {"user": str(ada.user.id)}, "count": 1}
    assert "love" not in str([row["detail"] for row in rows]).lower()


async def test_what_an_answer_holds(office: Office) -> None:
    """These members and no others: no hash, no key, nothing of sessions but how many."""
    ada = await office.person("ada")
    for _ in range(3):
        await ada.sign_in()
    (one,) = (await ask(office, prefix="ada"))["items"]
    assert one == await office.ok("GET", f"/admin/users/{ada.user.id}")
    assert set(one) == {
        "id", "username", "role", "created_at", "disabled_at", "deleted_at", "password_changed_at", "has_password",
        "must_change_password", "active_sessions", "active_sessions_is_exact",
    }  # fmt: skip
    assert (one["active_sessions"], one["active_sessions_is_exact"]) == (3, True)
    office.clock.advance(days=8)
    office.http.headers.update(await office.headers(office.admin))
    (one,) = (await ask(office, prefix="ada", has_active_sessions=False))["items"]
    assert one["active_sessions"] == 0, "past its limit it is over, whether the job has come by or not"


async def test_the_count_of_sessions_is_bounded(office: Office) -> None:
    """However many somebody has heaped up, a hundred are counted, and the answer says that there are more."""
    ada = await office.person("ada")
    issued = await ada.sign_in()
    columns = [
        row[0]
        for row in await office.sql.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'families'::regclass AND attnum > 0 AND attname <> 'id'"
        )
    ]
    listed = ", ".join(columns)
    copies = (
        f"INSERT INTO families (id, {listed}) SELECT gen_random_uuid(), {listed} FROM families, generate_series(1, $2)"
    )
    await office.sql.execute(f"{copies} WHERE families.id = $1", issued.session_id, 99)
    (one,) = (await ask(office, prefix="ada"))["items"]
    assert (one["active_sessions"], one["active_sessions_is_exact"]) == (100, True)
    await office.sql.execute(f"{copies} WHERE families.id = $1", issued.session_id, 1)
    (one,) = (await ask(office, prefix="ada"))["items"]
    assert (one["active_sessions"], one["active_sessions_is_exact"]) == (100, False)


async def test_each_filter_has_its_index(office: Office) -> None:
    """With a password list's worth of users, no filter walks the table: plans name an index, by bound values too."""
    await office.sql.execute(
        "INSERT INTO users (id, username, username_key, password_hash, role, created_at, password_changed_at)"
        " SELECT gen_random_uuid(), 'u' || n, 'u' || n, NULL, CASE n % 5000 WHEN 0 THEN 'auditor' ELSE 'user' END,"
        " now() - n * interval '1 second', now() FROM generate_series(1, 50000) AS n"
    )
    await office.sql.execute("UPDATE users SET disabled_at = now() WHERE username_key LIKE 'u10_7%'")
    await office.sql.execute("ANALYZE users")
    await office.sql.execute("SET plan_cache_mode = force_generic_plan")
    questions = {
        "ix_users_created": ("created_at <= $1", "timestamptz", "now() - interval '5 hours'"),
        "ix_users_prefix": ("username_key ~>=~ $1 AND username_key ~<~ 'u123z'", "text", "'u1234'"),
        "ix_users_elevated": ("role = 'auditor' AND created_at <= $1", "timestamptz", "now()"),
        "ix_users_disabled": ("disabled_at IS NOT NULL AND created_at <= $1", "timestamptz", "now()"),
    }
    for index, (condition, kind, value) in questions.items():
        await office.sql.execute(
            f"PREPARE question ({kind}) AS SELECT id FROM users WHERE deleted_at IS NULL AND {condition}"
            " ORDER BY created_at DESC, id DESC LIMIT 51"
        )
        plan = "\n".join(row[0] for row in await office.sql.fetch(f"EXPLAIN EXECUTE question ({value})"))
        await office.sql.execute("DEALLOCATE question")
        assert index in plan, plan
