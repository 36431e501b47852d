"""What became of a session: its generations, both presenters of a reuse, and one sentence."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.domain.errors import RefreshTokenRejected
from app.domain.events import NO_CLIENT, SYSTEM, Actor, ActorKind
from app.domain.families import EndReason
from app.domain.users import Role
from app.services.revocation_work import Step
from tests.admin.found import Desk
from tests.admin.found import desk as desk  # noqa: PLC0414 - a fixture
from tests.conftest import client_at


async def explain(desk: Desk, session: object) -> tuple[str, list[str]]:
    """The sentence, and the actions of its evidence."""
    said = await desk.ask(f"/{session}/explain")
    assert said["session_id"] == str(session)
    assert said["explanation"].endswith(".")
    assert "\n" not in said["explanation"]
    return said["explanation"], [event["action"] for event in said["evidence"]]


async def test_a_timeline_by_generation(desk: Desk) -> None:
    """Each rotation with time, address and agent; replays with the generation that was live; newest first."""
    ada = await desk.person("ada")
    tokens = [await ada.sign_in(client=client_at("203.0.113.1", "Lynx"))]
    for number in range(3):
        desk.clock.advance(minutes=10)
        tokens.append(await ada.refresh(tokens[-1].refresh_token, address=f"203.0.113.{number + 2}"))
    await ada.refresh(tokens[-2].refresh_token, address="198.51.100.77")  # in grace: a replay
    session = tokens[0].session_id
    shown = await desk.ask(f"/{session}")
    assert (shown["user"]["username"], shown["generation"], shown["state"]) == ("ada", 3, "active")
    generations = shown["timeline"]["generations"]
    assert [(each["generation"], each["how"]) for each in generations] == [
        (3, "rotation"),
        (2, "rotation"),
        (1, "rotation"),
        (0, "sign_in"),
    ]
    assert [each["began"]["ip"] for each in generations] == [f"203.0.113.{number}" for number in (4, 3, 2, 1)]
    assert generations[-1]["began"]["user_agent"] == "Lynx"
    assert [(each["ip"], each["reason"]) for each in generations[0]["replays"]] == [("198.51.100.77", "grace")]
    assert not any(each["replays"] for each in generations[1:])
    assert (shown["timeline"]["reuse"], shown["timeline"]["end"], shown["timeline"]["next"]) == (None, None, None)


async def test_a_long_timeline_comes_in_pages(desk: Desk) -> None:
    """Thirty rotations in pages of five: each generation once, and a cursor is of one session."""
    ada = await desk.person("ada")
    issued = await ada.sign_in()
    other = await ada.sign_in()
    for _ in range(30):
        desk.clock.advance(minutes=1)
        issued = await ada.refresh(issued.refresh_token)
    numbers: list[int] = []
    after: dict[str, str] = {}
    while True:
        timeline = (await desk.ask(f"/{issued.session_id}", limit=5, **after))["timeline"]
        numbers += [each["generation"] for each in timeline["generations"]]
        if timeline["next"] is None:
            break
        after = {"after": timeline["next"]}
        assert (await desk.refused(422, f"/{other.session_id}", limit=5, **after))["code"] == "input_invalid"
    assert numbers == list(range(30, -1, -1))


async def test_a_reuse_shows_both_presenters_side_by_side(desk: Desk) -> None:
    """Who spent the token, and who presented it again, each with time, address and agent; what was tried later too."""
    ada = await desk.person("ada")
    first = await ada.sign_in(client=client_at("203.0.113.1"))
    second = await ada.refresh(first.refresh_token, address="203.0.113.2")
    third = await ada.refresh(second.refresh_token, address="203.0.113.3")
    desk.clock.advance(hours=1)
    for token, address in ((first, "198.51.100.66"), (third, "203.0.113.4")):
        with pytest.raises(RefreshTokenRejected):
            await ada.refresh(token.refresh_token, address=address)
    shown = await desk.ask(f"/{first.session_id}")
    timeline = shown["timeline"]
    assert (shown["state"], shown["end_reason"]) == ("ended", "reuse")
    assert timeline["reuse"]["generation"] == 0
    assert timeline["reuse"]["spent"]["ip"] == "203.0.113.2"
    assert timeline["reuse"]["presented"]["ip"] == "198.51.100.66"
    assert timeline["end"]["reason"] == "reuse"
    assert [(each["action"], each["ip"]) for each in timeline["refusals"]] == [("refresh.refused", "203.0.113.4")]
    assert [each["generation"] for each in timeline["generations"]] == [2, 1, 0]
    sentence, evidence = await explain(desk, first.session_id)
    assert evidence == ["session.refreshed", "refresh.reused", "session.ended"]
    spent, presented = sentence.index("from 203.0.113.2"), sentence.index("from 198.51.100.66")
    assert spent < presented
    assert all(words in sentence for words in ("ada", "somebody has a copy", "generation 0"))


async def test_alive_and_until_when(desk: Desk) -> None:
    """Both limits, and when it was last used."""
    ada = await desk.person("ada")
    issued = await ada.sign_in(client=client_at("203.0.113.1"))
    sentence, evidence = await explain(desk, issued.session_id)
    idle, absolute = (f"{desk.clock.time + timedelta(days=days):%Y-%m-%d %H:%M:%S}" for days in (7, 30))
    assert all(words in sentence for words in ("ada", "203.0.113.1", "is alive", "never refreshed", idle, absolute))
    assert evidence == ["session.created"]
    desk.clock.advance(days=1)
    at = f"last refreshed at {desk.clock.time:%Y-%m-%d %H:%M:%S}"
    await ada.refresh(issued.refresh_token)
    assert at in (await explain(desk, issued.session_id))[0]


async def test_lapsed_before_and_after_it_is_written(desk: Desk) -> None:
    """Over from the limit on, whoever has written that; both say when the limit passed."""
    ada = await desk.person("ada")
    issued = await ada.sign_in()
    limit = f"the limit passed at {desk.clock.time + timedelta(days=7):%Y-%m-%d %H:%M:%S}"
    desk.clock.advance(days=8)
    before, evidence = await explain(desk, issued.session_id)
    assert "its end is not written yet" in before
    assert limit in before
    assert evidence == ["session.created"]
    with pytest.raises(RefreshTokenRejected):
        await ada.refresh(issued.refresh_token)
    after, evidence = await explain(desk, issued.session_id)
    assert limit in after
    assert f"is over since {desk.clock.time - timedelta(days=1):%Y-%m-%d}" in after
    assert evidence == ["session.ended"]


async def test_the_longest_life(desk: Desk) -> None:
    """The absolute limit, named as such."""
    ada = await desk.person("ada")
    issued = await ada.sign_in()
    session = issued.session_id
    for _ in range(4):
        desk.clock.advance(days=6)
        issued = await ada.refresh(issued.refresh_token)
    desk.clock.advance(days=6, seconds=1)
    sentence, _ = await explain(desk, session)
    assert "it reached the longest time that it might live" in sentence


ADMIN = "the administrator eve"
OPERATOR = "an operator on the command line"

ENDS: list[Any] = [
    pytest.param(EndReason.LOGOUT, "self", "the user signed out of it", id="logout"),
    pytest.param(EndReason.LOGOUT_ALL, "self", "the user ended all their other sessions", id="logout_all"),
    pytest.param(EndReason.ADMIN, "admin", f"{ADMIN} ended it", id="admin"),
    pytest.param(EndReason.ADMIN, "system", f"{OPERATOR} ended it", id="command line"),
    pytest.param(EndReason.BULK_ADMIN, "admin", f"{ADMIN} ended it together with others", id="bulk_admin"),
    pytest.param(EndReason.PASSWORD_CHANGE, "self", "the password was changed by the user", id="password_change"),
    pytest.param(EndReason.USER_DISABLED, "admin", f"disabled or removed by {ADMIN}", id="user_disabled"),
    pytest.param(EndReason.ROLE_CHANGE, "admin", f"given another role by {ADMIN}", id="role_change"),
    pytest.param(EndReason.EVICTED, "self", "had too many sessions", id="evicted"),
    pytest.param(EndReason.RESTORE, "system", "an older copy", id="restore"),
    pytest.param(EndReason.OAUTH_REVOCATION, "client", "the client ", id="oauth_revocation"),
]


@pytest.mark.parametrize(("reason", "by", "words"), ENDS)
async def test_each_reason_and_actor(desk: Desk, reason: EndReason, by: str, words: str) -> None:
    """Why, who, when and from where, with the event of the end."""
    ada, eve = await desk.person("ada"), await desk.person("eve", Role.ADMIN)
    issued = await ada.sign_in()
    actor = {
        "self": Actor(ActorKind.USER, ada.user.id),
        "admin": Actor(ActorKind.ADMIN, eve.user.id),
        "system": SYSTEM,
        "client": Actor(ActorKind.CLIENT, uuid4()),
    }[by]
    desk.clock.advance(minutes=3)
    await desk.services.sessions.end(
        ada.user.id, issued.session_id, actor=actor, client=client_at("192.0.2.8"), reason=reason
    )
    sentence, evidence = await explain(desk, issued.session_id)
    assert words in sentence
    assert f"is over since {desk.clock.time:%Y-%m-%d %H:%M:%S} UTC" in sentence
    assert "192.0.2.8" in sentence
    assert evidence == ["session.ended"]
    end = (await desk.ask(f"/{issued.session_id}"))["timeline"]["end"]
    assert (end["reason"], end["ip"]) == (reason.value, "192.0.2.8")


async def test_without_the_events_the_row_still_says_why(desk: Desk) -> None:
    """Retention may have removed them: the reason and whoever is in the row remain."""
    await desk.make_rows(60)
    seen = set()
    for row in desk.rows:
        if row["end_reason"] is not None:
            sentence, evidence = await explain(desk, row["id"])
            assert evidence == []
            seen.add((row["end_reason"], sentence.split(" UTC: ")[1][:12]))
    assert {reason for reason, _ in seen} == {"logout", "reuse", "admin", "idle_timeout"}


async def test_an_end_at_the_same_moment_as_other_events_of_the_user(desk: Desk) -> None:
    """Each session's evidence is its own."""
    ada = await desk.person("ada")
    sessions = [await ada.sign_in() for _ in range(3)]
    await desk.services.users.disable(ada.user.id, actor=SYSTEM, client=NO_CLIENT)
    for issued in sessions:
        said = await desk.ask(f"/{issued.session_id}/explain")
        assert [event["session_id"] for event in said["evidence"]] == [str(issued.session_id)]
        assert "disabled or removed by an operator on the command line" in said["explanation"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"filter": {"user": "ada"}}, "together with others"),
        (
            {"issued_before": "2100-01-01T00:00:00Z"},
            "with all that began before 2100-01-01 00:00:00 UTC, after a restore",
        ),
    ],
    ids=["by filter", "older than a moment"],
)
async def test_an_end_in_bulk_leads_to_the_order(desk: Desk, body: dict[str, Any], words: str) -> None:
    """Who, which bulk end and why they said; its order is evidence. After a restore no token is blamed."""
    ada, eve = await desk.person("ada"), await desk.person("eve", role=Role.ADMIN)
    issued, hers = await ada.sign_in(), await eve.sign_in()
    headers = {"Authorization": f"Bearer {hers.access_token}"}
    seen = (await desk.http.post("/admin/sessions/revocations", json={**body, "dry_run": True}, headers=headers)).json()
    order = {**body, "fingerprint": seen["fingerprint"], "reason": " ticket\n4711"}
    started = await desk.http.post("/admin/sessions/revocations", json=order, headers=headers)
    revocation = started.json()["id"]
    while (await desk.services.revocation_work.advance(UUID(revocation))) is not Step.FINISHED:
        pass
    explained = await desk.services.session_stories.explain(issued.session_id, actor=SYSTEM, client=NO_CLIENT)
    said = f"UTC: the administrator eve ended it {words} (bulk end {revocation}: ticket 4711)."
    assert explained.sentence.endswith(said)
    assert [event.action for event in explained.evidence] == ["revocation.started", "session.ended"]
