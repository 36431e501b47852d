"""The small rules: names, agents, cursors, canonical JSON."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.canonical_json import encode, parse_strict
from app.domain.clients import clean_user_agent
from app.domain.errors import InputInvalid, UsernameRefused
from app.domain.pages import Position, read_cursor, write_cursor
from app.domain.users import username_key


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Ada", "ada"),
        ("ada@Example.org", "ada@example.org"),
        ("\u212ate", "kte"),  # the Kelvin sign
        ("\uff21da", "ada"),  # full width
        ("A\u030angstrom", "\u00e5ngstrom"),
        ("\u0131", "\u0131"),  # a dotless i is not an i (CVE-2019-19844)
    ],
)
def test_names_with_one_key_are_one_name(name: str, key: str) -> None:
    """RFC 8265: case, width and composition do not make another person."""
    assert username_key(name) == key


@pytest.mark.parametrize(
    "name", ["", "two words", "tab\t", "line\r\nend", "nul\0", "\x1b[31m", "\u2028", "x" * 255, "\ud800"]
)
def test_refused_names(name: str) -> None:
    """Nothing that could be read as something else in a log or a list."""
    with pytest.raises(UsernameRefused):
        username_key(name)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (None, None),
        (b"", None),
        (b"curl/8", "curl/8"),
        (b"a\x00b\x1b[0m\r\nc", "ab[0mc"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * 100_000, "x" * 512),
        ("\u00e9".encode() * 400, "\u00e9" * 256),
        (b"\x00\x01", None),
    ],
)
def test_agents_are_cut_and_cleaned(raw: bytes | None, clean: str | None) -> None:
    """At most 512 bytes at whole characters, no control characters."""
    assert clean_user_agent(raw) == clean


@given(st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC)), st.uuids())  # noqa: DTZ001 - bounds are naive there
def test_a_cursor_names_its_place(at: datetime, identity: Any) -> None:
    """To the microsecond."""
    assert read_cursor(write_cursor(Position(at, identity))) == Position(at, identity)


@given(st.text(max_size=40))
def test_no_text_breaks_the_cursor(text: str) -> None:
    """Any other text is refused as input."""
    try:
        read_cursor(text)
    except InputInvalid:
        return
    assert write_cursor(read_cursor(text)) == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(json_values)
def test_canonical_json_is_json_and_has_one_spelling(value: Any) -> None:
    """It reads back as the same value, and the value has no second text."""
    text = encode(value)
    assert parse_strict(text.encode()) == value
    assert encode(json.loads(text)) == text


def test_canonical_json_sorts_by_utf_16() -> None:
    """RFC 8785 section 3.2.3: code units, not code points."""
    assert encode({"\ufb33": 1, "\U0001f600": 2, "a": 3}) == '{"a":3,"\U0001f600":2,"\ufb33":1}'


@pytest.mark.case(95)
@pytest.mark.parametrize(
    "value",
    [
        1.5,
        float("nan"),
        2**53 + 1,
        {1: 2},
        b"bytes",
        {"a": {"b": object()}},
        "\ud800",
        dict.fromkeys(map(str, range(10**6))),
    ],
    ids=["float", "NaN", "large", "number as name", "bytes", "object inside", "surrogate", "a million members"],
)
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    """Floats and large integers would differ between readers."""
    with pytest.raises(ValueError):
        encode(value)


@pytest.mark.case(95)
@pytest.mark.parametrize(
    "raw",
    [b'{"a":1,"a":2}', b"NaN", b"[Infinity]", b"\xff", b"", b"{", b"[" * 100_000, b'{"a":{"b":1,"b":1}}'],
    ids=["twice", "NaN", "Infinity", "not UTF-8", "empty", "half", "deep", "twice inside"],
)
def test_ambiguous_json_is_refused(raw: bytes) -> None:
    """One meaning or none."""
    with pytest.raises(ValueError):
        parse_strict(raw)


@pytest.mark.case(95)
def test_deep_nesting_has_no_canonical_form() -> None:
    """Sixteen levels are enough for a detail."""
    value: Any = 0
    for _ in range(17):
        value = [value]
    with pytest.raises(ValueError):
        encode(value)
