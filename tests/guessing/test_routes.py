"""Every route by which a password can be guessed, and what a session may guess."""

import re
from pathlib import Path

from app.domain.api_clients import ClientGrant, NewClient
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.throttling import SESSION, SESSIONS
from app.domain.users import Role
from tests.conftest import PASSWORD
from tests.guessing.conftest import WRONG, Town

APP = Path(__file__).parents[2] / "app"

# Who asks the hasher, and for what.
ASKING = {
    "services/sign_in.py": "behind Throttling.admit",
    "services/password_change.py": "behind Throttling.admit_in_session",
    "services/users.py": "hashes a new password; /register behind Throttling.admit_address",
    "services/credentials.py": "hashes for a genuine set-password token, or for an administrator",
}


def test_whoever_asks_the_hasher_is_known() -> None:
    """A new place that verifies or hashes a password must say here what slows guessing at it down (ASVS 6.3.4)."""
    found = {
        str(path.relative_to(APP))
        for path in APP.rglob("*.py")
        if re.search(r"_?hasher\.(verify|hash)\(", path.read_text())
    }
    assert found == set(ASKING)
    verifying = {name for name in ASKING if "hasher.verify(" in (APP / name).read_text()}
    assert verifying == {"services/sign_in.py", "services/password_change.py"}


async def test_the_routes_that_verify(town: Town) -> None:
    """Each of them answers 429 with Retry-After when too many were wrong, and no password is looked at then."""
    town.cheap()
    person = await town.person()
    made = await town.services.api_clients.create(
        NewClient(
            name="app",
            client_id="the-app",
            scopes=frozenset(),
            grants=frozenset({ClientGrant.PASSWORD, ClientGrant.REFRESH_TOKEN}),
            session_scopes=(),
            first_party=True,
            public=True,
        ),
        actor=SYSTEM,
        client=NO_CLIENT,
    )
    access = (await town.log_in(person.username)).json()["access_token"]
    await town.fail(person.username, 14)
    for _ in range(SESSION.most):
        body = {"current_password": WRONG, "new_password": "another zeppelin ride"}
        bearer = {"Authorization": f"Bearer {access}"}
        await town.request("PUT", "/me/password", json=body, headers=bearer)
        town.clock.advance(seconds=2)
    town.verified.clear()
    form = {"username": person.username, "password": PASSWORD}
    oauth = {**form, "grant_type": "password", "client_id": made.client.client_id}
    answers = [
        await town.request("POST", "/token", data=form),
        await town.request("POST", "/oauth2/token", data=oauth),
        await town.request("PUT", "/me/password", json={**body, "current_password": PASSWORD}, headers=bearer),
    ]
    assert [answer.status_code for answer in answers] == [429] * 3
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    assert town.verified == []
    assert answers[1].json() == {
        "error": "too_many_attempts",
        "error_description": "Too many failed sign-ins; please wait before trying again.",
    }
    assert "www-authenticate" not in answers[1].headers


async def test_the_standard_surface_counts_with_ours(town: Town) -> None:
    """The same names, the same counts, the same device tokens at /oauth2/token."""
    town.cheap()
    person = await town.person()
    made = await town.services.api_clients.create(
        NewClient(
            name="app",
            client_id="the-app",
            scopes=frozenset(),
            grants=frozenset({ClientGrant.PASSWORD, ClientGrant.REFRESH_TOKEN}),
            session_scopes=(),
            first_party=True,
            public=True,
        ),
        actor=SYSTEM,
        client=NO_CLIENT,
    )
    oauth = {
        "username": person.username,
        "password": PASSWORD,
        "grant_type": "password",
        "client_id": made.client.client_id,
    }
    device = (await town.request("POST", "/oauth2/token", data=oauth)).json()["device_token"]
    for n in range(10):
        answer = (
            await town.log_in(person.username, WRONG)
            if n % 2
            else await town.request("POST", "/oauth2/token", data={**oauth, "password": WRONG})
        )
        assert answer.status_code == (401 if n % 2 else 400)
    assert (await town.request("POST", "/oauth2/token", data=oauth)).status_code == 429
    known = await town.request("POST", "/oauth2/token", data={**oauth, "device_token": device})
    assert known.status_code == 200
    assert "device_token" not in known.json()


async def test_a_stolen_session_guesses_little(town: Town) -> None:
    """Five guesses at the current password from one session, ten from all; other sessions and sign-ins go on."""
    town.cheap()
    person = await town.person()
    stolen, own = [(await town.log_in(person.username)).json()["access_token"] for _ in range(2)]
    town.verified.clear()

    async def change(access: str, current: str) -> int:
        body = {"current_password": current, "new_password": "another zeppelin ride"}
        answer = await town.request("PUT", "/me/password", json=body, headers={"Authorization": f"Bearer {access}"})
        return answer.status_code

    statuses = []
    for _ in range(40):
        statuses.append(await change(stolen, WRONG))
        town.clock.advance(seconds=3)
    assert (statuses.count(401), statuses[0]) == (SESSION.most, 401)
    assert set(statuses) == {401, 429}
    assert len(town.verified) == SESSION.most < SESSIONS.most
    throttled = [event for event in await town.events("login.throttled") if event["reason"] == "session_limit"]
    assert throttled
    assert {event["subject_id"] for event in throttled} == {person.user.id}
    assert (await town.log_in(person.username)).status_code == 200, "signing in is another way"
    assert await change(own, PASSWORD) == 200
    assert ("session", 0, SESSION.most) not in await town.counts()


async def test_an_administrator_frees_somebody(town: Town) -> None:
    """DELETE /admin/users/{id}/login-throttle: at once, with an event; once more changes nothing."""
    town.cheap()
    admin, person = await town.person(role=Role.ADMIN), await town.person()
    await town.fail(person.username, 20)
    bearer = {"Authorization": f"Bearer {(await town.log_in(admin.username)).json()['access_token']}"}
    path = f"/admin/users/{person.user.id}/login-throttle"
    assert (await town.log_in(person.username)).status_code == 429
    answers = [(await town.request("DELETE", path, headers=bearer)).json()["changed"] for _ in range(2)]
    assert answers == [True, False]
    assert (await town.log_in(person.username)).status_code == 200
    (event,) = await town.events("login.unblocked")
    assert (event["actor_id"], event["subject_id"]) == (admin.user.id, person.user.id)
