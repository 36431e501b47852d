"""How a mailer reads the outbox: over HTTP with the scope, or at the command line."""

import json
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from app.cli.exits import Exit
from app.domain.notifications import ACKNOWLEDGE_MAXIMUM, NotificationKind
from app.domain.users import Role
from tests.conftest import Person
from tests.oauth.conftest import basic, bearer, make_known
from tests.passwords.conftest import Office, Rota, make_mailer


async def tell(office: Office, person: Person, times: int = 1) -> None:
    async with office.services.database.begin() as db:
        for _ in range(times):
            await db.notifications.add(person.user.id, NotificationKind.PASSWORD_CHANGED, now=await db.now())
        await db.commit()


async def test_read_tell_acknowledge(office: Office) -> None:
    """A mailer's whole work; what it has acknowledged does not come again, and its event names the client."""
    person, mailer = await office.person("ada@engines.example.com"), await make_mailer(office)
    await tell(office, person)
    (item,) = (await mailer.get())["items"]
    assert item["created_at"]
    assert (item["user_id"], item["username"], item["kind"]) == (
        str(person.user.id),
        "ada@engines.example.com",
        "password_changed",
    )
    assert set(item) == {"id", "user_id", "username", "kind", "created_at"}
    assert (await mailer.get())["items"] == [item]
    assert await mailer.acknowledge(item["id"]) == 1
    assert await mailer.acknowledge(item["id"], str(uuid7())) == 0
    assert await mailer.get() == {"items": [], "next": None}
    (event,) = await office.events(person.user.id, "notification.acknowledged")
    assert (event["actor_kind"], event["actor_id"]) == ("client", mailer.known.client.id)
    assert json.loads(event["detail"]) == {"kind": "password_changed", "notification": item["id"]}


async def test_a_mailer_by_an_access_token(office: Office) -> None:
    """As every route of clients: a token got by client_credentials serves too."""
    mailer = await make_mailer(office)
    asked = {"grant_type": "client_credentials", "scope": "notifications"}
    got = await office.http.post("/oauth2/token", data=asked, headers=mailer.headers)
    answer = await office.http.get("/notifications", headers=bearer(got.json()["access_token"]))
    assert answer.status_code == 200


async def test_the_stored_name_is_who_is_written_to(office: Office) -> None:
    """CVE-2019-19844: not the spelling that a request came with, though both are of one account."""
    person, mailer = await office.person("kate@engines.example.com"), await make_mailer(office)
    form = {"username": "\u212aATE@engines.example.com", "password": "correct horse battery staple"}
    assert (await office.http.post("/token", data=form)).status_code == 200
    await tell(office, person)
    assert [each["username"] for each in (await mailer.get())["items"]] == ["kate@engines.example.com"]


async def test_pages_go_past_what_cannot_be_told(office: Office) -> None:
    """`after` is behind a notification; all pages together are all of them, once, oldest first."""
    person, mailer = await office.person(), await make_mailer(office)
    await tell(office, person, 7)
    everything = [each["id"] for each in (await mailer.get())["items"]]
    found: list[str] = []
    page: dict[str, Any] = {"next": None}
    while True:
        query = {"limit": 3} | ({"after": page["next"]} if page["next"] else {})
        page = await mailer.get(**query)
        found += [each["id"] for each in page["items"]]
        if page["next"] is None:
            break
    assert found == everything == sorted(everything)
    assert len(found) == 7


async def test_who_may_not_read_it(office: Office) -> None:
    """Nobody, people of any role, clients without the scope: neither read nor acknowledge."""
    person = await office.person()
    await tell(office, person)
    auditor = await office.person(role=Role.AUDITOR)
    other = await make_known(office.services, scopes=["introspect", "revoke", "revocations", "authz", "sessions"])
    cases = [
        ({"Authorization": ""}, {401}),
        (await office.headers(person), {401}),
        (await office.headers(auditor), {401}),
        (await office.headers(office.admin), {401}),
        (basic(other.client.client_id, other.secret), {403}),
        (basic(other.client.client_id, "wrong"), {401}),
    ]
    body = {"ids": [str(await office.sql.fetchval("SELECT id FROM notifications"))]}
    for headers, expected in cases:
        assert (await office.http.get("/notifications", headers=headers)).status_code in expected
        assert (await office.http.post("/notifications/ack", json=body, headers=headers)).status_code in expected
    assert await office.sql.fetchval("SELECT count(*) FROM notifications") == 1


SOME_ID = "01a21fdc-fea3-77f4-bcdb-4e7ca1c65739"


@pytest.mark.parametrize(
    "query",
    [{"limit": "0"}, {"limit": "501"}, {"limit": "1e2"}, {"after": "x"}, {"aftr": "x"}, {"limit": ["1", "2"]}],
    ids=str,
)
async def test_queries_are_read_strictly(office: Office, query: dict[str, Any]) -> None:
    """What is misspelt or out of bounds is refused, not ignored."""
    mailer = await make_mailer(office)
    answer = await office.http.get("/notifications", params=query, headers=mailer.headers)
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"ids": ["x"]},
        {"ids": [1]},
        {"ids": [None]},
        {"ids": SOME_ID},
        {"ids": [SOME_ID] * (ACKNOWLEDGE_MAXIMUM + 1)},
        {"ids": [SOME_ID], "all": True},
    ],
    ids=lambda body: str(body)[:40],
)
async def test_acknowledgements_are_read_strictly(office: Office, body: dict[str, Any]) -> None:
    """Nothing is acknowledged that was not named."""
    person, mailer = await office.person(), await make_mailer(office)
    await tell(office, person)
    answer = await office.http.post("/notifications/ack", json=body, headers=mailer.headers)
    assert answer.status_code == 422, answer.text
    assert len((await mailer.get())["items"]) == 1


async def test_one_named_twice_counts_once(office: Office) -> None:
    """And the others of the list are taken all the same."""
    person, mailer = await office.person(), await make_mailer(office)
    await tell(office, person, 2)
    one, other = (each["id"] for each in (await mailer.get())["items"])
    assert await mailer.acknowledge(one, one.upper(), other) == 2


async def test_at_the_command_line(office: Office, rota: Rota) -> None:
    """The same, as the system; that somebody looked is an event."""
    person = await office.person("ada")
    await tell(office, person, 3)
    page = await rota("notifications", "list", "--limit", "2", "--json")
    assert [each["username"] for each in page["items"]] == ["ada", "ada"]
    rest = await rota("notifications", "list", "--after", page["next"], "--json")
    assert (len(rest["items"]), rest["next"]) == (1, None)
    printed = await rota("notifications", "list", "--limit", "1")
    line = printed.stdout.split()
    assert line[1:] == [page["items"][0]["id"], "password_changed", str(person.user.id), "ada"]
    assert f"--after {line[1]}" in printed.stderr
    ids = [each["id"] for each in page["items"]]
    assert await rota("notifications", "ack", *ids, "--json") == {"acknowledged": 2}
    assert (await rota("notifications", "ack", *ids)).stdout == "acknowledged: 0\n"
    await rota("notifications", "ack", "x", code=Exit.USAGE)
    await rota("notifications", "ack", code=Exit.USAGE)
    looked = await office.sql.fetch("SELECT detail FROM audit_events WHERE action = 'admin.queried' ORDER BY seq")
    assert [json.loads(row["detail"])["what"] for row in looked] == ["notifications"] * 3


async def test_a_client_with_the_scope_at_the_command_line(office: Office, rota: Rota) -> None:
    """As the page says to make one."""
    made = await rota("clients", "create", "the mailer", "--client-id", "mailer", "--scope", "notifications", "--json")
    headers = basic("mailer", made["client_secret"])
    assert (await office.http.get("/notifications", headers=headers)).status_code == 200
