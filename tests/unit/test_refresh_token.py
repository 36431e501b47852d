"""The token's format: one spelling, nothing but ours, nothing without both halves."""

import base64
from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from app.domain.refresh_token import (
    GENERATION_LIMIT,
    PREFIX,
    TOKEN_LENGTH,
    TokenKeys,
    build,
    half_proof,
    is_proof,
    parse,
)
from app.security.keys import KeyIdsCollide, Keyring, derive

SECRETS = [b"a" * 32, b"b" * 32]
RING = Keyring(SECRETS)
SEED = b"s" * 32

uuids = st.uuids()
generations = st.integers(0, GENERATION_LIMIT - 1)


def token_of(user: UUID, family: UUID, generation: int, keys: TokenKeys = RING.minting, seed: bytes = SEED) -> str:
    return build(keys, user_id=user, family_id=family, generation=generation, seed=seed)


@given(uuids, uuids, generations, st.binary(min_size=32, max_size=32))
def test_what_is_built_is_read_back(user: UUID, family: UUID, generation: int, seed: bytes) -> None:
    """Every field survives, and the proof is right for its generation and no other."""
    text = token_of(user, family, generation, seed=seed)
    token = parse(text, RING.token_keys)
    assert token is not None
    assert len(text) == TOKEN_LENGTH == 112
    assert (token.user_id, token.family_id, token.generation) == (user, family, generation)
    assert is_proof(token, seed, half_proof(RING.minting.mint, user, family, generation))
    assert not is_proof(token, seed, half_proof(RING.minting.mint, user, family, (generation + 1) % GENERATION_LIMIT))


@pytest.mark.case(13)
@given(st.integers(0, 78 * 8 - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    """The tag covers every bit."""
    text = token_of(uuid7(), uuid7(), 7)
    raw = bytearray(base64.urlsafe_b64decode(text.removeprefix(PREFIX)))
    raw[bit // 8] ^= 1 << bit % 8
    assert parse(PREFIX + base64.urlsafe_b64encode(raw).decode(), RING.token_keys) is None


@given(st.integers(0, TOKEN_LENGTH - 1), st.characters(codec="utf-8"))
def test_a_token_has_one_spelling(place: int, character: str) -> None:
    """No other text with one character changed, added or removed is a token."""
    text = token_of(uuid7(), uuid7(), 0)
    changed = text[:place] + character + text[place + 1 :]
    assert (parse(changed, RING.token_keys) is None) == (changed != text)
    assert parse(text[:place] + character + text[place:], RING.token_keys) is None
    assert parse(text[:place] + text[place + 1 :], RING.token_keys) is None


@pytest.mark.case(13)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(PREFIX, id="prefix only"),
        pytest.param("rota_at_" + "A" * 104, id="other prefix"),
        pytest.param("x" * 1_000_000, id="a megabyte"),
        pytest.param(PREFIX + "A" * 104, id="zeros"),
        pytest.param(PREFIX + "A" * 103 + "=", id="padding"),
        pytest.param(PREFIX + "A" * 103 + "+", id="other base64 alphabet"),
        pytest.param(PREFIX + "\u0661" * 104, id="digits of another script"),
        pytest.param("eyJhbGciOiJFUzI1NiJ9.e30.AAAA", id="a JWT"),
    ],
)
def test_noise_is_refused(text: str) -> None:
    """Nothing that we have not made is read, whatever it looks like."""
    assert parse(text, RING.token_keys) is None


@given(st.text(max_size=200))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Any text is answered."""
    assert parse(text, RING.token_keys) is None


@pytest.mark.parametrize("ending", ["\n", " ", "\0"])
def test_a_token_with_something_after_it_is_no_token(ending: str) -> None:
    """The whole text counts."""
    assert parse(token_of(uuid7(), uuid7(), 0) + ending, RING.token_keys) is None


def test_older_secrets_are_recognised_and_unknown_ones_not() -> None:
    """The second secret's tokens are read; a stranger's are noise, and so are ours to a stranger."""
    old = Keyring(SECRETS[1:])
    assert parse(token_of(uuid7(), uuid7(), 0, old.minting), RING.token_keys) is not None
    assert parse(token_of(uuid7(), uuid7(), 0, RING.minting), old.token_keys) is None


def test_neither_half_makes_a_token() -> None:
    """With the keys and a wrong seed, or the seed and wrong keys, the proof is wrong."""
    user, family = uuid7(), uuid7()
    token = parse(token_of(user, family, 3), RING.token_keys)
    assert token is not None
    right = half_proof(RING.minting.mint, user, family, 3)
    wrong = half_proof(Keyring([b"c" * 32]).minting.mint, user, family, 3)
    assert is_proof(token, SEED, right)
    assert not is_proof(token, b"t" * 32, right)
    assert not is_proof(token, SEED, wrong)


def test_a_key_id_does_not_depend_on_the_position() -> None:
    """Adding a secret in front renames no other."""
    assert set(Keyring(SECRETS[1:]).token_keys) < set(RING.token_keys)


def test_secrets_with_the_same_key_id_are_refused() -> None:
    """Two secrets that tokens could not tell apart never serve together."""
    ids = Counter[int]()
    found: dict[int, bytes] = {}
    for number in range(300):
        secret = f"{number:032}".encode()
        key_id = derive(secret, "key id", 1)[0]
        if ids[key_id]:
            with pytest.raises(KeyIdsCollide):
                Keyring([secret, found[key_id]])
            return
        ids[key_id] += 1
        found[key_id] = secret
    pytest.fail("300 secrets without a collision of one byte")


def test_purposes_have_unrelated_keys() -> None:
    """No two keys of one secret are the same."""
    purposes = ("refresh mint", "refresh tag", "attempt", "unknown names", "sign/1")
    assert len({derive(SECRETS[0], purpose) for purpose in purposes}) == len(purposes)
