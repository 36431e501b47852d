"""Each place where a password is set holds the rules and knows the user; a refusal changes nothing."""

import secrets
import unicodedata
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio

from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.families import EndReason
from app.domain.passwords import PasswordReason
from app.domain.users import Credential, Role
from app.main import create_app
from app.services.acting import Acting
from tests.conftest import PASSWORD, MakePerson, MakeServices, MovableClock, Person, client_at, make_settings

NEW = "a wholly different phrase"
PLACES = ("POST /register", "PUT /me/password", "PUT /password")


class Setting:
    """A password is set in one of the places, for one user."""

    def __init__(self, place: str, http: httpx2.AsyncClient, person: Person) -> None:
        self.place = place
        self._http = http
        self._person = person
        self.username = f"someone-{secrets.token_hex(4)}" if place == "POST /register" else person.username

    async def set(self, password: str) -> httpx2.Response:
        method, path = self.place.split()
        headers: dict[str, str] = {}
        if path == "/register":
            body: dict[str, Any] = {"username": self.username, "password": password}
        elif path == "/me/password":
            token = (await self._person.sign_in()).access_token
            headers = {"Authorization": f"Bearer {token}"}
            body = {"current_password": PASSWORD, "new_password": password}
        else:
            by = Acting(SYSTEM, NO_CLIENT)
            issued, _ = await self._person.services.credentials.reset(self._person.user.id, forget=False, by=by)
            body = {"token": issued.token, "new_password": password}
        return await self._http.request(method, path, json=body, headers=headers)

    async def sign_in(self, password: str) -> int:
        form = {"username": self.username, "password": password}
        return (await self._http.post("/token", data=form)).status_code


@pytest.fixture(params=PLACES)
def setting(request: pytest.FixtureRequest, http: httpx2.AsyncClient, person: Person) -> Setting:
    return Setting(request.param, http, person)


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", "too_short"),
        ("fourteen lette", "too_short"),
        ("x" * 1025, "too_long"),
        ("\u20ac" * 342, "too_long"),
        ("a nul\0in the middle", "nul"),
        ("unassigned \U000e0080 in it", "unassigned"),
        ("passwordpassword1", "common"),
        ("abababababababab", "repetitive"),
        ("a" * 100, "repetitive"),
        ("password" * 10 + "pass", "common"),
        ("1234567890" * 8, "sequence"),
        ("123456789012345", "sequence"),
        ("rota-rota-rota-rota", "product_name"),
    ],
    ids=lambda value: value if str(value) in set(PasswordReason) else None,
)
async def test_a_refusal_says_why(setting: Setting, password: str, reason: str) -> None:
    """422 with the stable reason; the answer holds nothing of what was typed, and nothing has changed."""
    answer = await setting.set(password)
    assert answer.status_code == 422
    told = answer.json()
    assert (told["code"], told["reason"]) == ("password_refused", reason)
    assert not password or password not in answer.text
    if setting.place != "POST /register":
        assert await setting.sign_in(PASSWORD) == 200


async def test_the_name_of_the_user_is_known(setting: Setting) -> None:
    """In each place, whichever way it is spelt."""
    answer = await setting.set(setting.username.upper())
    assert (answer.status_code, answer.json()["reason"]) == (422, "user_name")


async def test_a_password_that_may_be_set_is_whole(setting: Setting) -> None:
    """Not cut, no change of case, in either normal form (RFC 8265 section 4.2.2)."""
    password = "Caf\u00e9 " + "\U0001f469\u200d\U0001f680 " * 15 + "to the very End"
    answer = await setting.set(unicodedata.normalize("NFD", password))
    assert answer.status_code in {200, 201}, answer.text
    assert await setting.sign_in(password) == 200
    assert await setting.sign_in(unicodedata.normalize("NFD", password)) == 200
    assert await setting.sign_in(password.lower()) == 401
    assert await setting.sign_in(password[:-1]) == 401
    assert await setting.sign_in(password + " ") == 401


async def test_a_refused_password_leaves_the_token_as_it_is(http: httpx2.AsyncClient, person: Person) -> None:
    """And a token that is no good is refused before anybody's name is compared with anything."""
    issued, _ = await person.services.credentials.reset(person.user.id, forget=False, by=Acting(SYSTEM, NO_CLIENT))
    refused = await http.put("/password", json={"token": issued.token, "new_password": person.username})
    assert refused.json()["reason"] == "user_name"
    noise = await http.put("/password", json={"token": "rota_pt_" + "A" * 76, "new_password": person.username})
    assert noise.json()["code"] == "password_token_rejected"
    done = await http.put("/password", json={"token": issued.token, "new_password": NEW})
    assert done.status_code == 200


@pytest_asyncio.fixture
async def elsewhere(database_url: str, clock: MovableClock) -> AsyncIterator[httpx2.AsyncClient]:
    """The same database behind a server with other rules."""
    settings = make_settings(
        database_url, password_min_characters=8, issuer="https://id.brambleworks.example", audience="thistledown"
    )
    app = create_app(settings, clock)
    transport = httpx2.ASGITransport(app, client=("203.0.113.7", 4711))
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as client:
        yield client
    await app.state.container.close()


async def test_what_was_set_under_other_rules_still_signs_in(
    elsewhere: httpx2.AsyncClient, http: httpx2.AsyncClient
) -> None:
    """Verification never measures a password, also as the current one of a change."""
    person = {"username": f"early-{secrets.token_hex(4)}", "password": "zq8-Wm4k"}
    assert (await elsewhere.post("/register", json=person)).status_code == 201
    signed_in = await http.post("/token", data=person)
    assert signed_in.status_code == 200
    changed = await http.put(
        "/me/password",
        json={"current_password": person["password"], "new_password": NEW},
        headers={"Authorization": f"Bearer {signed_in.json()['access_token']}"},
    )
    assert changed.status_code == 200


@pytest.mark.parametrize("name", ["brambleworks", "id.brambleworks.example", "Thistledown", "brambleworks.example"])
async def test_the_service_is_known_by_its_names(elsewhere: httpx2.AsyncClient, name: str) -> None:
    """Of issuer and audience; and seven characters are too few at eight."""
    body = {"username": f"someone-{secrets.token_hex(4)}", "password": name + "1"}
    assert (await elsewhere.post("/register", json=body)).json()["reason"] == "product_name"
    body["password"] = "zq8-Wm4"
    assert (await elsewhere.post("/register", json=body)).json()["reason"] == "too_short"


async def test_what_is_drawn_by_lot_passes_the_rules(make_services: MakeServices) -> None:
    """`rota dev` makes up the first administrator's, also where 64 characters are asked for."""
    policy = make_services(password_min_characters=64).password_policy
    for _ in range(50):
        password = secrets.token_urlsafe(48)
        assert await policy.check(password, username="admin") == password


async def test_a_change_ends_all_others_and_a_reset_all(
    http: httpx2.AsyncClient, make_person: MakePerson, sql: Any
) -> None:
    """ASVS 7.4.3: with the current password this session stays; with a token none does."""
    one, other = await make_person(), await make_person()
    here = await one.sign_in()
    for _ in range(2):
        await one.sign_in()
    answer = await http.put(
        "/me/password",
        json={"current_password": PASSWORD, "new_password": NEW},
        headers={"Authorization": f"Bearer {here.access_token}"},
    )
    assert answer.json()["sessions_ended"] == 2
    live = "SELECT id FROM families WHERE user_id = $1 AND ended_at IS NULL"
    assert [row["id"] for row in await sql.fetch(live, one.user.id)] == [here.session_id]
    await other.sign_in()
    issued, _ = await other.services.credentials.reset(other.user.id, forget=False, by=Acting(SYSTEM, NO_CLIENT))
    assert await sql.fetch(live, other.user.id)
    assert await other.services.credentials.redeem(issued.token, NEW, client=client_at()) == 1
    assert not await sql.fetch(live, other.user.id)
    why = await sql.fetch("SELECT end_reason FROM families WHERE user_id = $1 AND ended_at IS NOT NULL", one.user.id)
    assert {row["end_reason"] for row in why} == {EndReason.PASSWORD_CHANGE}


async def test_a_change_needs_the_current_password(http: httpx2.AsyncClient, person: Person, sql: Any) -> None:
    """ASVS 6.2.3: a session alone does not do, and a wrong password changes nothing."""
    headers = {"Authorization": f"Bearer {(await person.sign_in()).access_token}"}
    before = await sql.fetchval("SELECT password_hash FROM users WHERE id = $1", person.user.id)
    for body in ({"new_password": NEW}, {"current_password": PASSWORD + " ", "new_password": NEW}):
        answer = await http.put("/me/password", json=body, headers=headers)
        assert answer.status_code in {401, 422}
    assert await sql.fetchval("SELECT password_hash FROM users WHERE id = $1", person.user.id) == before
    assert not await sql.fetchval("SELECT count(*) FROM notifications WHERE user_id = $1", person.user.id)


def _members(schema: dict[str, Any], document: dict[str, Any]) -> set[str]:
    """All names in a schema, however deep."""
    if "$ref" in schema:
        return _members(document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], document)
    found = set(schema.get("properties", {}))
    for inner in [*schema.get("properties", {}).values(), *schema.get("anyOf", []), *schema.get("allOf", [])]:
        found |= _members(inner, document)
    return found


async def test_no_route_takes_a_password_from_an_administrator(http: httpx2.AsyncClient) -> None:
    """ASVS 6.4.6, over the OpenAPI document: passwords come from their owners, or from first-party clients for them."""
    document = (await http.get("/openapi.json")).json()
    taking = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            bodies = operation.get("requestBody", {}).get("content", {}).values()
            names = set().union(*(_members(body["schema"], document) for body in bodies), set())
            names |= {parameter["name"] for parameter in operation.get("parameters", [])}
            if secret := {name for name in names if "password" in name}:
                taking[f"{method.upper()} {path}"] = secret
    assert taking.pop("POST /admin/users/{user_id}/password-token") == {"forget_password"}  # a yes or no
    assert taking == {
        "POST /register": {"password"},
        "POST /token": {"password"},
        "POST /oauth2/token": {"password"},
        "PUT /password": {"new_password"},
        "PUT /me/password": {"current_password", "new_password"},
    }


@pytest.mark.parametrize("given", [{"password": NEW}, {"new_password": NEW}, {"password_hash": "$argon2id$"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/admin/users"), ("PATCH", "/admin/users/{id}"), ("POST", "/admin/users/{id}/password-token")],
)
async def test_an_administrator_who_tries_is_refused(
    http: httpx2.AsyncClient, make_person: MakePerson, person: Person, method: str, path: str, given: dict[str, str]
) -> None:
    """Not ignored: who believes to have set a password must learn that they have not."""
    admin = await make_person(role=Role.ADMIN)
    headers = {"Authorization": f"Bearer {(await admin.sign_in()).access_token}"}
    body = {"username": f"made-{secrets.token_hex(4)}", **given} if path == "/admin/users" else given
    answer = await http.request(method, path.replace("{id}", str(person.user.id)), json=body, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["type"]) == (422, "extra_forbidden")


async def test_what_an_administrator_hands_out_is_no_password_to_keep(
    http: httpx2.AsyncClient, make_services: MakeServices, clock: MovableClock
) -> None:
    """A one-time password gives no session, and stops at the first password of the user's own."""
    name = f"invited-{secrets.token_hex(4)}"
    invited = await make_services(clock).credentials.invite(
        name, role=Role.USER, credential=Credential.ONE_TIME_PASSWORD, by=Acting(SYSTEM, NO_CLIENT)
    )
    form = {"username": name, "password": invited.one_time_password}
    exchanged = await http.post("/token", data=form)
    assert (exchanged.status_code, exchanged.json()["code"]) == (403, "password_change_required")
    body = {"token": exchanged.json()["password_token"], "new_password": NEW}
    assert (await http.put("/password", json=body)).status_code == 200
    assert (await http.post("/token", data=form)).status_code == 401
    assert (await http.post("/token", data={"username": name, "password": NEW})).status_code == 200
    assert isinstance(invited.user.id, UUID)
