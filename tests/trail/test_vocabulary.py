"""One closed list: what is written, what is documented and what is verified are the same."""

import ast
import importlib.util
import json
from pathlib import Path

import asyncpg
import pytest

from app.domain.entries import SealedFields, entry_of
from app.domain.entry_forms import UnknownForm, read_entry
from app.domain.events import NO_CLIENT, SYSTEM, Action, Event, Outcome
from app.domain.vocabulary import DEFINITIONS, REASONS
from app.domain.vocabulary_check import check
from app.repositories.rotations import ROTATE
from tests.trail.conftest import Log

ROOT = Path(__file__).parents[2]


def test_the_reference_is_of_this_vocabulary() -> None:
    """`make docs` would change nothing."""
    spec = importlib.util.spec_from_file_location("generate_events", ROOT / "docs" / "generate_events.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "reference" / "events.md").read_text() == module.page()


def test_every_action_is_defined_and_every_reason_explained() -> None:
    """And no explanation is of a reason that nothing has."""
    assert set(DEFINITIONS) == set(Action)
    assert set(REASONS) == set().union(*(definition.reasons for definition in DEFINITIONS.values()))


def test_every_reason_is_written_somewhere() -> None:
    """A reason that no code uses would be a promise that nobody keeps; ends are checked by their own type."""
    strings = {
        node.value
        for path in (ROOT / "app").rglob("*.py")
        if path.name not in {"vocabulary.py", "login_vocabulary.py", "definitions.py", "families.py"}
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    ends = DEFINITIONS[Action.SESSION_ENDED].reasons
    assert set(REASONS) - ends - strings == {"rolled_up"}


@pytest.mark.parametrize(
    "event",
    [
        Event(Action.USER_CREATED, SYSTEM, NO_CLIENT),
        Event(Action.USER_CREATED, SYSTEM, NO_CLIENT, detail={"role": "user", "more": 1}),
        Event(Action.USER_CREATED, SYSTEM, NO_CLIENT, detail={"role": 7}),
        Event(Action.USER_DISABLED, SYSTEM, NO_CLIENT, reason="because"),
        Event(Action.USER_DISABLED, SYSTEM, NO_CLIENT, outcome=Outcome.FAILURE),
        Event(Action.LOGIN_FAILED, SYSTEM, NO_CLIENT, outcome=Outcome.FAILURE),
        Event(Action.SESSION_REFRESHED, SYSTEM, NO_CLIENT, family_seq=1, generation=1),
        Event(Action.USER_DISABLED, SYSTEM, NO_CLIENT, family_seq=1, generation=1),
    ],
    ids=range(8),
)
def test_what_the_list_does_not_know_is_not_written(event: Event) -> None:
    """A missing or foreign detail, a reason or outcome that the action does not have, a counter out of place."""
    with pytest.raises(ValueError, match=event.action):
        check(event)


async def test_what_the_code_writes_is_in_the_list(log: Log, own_sql: asyncpg.Connection) -> None:
    """Events as stored, the hot statement's among them, are entries that the verifier takes."""
    await log.live("ada", 2, end=True)
    names = [name for name in SealedFields._fields if name != "ip"]
    rows = await own_sql.fetch(f"SELECT {', '.join(names)}, host(ip) AS ip FROM audit_events")
    for row in rows:
        read_entry(entry_of(SealedFields(**dict(row)), None))
    assert {row["action"] for row in rows} == {"user.created", "session.created", "session.refreshed", "session.ended"}
    assert f"'{Action.SESSION_REFRESHED}'" in ROTATE


@pytest.mark.parametrize(
    "spoil",
    [
        lambda e: {**e, "k": "rota.event/2"},
        lambda e: {**e, "more": 1},
        lambda e: {name: value for name, value in e.items() if name != "reason"},
        lambda e: {**e, "occurred_at": "2026-11-23T10:00:00Z"},
        lambda e: {**e, "id": e["id"].upper()},
        lambda e: {**e, "generation": True},
        lambda e: {**e, "action": ["user.created"]},
        lambda e: {**e, "detail": {"role": 1.5}},
        lambda e: {**e, "commitment": "AAAA"},
        lambda e: [e],
    ],
    ids=range(10),
)
def test_another_form_is_refused(spoil: object) -> None:
    """Members missing or added, other spellings, other types, floats."""
    entry = {
        **dict.fromkeys(("actor_id", "commitment", "family_id", "family_seq", "generation", "reason", "request_id")),
        "action": "user.created",
        "actor_kind": "system",
        "detail": {"role": "user"},
        "id": "01a20919-3dff-75f0-b469-d2bd459f7ae8",
        "k": "rota.event/1",
        "occurred_at": "2026-11-23T10:00:00.000000Z",
        "outcome": "success",
        "subject_id": "01a20919-3dff-75f0-b469-d2bd459f7ae9",
    }

    def written(value: object) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    assert read_entry(written(entry))["action"] == "user.created"
    assert callable(spoil)
    with pytest.raises(UnknownForm):
        read_entry(written(spoil(entry)))


@pytest.mark.parametrize(
    "entry",
    [b"", b"{", b"\xff", b'{"k": "rota.event/1"}', b'{"k":"a","k":"b"}', b"[" * 100_000, b"1e999", b"NaN", b"0.1"],
    ids=range(9),
)
def test_noise_is_refused(entry: bytes) -> None:
    """No traceback, whatever comes."""
    with pytest.raises(UnknownForm):
        read_entry(entry)
