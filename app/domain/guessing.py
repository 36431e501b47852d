"""
How few guesses lead to a password, as far as lists, runs and repetition tell.

Not a measure of strength: whatever is in no list counts as if it were drawn by lot. It finds what a comparison with a
list misses because it was stretched to the length that is demanded: `passwordpassword1`.
"""

import math
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final

CHARACTERS_MAXIMUM: Final = 72  # at most some 6 ms of work; nobody stretches a word any further

_WORD: Final = range(3, 33)  # characters of a word that is looked up
_TOKEN_BITS: Final = 1.0  # for where a word ends and what comes next
_ALTERED_BITS: Final = 1.0  # for capitals, or digits that look like letters
_RUN_BITS: Final = 5.0  # where it begins, and which way it goes
_COPY_BITS: Final = 3.0
_RUN: Final = 3
_STRIDE_RUN: Final = 4  # characters of a run that does not go one by one
_STRIDE: Final = 5
_COPY: Final = 2

# As on the keys, row by row or column by column.
_KEYS: Final = (
    "1234567890qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "йцукенгшщзхъфывапролджэячсмитьбю",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/",
    "1q2w3e4r5t6y7u8i9o0p",
    "!@#$%^&*()",
)
_FORWARDS: Final = tuple(dict(pairwise(keys)) for keys in _KEYS)
_WALKS: Final = (*_FORWARDS, *({other: one for one, other in walk.items()} for walk in _FORWARDS))
_DIGITS: Final = frozenset(f"{each}{(each + 1) % 10}" for each in range(10))  # as a counter goes
_LOOKALIKES: Final = str.maketrans("@4031!$57+", "aaoeiisstt")

_LETTER_BITS: Final = math.log2(26)
_SIGN_BITS: Final = 5.0  # of those on a keyboard
_BITS: Final = {  # by Unicode's category; guessers have no lists of emoji
    "Nd": math.log2(10),
    "Zs": 3.0,
    "Mn": 2.0,
    "Me": 2.0,
    "Cf": 2.0,
    "Lo": 11.0,
    "So": 17.0,
}
_OTHER_BITS: Final = 7.0
_FAMILIAR_BITS: Final = 11.0  # up to here somebody can run through all there are


class Part(StrEnum):
    """What a part of a password is made of."""

    WORD = "word"  # of the lists
    NAME = "name"  # of those that were given
    RUN = "run"  # neighbours in an alphabet or on a keyboard
    SAME = "same"  # one character over and over
    COPY = "copy"  # of what came before
    CHARACTER = "character"


@dataclass(frozen=True, slots=True)
class Guess:
    """The cheapest way that was found: how many bits it takes, and what it consists of."""

    bits: float
    parts: frozenset[Part]


@dataclass(frozen=True, slots=True)
class _Text:
    typed: str
    folded: str
    plain: str  # without digits and signs that look like letters


def estimate(password: str, ranks: Mapping[str, int], names: Collection[str] = ()) -> Guess:
    """
    The fewest guesses, as a power of two, by which the password can be put together.

    Args:
        password: At most `CHARACTERS_MAXIMUM` characters are looked at.
        ranks: Folded words with their places in a list, from 1.
        names: Folded words that a guesser tries first.
    """
    typed = password[:CHARACTERS_MAXIMUM]
    folded = fold(typed)
    text = _Text(typed, folded, folded.translate(_LOOKALIKES))
    best = [0.0] + [math.inf] * len(typed)
    parts: list[frozenset[Part]] = [frozenset()] * (len(typed) + 1)
    for start in range(len(typed)):
        for end, bits, part in _ways_on(text, start, ranks, names):
            if best[start] + bits < best[end]:
                best[end] = best[start] + bits
                parts[end] = parts[start] | {part}
    return Guess(best[-1], parts[-1])


def fold(text: str) -> str:
    """Lower case and plain width, one character for each."""
    return "".join(low if len(low := unicodedata.normalize("NFKC", each).lower()) == 1 else each for each in text)


def _ways_on(
    text: _Text, start: int, ranks: Mapping[str, int], names: Collection[str]
) -> Iterator[tuple[int, float, Part]]:
    """From a place: where one part more leads to, and what it costs."""
    bits = _bits_of(text.folded[start])
    yield start + 1, bits + _altered(text, start, text.folded[start]), Part.CHARACTER
    for spelt in (text.folded, text.plain):
        for length in _WORD:
            word = spelt[start : start + length]
            if (rank := ranks.get(word)) is not None and len(word) == length:
                cost = _TOKEN_BITS + max(1.0, math.log2(rank))
                yield start + length, cost + _altered(text, start, word), Part.WORD
        for name in names:
            if spelt.startswith(name, start):
                yield start + len(name), _TOKEN_BITS + _altered(text, start, name), Part.NAME
    if (end := _end_of_run(text.folded, start)) - start >= _RUN:
        cost = _RUN_BITS if bits <= _FAMILIAR_BITS else bits + _COPY_BITS
        yield end, cost, Part.SAME if text.folded[start] == text.folded[start + 1] else Part.RUN
    if (end := _end_of_copy(text.folded, start)) - start >= _COPY:
        yield end, _COPY_BITS, Part.COPY


def _altered(text: _Text, start: int, word: str) -> float:
    return 0.0 if text.typed.startswith(word, start) else _ALTERED_BITS


def _bits_of(character: str) -> float:
    if character.isascii() and character.isalpha():
        return _LETTER_BITS
    if character.isascii() and character.isprintable() and not character.isalnum() and character != " ":
        return _SIGN_BITS
    return _BITS.get(unicodedata.category(character), _OTHER_BITS)


def _end_of_run(text: str, start: int) -> int:
    """Where the longest run ends that begins here: `aaaa`, `4567`, `9012`, `zyx`, `2468`, `asdf`."""
    if start + 1 >= len(text):
        return start
    stride = ord(text[start + 1]) - ord(text[start])
    end = start + 2
    while end < len(text) and ord(text[end]) - ord(text[end - 1]) == stride:
        end += 1
    if abs(stride) > _STRIDE or (abs(stride) > 1 and end - start < _STRIDE_RUN):
        end = start
    return max(end, _end_of_digits(text, start), *(_end_of_walk(text, start, walk) for walk in _WALKS))


def _end_of_digits(text: str, start: int) -> int:
    """Nought follows nine."""
    end = start + 1
    while end < len(text) and text[end - 1 : end + 1] in _DIGITS:
        end += 1
    return end


def _end_of_walk(text: str, start: int, following: Mapping[str, str]) -> int:
    end = start + 1
    while end < len(text) and following.get(text[end - 1]) == text[end]:
        end += 1
    return end


def _end_of_copy(text: str, start: int) -> int:
    """Where the longest stretch ends that begins here and stood before, perhaps overlapping: `abab` after `ab`."""
    longest = start
    for before in range(start):
        end = start
        while end < len(text) and text[end] == text[before + end - start]:
            end += 1
        longest = max(longest, end)
    return longest
