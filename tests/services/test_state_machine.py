"""
Users, sessions, time, retries, thefts and crashes of the client, against a model.

The model knows only the words of the contract: which generation is live, when it was spent and with which key, when a
session ends and why. After every step the product's tables and its trail must say the same.
"""

import asyncio
import os
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from app.cli.schema import upgrade_schema
from app.container import Container
from app.domain.errors import InvalidCredentials, RefreshTokenRejected
from app.domain.events import SYSTEM
from tests import postgresql
from tests.conftest import MovableClock, client_at, make_settings

CAP, GRACE, RETRY, IDLE, ABSOLUTE = 3, 10, 3600, 1000, 4000
KEYS = [f"key-number-{n}-of-the-state-machine" for n in range(2)]

PAUSES = st.sampled_from([0.0, 0.000001, 9.999999, 10.0, 600.0, 1000.0])


@dataclass
class Session:
    """What the contract says of one session."""

    user: str
    id: UUID
    created_at: datetime
    tokens: list[str]  # by generation; the last is the live one
    idle_expires_at: datetime
    rotated_at: datetime | None = None
    attempt: str | None = None
    reason: str | None = None

    @property
    def expires_at(self) -> datetime:
        return self.created_at + timedelta(seconds=ABSOLUTE)

    def lapsed(self, now: datetime) -> str | None:
        if now >= self.expires_at:
            return "absolute_timeout"
        return "idle_timeout" if now >= self.idle_expires_at else None

    def active(self, now: datetime) -> bool:
        return self.reason is None and self.lapsed(now) is None


@dataclass
class Account:
    id: UUID
    password: str
    sessions: list[Session] = field(default_factory=list)


class Machine(RuleBasedStateMachine):
    """One run of it."""

    url: str
    loop: asyncio.AbstractEventLoop
    sql: asyncpg.Connection

    users = Bundle("users")
    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.clock = MovableClock()
        self.services = Container.build(
            make_settings(
                self.url,
                max_sessions_per_user=CAP,
                refresh_idle_seconds=IDLE,
                session_max_seconds=ABSOLUTE,
                refresh_grace_seconds=GRACE,
                refresh_retry_seconds=RETRY,
            ),
            self.clock,
        )
        self.accounts: dict[str, Account] = {}
        self.access_token = ""  # of the last pair

    def do(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def teardown(self) -> None:
        self.do(self.services.close())

    @initialize(target=users)
    def two_users(self) -> Any:
        return multiple(self.register(), self.register())

    def register(self) -> str:
        name, password = f"model-{secrets.token_hex(8)}", "a zeppelin over the marsh, 0"
        user = self.do(self.services.users.register(name, password, client=client_at()))
        self.accounts[name] = Account(user.id, password)
        return name

    @rule(target=sessions, user=users)
    def sign_in(self, user: str) -> Session:
        account = self.accounts[user]
        with pytest.raises(InvalidCredentials):
            self.do(self.services.sign_in.with_password(user, "a wrong password", client=client_at()))
        issued = self.do(self.services.sign_in.with_password(user, account.password, client=client_at()))
        now = self.clock.time
        active = [session for session in account.sessions if session.active(now)]
        for session in active[: max(0, len(active) - CAP + 1)]:
            session.reason = "evicted"
        idle = min(now + timedelta(seconds=IDLE), now + timedelta(seconds=ABSOLUTE))
        session = Session(user, issued.session_id, now, [issued.refresh_token], idle)
        account.sessions.append(session)
        return session

    @rule(session=sessions, back=st.integers(0, 1), after=PAUSES, key=st.sampled_from([None, *KEYS]))
    def present_the_live_token_or_the_one_before(
        self, session: Session, back: int, after: float, key: str | None
    ) -> None:
        self.clock.advance(seconds=after)
        self.present(session, back, key)

    @rule(session=sessions, after=PAUSES, first=st.sampled_from([None, *KEYS]), key=st.sampled_from([None, *KEYS]))
    def refresh_and_present_the_spent_token(
        self, session: Session, after: float, first: str | None, key: str | None
    ) -> None:
        """A retry if it comes in time or with the right key, a theft otherwise."""
        self.present(session, 0, first)
        self.clock.advance(seconds=after)
        self.present(session, 1, key)

    @rule(session=sessions, back=st.integers(2, 3))
    def present_an_older_token(self, session: Session, back: int) -> None:
        self.present(session, back, None)

    def present(self, session: Session, back: int, key: str | None) -> None:
        """The owner, a retry, or a thief: the server cannot know, and the model does not care who it is."""
        generation = max(0, len(session.tokens) - 1 - back)
        token, now = session.tokens[generation], self.clock.time
        live = len(session.tokens) - 1
        expected = self.verdict(session, generation, live, key)
        try:
            issued = self.do(self.services.refresh.rotate(token, idempotency_key=key, client=client_at()))
        except RefreshTokenRejected:
            assert expected == "refused"
            return
        self.access_token = issued.access_token
        assert expected != "refused"
        assert issued.session_id == session.id
        if expected == "rotated":
            assert issued.refresh_token not in session.tokens
            session.tokens.append(issued.refresh_token)
            session.rotated_at, session.attempt = now, key
            session.idle_expires_at = min(now + timedelta(seconds=IDLE), session.expires_at)
        else:
            assert issued.refresh_token == session.tokens[-1]

    def verdict(self, session: Session, generation: int, live: int, key: str | None) -> str:
        """What must come, with the end it writes."""
        now = self.clock.time
        if session.reason is not None:
            return "refused"
        if (lapsed := session.lapsed(now)) is not None:
            session.reason = lapsed
            return "refused"
        if generation == live:
            return "rotated"
        if generation == live - 1 and session.rotated_at is not None:
            age = (now - session.rotated_at).total_seconds()
            if age < GRACE or (key is not None and key == session.attempt and age < RETRY):
                return "replayed"
        session.reason = "reuse"
        return "refused"

    @rule(session=sessions, key=st.sampled_from([None, KEYS[0]]))
    def the_client_crashes_before_it_stores_the_answer(self, session: Session, key: str | None) -> None:
        """It has only the spent token left, and presents it again at once."""
        if not session.active(self.clock.time):
            return
        self.present(session, 0, key)
        self.present(session, 1, key)
        assert session.reason is None

    @rule(session=sessions, how=st.sampled_from(["log_out", "change_password", "disable", "expiry_job", "nothing"]))
    def end_somehow(self, session: Session, how: str) -> None:
        """One rule for all ends, so that sessions live long enough to be refreshed."""
        account = self.accounts[session.user]
        match how:
            case "log_out":
                self.log_out(session)
            case "change_password" if session.active(self.clock.time):
                self.change_password(account, session)
            case "disable":
                self.disable_and_enable(account, session.user)
            case "expiry_job":
                self.let_the_expiry_job_come_by()

    def log_out(self, session: Session) -> None:
        token = session.tokens[len(session.tokens) // 2]
        _, ended = self.do(self.services.sessions.log_out_with_refresh_token(token, client=client_at()))
        assert ended == session.active(self.clock.time)
        self.end(session, "logout")

    def change_password(self, account: Account, session: Session) -> None:
        self.present(session, 0, None)
        caller = self.do(self.services.authentication.authenticate(self.access_token))
        new = f"a zeppelin over the marsh, {secrets.token_hex(4)}"
        self.do(self.services.password_change.change(caller, current=account.password, new=new, client=client_at()))
        account.password = new
        self.end_all(account, "password_change", keep=session)

    def disable_and_enable(self, account: Account, username: str) -> None:
        self.do(self.services.users.disable(account.id, actor=SYSTEM, client=client_at()))
        self.end_all(account, "user_disabled")
        with pytest.raises(InvalidCredentials):
            self.do(self.services.sign_in.with_password(username, account.password, client=client_at()))
        assert self.do(self.services.users.enable(account.id, actor=SYSTEM, client=client_at()))

    def let_the_expiry_job_come_by(self) -> None:
        while self.do(self.services.housekeeping.end_lapsed_sessions()):
            pass
        for account in self.accounts.values():
            for session in account.sessions:
                session.reason = session.reason or session.lapsed(self.clock.time)

    def end_all(self, account: Account, reason: str, keep: Session | None = None) -> None:
        for session in account.sessions:
            if session is not keep:
                self.end(session, reason)

    def end(self, session: Session, reason: str) -> None:
        """What has lapsed before is written down as lapsed, whoever writes it."""
        session.reason = session.reason or session.lapsed(self.clock.time) or reason

    @invariant()
    def the_tables_say_the_same(self) -> None:
        """Generation, end and reason of each session; and its trail is numbered 1..n and ends once."""
        for account in self.accounts.values():
            rows = self.do(self.sql.fetch("SELECT * FROM families WHERE user_id = $1", account.id))
            stored = {row["id"]: (row["generation"], row["end_reason"]) for row in rows}
            assert stored == {s.id: (len(s.tokens) - 1, s.reason) for s in account.sessions}
            trail = "SELECT * FROM audit_events WHERE subject_id = $1 ORDER BY occurred_at, seq"
            events = self.do(self.sql.fetch(trail, account.id))
            for row in rows:
                mine = [event for event in events if event["family_id"] == row["id"] and event["family_seq"]]
                assert [event["family_seq"] for event in mine] == list(range(1, row["event_seq"] + 1))
                ends = [event["reason"] for event in mine if event["action"] == "session.ended"]
                assert ends == ([row["end_reason"]] if row["end_reason"] else [])
                refreshed = [event for event in mine if event["action"] == "session.refreshed"]
                assert len(refreshed) == row["generation"]


def test_against_the_model(server_url: str) -> None:
    """Hypothesis looks for a sequence of steps after which product and model disagree."""
    loop = asyncio.new_event_loop()
    try:
        name = f"rota_model_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
        url = loop.run_until_complete(postgresql.make_database(server_url, name))
        loop.run_until_complete(asyncio.to_thread(upgrade_schema, url))
        sql = loop.run_until_complete(asyncpg.connect(url))
        machine = type("Machine", (Machine,), {"url": url, "loop": loop, "sql": sql})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=22,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        loop.run_until_complete(sql.close())
    finally:
        loop.close()
