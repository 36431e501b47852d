"""Administrators act on accounts over HTTP: what changes, what ends, what is written, and what is refused."""

import json
from uuid import uuid4

import pytest

from app.domain.errors import InvalidCredentials, LastAdministrator
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.users import Role
from app.services.acting import Acting
from tests.admin.conftest import Office
from tests.conftest import PASSWORD, client_at


async def test_disable_ends_all_sessions_and_enable_gives_none_back(office: Office) -> None:
    """Each once, with its event and one for each session; said again, nothing is written and nothing changes."""
    ada = await office.person()
    path, before = f"/admin/users/{ada.user.id}", await office.headers(ada)
    await ada.sign_in()
    for turn in range(2):
        answer = await office.ok("PATCH", path, json={"disabled": True})
        assert (answer["changed"], answer["sessions_ended"]) == ((True, 2) if turn == 0 else (False, 0))
        assert answer["disabled_at"] is not None
        assert answer["active_sessions"] == 0
    assert [event["action"] for event in await office.events(ada.user.id)] == ["user.disabled", *["session.ended"] * 2]
    ends = await office.events(ada.user.id, "session.ended")
    assert {(e["reason"], e["actor_kind"], e["actor_id"]) for e in ends} == {
        ("user_disabled", "admin", office.admin.user.id)
    }
    assert (await office.http.get("/me", headers=before)).status_code == 401
    with pytest.raises(InvalidCredentials):
        await ada.sign_in()
    for turn in range(2):
        answer = await office.ok("PATCH", path, json={"disabled": False})
        assert (answer["changed"], answer["disabled_at"]) == (turn == 0, None)
    assert (await office.http.get("/me", headers=before)).status_code == 401
    await ada.sign_in()
    assert len(await office.events(ada.user.id, "user.enabled")) == 1


async def test_another_role_ends_all_sessions(office: Office) -> None:
    """Up or down, since tokens carry the role; the event says from which to which."""
    ada = await office.person()
    before = await office.headers(ada)
    answer = await office.ok("PATCH", f"/admin/users/{ada.user.id}", json={"role": "auditor"})
    assert (answer["role"], answer["changed"], answer["sessions_ended"]) == ("auditor", True, 1)
    assert (await office.http.get("/me", headers=before)).status_code == 401
    changed, ended = await office.events(ada.user.id)
    assert json.loads(changed["detail"]) == {"from": "user", "to": "auditor"}
    assert (changed["action"], ended["reason"]) == ("user.role_changed", "role_change")
    assert (await office.http.get("/admin/users", headers=await office.headers(ada))).status_code == 200
    again = await office.ok("PATCH", f"/admin/users/{ada.user.id}", json={"role": "auditor"})
    assert (again["changed"], again["active_sessions"]) == (False, 1)
    assert len(await office.events(ada.user.id, "user.role_changed")) == 1


async def test_rename(office: Office) -> None:
    """The session goes on, the new name signs in in any case, the old one is free; the event tells neither name."""
    ada, ben = await office.person("ada.byron"), await office.person("ben")
    before = await office.headers(ada)
    path = f"/admin/users/{ada.user.id}"
    answer = await office.ok("PATCH", path, json={"username": "Ada.Lovelace"})
    assert (answer["username"], answer["changed"], answer["sessions_ended"]) == ("Ada.Lovelace", True, 0)
    assert (await office.http.get("/me", headers=before)).json()["username"] == "Ada.Lovelace"
    await office.services.sign_in.with_password("ada.lovelace", PASSWORD, client=client_at())
    with pytest.raises(InvalidCredentials):
        await office.services.sign_in.with_password("ada.byron", PASSWORD, client=client_at())
    await office.refused(
        "PATCH", f"/admin/users/{ben.user.id}", 409, "username_taken", json={"username": "ADA.lovelace"}
    )
    await office.refused("PATCH", f"/admin/users/{ben.user.id}", 422, "username_refused", json={"username": "a b"})
    await office.ok("PATCH", f"/admin/users/{ben.user.id}", json={"username": "ada.byron"})
    assert (await office.ok("PATCH", path, json={"username": "Ada.Lovelace"}))["changed"] is False
    (renamed,) = await office.events(ada.user.id, "user.renamed")
    assert (renamed["detail"], renamed["actor_id"]) == (None, office.admin.user.id)


async def test_several_changes_are_one(office: Office) -> None:
    """All of it with an event each and one end a session, or, when the name is taken, none of it."""
    ada = await office.person()
    await ada.sign_in()
    path = f"/admin/users/{ada.user.id}"
    refused = {"username": "root", "role": "auditor", "disabled": True}
    await office.refused("PATCH", path, 409, "username_taken", json=refused)
    assert await office.events(ada.user.id) == []
    answer = await office.ok("PATCH", path, json={"username": "ada", "role": "auditor", "disabled": True})
    assert (answer["username"], answer["role"], answer["sessions_ended"]) == ("ada", "auditor", 1)
    actions = [event["action"] for event in await office.events(ada.user.id)]
    assert sorted(actions) == ["session.ended", "user.disabled", "user.renamed", "user.role_changed"]
    (end,) = await office.events(ada.user.id, "session.ended")
    assert end["reason"] == "user_disabled"


async def test_delete(office: Office) -> None:
    """No sign-in ever again, sessions and tokens end, the name is free at once; the tombstone says whose id it was."""
    ada = await office.person("ada")
    before, path = await office.headers(ada), f"/admin/users/{ada.user.id}"
    token = (await office.ok("POST", f"{path}/password-token", 201))["password_token"]
    answer = await office.ok("DELETE", path)
    assert (answer["changed"], answer["sessions_ended"], answer["has_password"]) == (True, 1, False)
    assert answer["deleted_at"] == answer["disabled_at"] is not None
    assert (await office.http.get("/me", headers=before)).status_code == 401
    with pytest.raises(InvalidCredentials):
        await ada.sign_in()
    new = {"token": token, "new_password": "another zeppelin ride"}
    await office.refused("PUT", "/password", 401, "password_token_rejected", json=new)
    assert (await office.ok("DELETE", path))["changed"] is False
    assert len(await office.events(ada.user.id, "user.deleted")) == 1
    for change in ({"disabled": False}, {"role": "admin"}, {"username": "eve"}):
        await office.refused("PATCH", path, 409, "user_deleted", json=change)
    await office.refused("POST", f"{path}/password-token", 409, "user_deleted")
    second = await office.person("ADA")
    assert second.user.id != ada.user.id
    await second.sign_in()
    assert (await office.ok("GET", path))["username"] == "ada"
    listed = (await office.ok("GET", "/admin/users"))["items"]
    assert {one["id"] for one in listed} == {str(second.user.id), str(office.admin.user.id)}
    (deleted,) = (await office.ok("GET", "/admin/users", params={"deleted": True}))["items"]
    assert deleted["id"] == str(ada.user.id)
    reconciled = await office.services.reconciliation.run(
        progress=lambda _done, _total: None, actor=SYSTEM, client=NO_CLIENT
    )
    assert reconciled.differences == []


async def test_deleted_then_erased(office: Office) -> None:
    """Erasing goes on where deleting ended: the name leaves the tombstone too; and erasing alone deletes as well."""
    ada, ben = await office.person("ada"), await office.person("ben")
    await office.ok("DELETE", f"/admin/users/{ada.user.id}")
    for person in (ada, ben):
        await office.services.erasure.erase(person.user.id, "ticket 1", actor=SYSTEM, client=NO_CLIENT)
        row = await office.sql.fetchrow("SELECT * FROM users WHERE id = $1", person.user.id)
        assert row is not None
        assert (row["username"], row["username_key"]) == (f"erased-{person.user.id}", None)
        assert None not in {row["erased_at"], row["deleted_at"], row["disabled_at"]}
        await office.refused("PATCH", f"/admin/users/{person.user.id}", 409, "user_deleted", json={"disabled": False})
    await office.person("ben")
    await office.person(f"erased-{ada.user.id}")
    with pytest.raises(LastAdministrator):
        await office.services.erasure.erase(office.admin.user.id, "ticket 2", actor=SYSTEM, client=NO_CLIENT)


async def test_the_last_administrator_stays(office: Office) -> None:
    """Not disabled, demoted or deleted, by nobody and however it is said; disabled and deleted ones do not count."""
    path = f"/admin/users/{office.admin.user.id}"
    for other in ("disabled", "deleted", "demoted"):
        spare = await office.person(role=Role.ADMIN)
        own = f"/admin/users/{spare.user.id}"
        match other:
            case "disabled":
                await office.ok("PATCH", own, json={"disabled": True})
            case "deleted":
                await office.ok("DELETE", own)
            case "demoted":
                await office.ok("PATCH", own, json={"role": "auditor"})
    sure = {"allow_self": "true"}
    for change in ({"disabled": True}, {"role": "user"}, {"role": "auditor", "username": "still"}):
        await office.refused("PATCH", path, 409, "last_administrator", json=change, params=sure)
    await office.refused("DELETE", path, 409, "last_administrator", params=sure)
    with pytest.raises(LastAdministrator):
        await office.services.users.delete(office.admin.user.id, by=Acting(SYSTEM, NO_CLIENT))
    with pytest.raises(LastAdministrator):
        await office.services.users.disable(office.admin.user.id, actor=SYSTEM, client=NO_CLIENT)
    assert await office.events(office.admin.user.id) == []
    answer = await office.ok("PATCH", path, json={"username": "still", "role": "admin", "disabled": False})
    assert answer["changed"] is True


async def test_nobody_locks_themselves_out_unasked(office: Office) -> None:
    """Disable, demote, delete, forget one's password: refused, and done when asked for; a new name needs no asking."""
    for how in ("disable", "demote", "delete", "forget"):
        ada = await office.person(role=Role.ADMIN)
        headers, path = await office.headers(ada), f"/admin/users/{ada.user.id}"
        await office.ok("PATCH", path, headers=headers, json={"username": f"ada-{how}", "role": "admin"})
        method, where, body = {
            "disable": ("PATCH", path, {"disabled": True}),
            "demote": ("PATCH", path, {"role": "auditor"}),
            "delete": ("DELETE", path, None),
            "forget": ("POST", f"{path}/password-token", {"forget_password": True}),
        }[how]
        refused = await office.refused(method, where, 409, "own_account", headers=headers, json=body)
        assert "allow_self=true" in refused["detail"]
        assert (await office.http.get("/me", headers=headers)).status_code == 200
        asked = await office.http.request(method, where, headers=headers, json=body, params={"allow_self": "true"})
        assert asked.is_success
        assert asked.json()["sessions_ended"] == 1
        assert (await office.http.get("/me", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "body", "names"),
    [
        ("PATCH", "/admin/users/{id}", {}, "username, role or disabled"),
        ("PATCH", "/admin/users/{id}", {"username": None}, "username"),
        ("PATCH", "/admin/users/{id}", {"role": None}, "role"),
        ("PATCH", "/admin/users/{id}", {"disabled": None}, "disabled"),
        ("PATCH", "/admin/users/{id}", {"role": "superuser"}, "role"),
        ("PATCH", "/admin/users/{id}", {"disabled": "perhaps"}, "disabled"),
        ("PATCH", "/admin/users/{id}", {"username": "x" * 300}, "username"),
        ("PATCH", "/admin/users/{id}", {"password_hash": "x"}, "extra_forbidden"),
        ("PATCH", "/admin/users/{id}", {"password": "a password of mine"}, "extra_forbidden"),
        ("PATCH", "/admin/users/{id}?yes=1", {"disabled": True}, "extra_forbidden"),
        ("PATCH", "/admin/users/{id}?allow_self=perhaps", {"disabled": True}, "allow_self"),
        ("PATCH", "/admin/users/1", {"disabled": True}, "user_id"),
        ("POST", "/admin/users", {"username": "ada", "password": "a password of mine"}, "extra_forbidden"),
        ("POST", "/admin/users", {"username": "ada", "credential": "password"}, "credential"),
        ("POST", "/admin/users", {"role": "user"}, "username"),
        ("POST", "/admin/users/{id}/password-token", {"new_password": "x"}, "extra_forbidden"),
    ],
    ids=str,
)
async def test_bad_requests_change_nothing(
    office: Office, method: str, path: str, body: dict[str, object], names: str
) -> None:
    """422, the field is named, nothing is repeated; and no field takes a password from an administrator."""
    ada = await office.person("ada-the-first")
    answer = await office.http.request(method, path.format(id=ada.user.id), json=body)
    assert answer.status_code == 422, answer.text
    assert names in answer.text
    assert "of mine" not in answer.text
    assert await office.events(ada.user.id) == []


async def test_unknown_users(office: Office) -> None:
    """404 on all of it; that somebody looked is in the trail."""
    path = f"/admin/users/{uuid4()}"
    await office.refused("GET", path, 404, "user_not_found")
    await office.refused("PATCH", path, 404, "user_not_found", json={"disabled": True})
    await office.refused("DELETE", path, 404, "user_not_found")
    await office.refused("POST", f"{path}/password-token", 404, "user_not_found")
    (row,) = await office.sql.fetch("SELECT detail FROM audit_events WHERE action = 'admin.queried'")
    assert json.loads(row["detail"])["count"] == 0
