"""Which passwords may be set, and the one form in which they are hashed."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from app.domain.errors import PasswordRefused
from app.domain.guessing import CHARACTERS_MAXIMUM, Part, estimate, fold

MINIMUM_CHARACTERS: Final = 15  # where a password is all that is asked for (NIST SP 800-63B-4 section 3.1.1.1)
MINIMUM_OF_SEVERAL: Final = 8  # where something else is asked for besides
MAXIMUM_BYTES: Final = 1024
# NFC makes at most three code points of two bytes into one of two: whatever is longer has too many bytes afterwards.
# Normalising can take the square of the length, so no more than this is ever normalised.
MAXIMUM_CHARACTERS: Final = MAXIMUM_BYTES * 3 // 2
GUESSABLE_BITS: Final = 20.0  # a million guesses
GUESSABLE_BITS_WITH_NAME: Final = 26.0  # five characters drawn by lot, beside a name

PRODUCT: Final = "rota"

_NAME_CHARACTERS: Final = 3  # shorter ones, and shorter parts of one, stand in words by chance
_REST_CHARACTERS: Final = 8  # in a long password, beside somebody's name
_SEPARATORS: Final = re.compile(r"[\W_]+")


class PasswordReason(StrEnum):
    """Why a password may not be set; stable, `reason` of the answer."""

    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    NUL = "nul"
    SURROGATE = "surrogate"
    UNASSIGNED = "unassigned"
    COMMON = "common"
    REPETITIVE = "repetitive"
    SEQUENCE = "sequence"
    BREACHED = "breached"
    PRODUCT_NAME = "product_name"
    USER_NAME = "user_name"
    EMAIL = "email"


_WORDS: Final[Mapping[PasswordReason, str]] = {
    PasswordReason.TOO_LONG: f"A password has at most {MAXIMUM_BYTES} bytes.",
    PasswordReason.NUL: "A password has no NUL.",
    PasswordReason.SURROGATE: "A password has no lone surrogates.",
    PasswordReason.UNASSIGNED: "A password has no characters that Unicode has not assigned.",
    PasswordReason.COMMON: "This is a common password, or little more than one: it is among the first to be guessed.",
    PasswordReason.REPETITIVE: "This is the same over and over: it is among the first to be guessed.",
    PasswordReason.SEQUENCE: "These are neighbours in an alphabet or on keys: it is among the first to be guessed.",
    PasswordReason.BREACHED: "This password is in a collection of those that were stolen somewhere.",
    PasswordReason.PRODUCT_NAME: "This is little more than the name of the service.",
    PasswordReason.USER_NAME: "This is little more than the name of the user.",
    PasswordReason.EMAIL: "This is little more than parts of the user's e-mail address.",
}


@dataclass(frozen=True, slots=True)
class Blocklist:
    """
    What new passwords are compared with.

    Args:
        ranks: Common passwords, people's names and words, folded, with their places by frequency: each compared with
            the whole and with parts of it.
        is_breached: A collection of stolen passwords that the operator has.
    """

    ranks: Mapping[str, int] = field(default_factory=dict)
    is_breached: Callable[[str], bool] = lambda _canonical: False


def canonical_password(password: str) -> str:
    """NFC, so that a keyboard that decomposes letters signs in alike; never cut, no case change (RFC 8265, 4.2)."""
    return unicodedata.normalize("NFC", password)


def is_presentable(password: str) -> bool:
    """Whether what somebody presents can be a password at all: up to `MAXIMUM_BYTES` in its canonical form."""
    return len(password) <= MAXIMUM_CHARACTERS and len(canonical_password(password).encode()) <= MAXIMUM_BYTES


def check_new_password(
    password: str,
    *,
    minimum: int = MINIMUM_CHARACTERS,
    blocklist: Blocklist | None = None,
    username: str = "",
    product_names: Collection[str] = (PRODUCT,),
) -> str:
    """
    The canonical form of a password that may be set.

    Length is counted in code points of the canonical form; there are no composition rules.

    Raises:
        PasswordRefused: for one of the `PasswordReason`s.
    Source: NIST SP 800-63B-4 section 3.1.1.2.
    """
    canonical = _check_form(password, minimum)
    blocklist = blocklist or Blocklist()
    names = {
        PasswordReason.USER_NAME: _long_enough(_names_of_user(username)),
        PasswordReason.EMAIL: _long_enough(_names_of_address(username)),
        PasswordReason.PRODUCT_NAME: _long_enough(map(_name, product_names)),
    }
    if (reason := _why_guessable(canonical, blocklist, names)) is not None:
        raise _refused(reason)
    if blocklist.is_breached(canonical):
        raise _refused(PasswordReason.BREACHED)
    return canonical


def _check_form(password: str, minimum: int) -> str:
    if len(password) > MAXIMUM_CHARACTERS:
        raise _refused(PasswordReason.TOO_LONG)
    canonical = canonical_password(password)
    categories = {unicodedata.category(character) for character in canonical}
    if "Cs" in categories:
        raise _refused(PasswordReason.SURROGATE)
    if "\0" in canonical:
        raise _refused(PasswordReason.NUL)
    if "Cn" in categories:  # a later version of Unicode could normalise it otherwise
        raise _refused(PasswordReason.UNASSIGNED)
    if len(canonical.encode()) > MAXIMUM_BYTES:
        raise _refused(PasswordReason.TOO_LONG)
    if len(canonical) < minimum:
        raise PasswordRefused(f"A password has at least {minimum} characters.", reason=PasswordReason.TOO_SHORT)
    return canonical


def _why_guessable(
    password: str, blocklist: Blocklist, names: Mapping[PasswordReason, frozenset[str]]
) -> PasswordReason | None:
    folded = fold(password)
    if len(password) > CHARACTERS_MAXIMUM and _period(folded) <= CHARACTERS_MAXIMUM // 2:
        password = password[:CHARACTERS_MAXIMUM]  # the same over and over, of which more is no other
    if len(password) > CHARACTERS_MAXIMUM:
        dominating = (reason for reason, own in names.items() if _is_little_more(folded, own))
        return next(dominating, PasswordReason.COMMON if _is_listed(folded, blocklist) else None)
    guess = estimate(password, blocklist.ranks, frozenset().union(*names.values()))
    if Part.NAME in guess.parts and guess.bits < GUESSABLE_BITS_WITH_NAME:
        for reason, own in names.items():
            one = estimate(password, blocklist.ranks, own)
            if Part.NAME in one.parts and one.bits < GUESSABLE_BITS_WITH_NAME:
                return reason
        return PasswordReason.USER_NAME
    if guess.bits >= GUESSABLE_BITS:
        return PasswordReason.COMMON if _is_listed(folded, blocklist) else None
    if Part.WORD in guess.parts or _is_listed(folded, blocklist):
        return PasswordReason.COMMON
    return PasswordReason.SEQUENCE if Part.RUN in guess.parts else PasswordReason.REPETITIVE


def _period(text: str) -> int:
    """After how many characters it begins again, the last time perhaps not to its end; its length if it never does."""
    return next((n for n in range(1, len(text)) if text.startswith(text[n:])), len(text))


def _is_listed(folded: str, blocklist: Blocklist) -> bool:
    return folded in blocklist.ranks


def _is_little_more(folded: str, names: Collection[str]) -> bool:
    rest = folded
    for name in sorted(names, key=len, reverse=True):
        rest = rest.replace(name, "")
    return len(rest) < _REST_CHARACTERS


def _names_of_user(username: str) -> set[str]:
    """The name, and where it is no address the parts of it."""
    whole = _name(username)
    return {whole} if "@" in whole else {whole} | _parts(whole)


def _names_of_address(username: str) -> set[str]:
    """Both sides of an address, and the parts of each."""
    local, at, domain = _name(username).rpartition("@")
    return {local, domain} | _parts(local) | _parts(domain) if at else set()


def _long_enough(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in names if len(name) >= _NAME_CHARACTERS)


def _parts(name: str) -> set[str]:
    return set(_SEPARATORS.split(name))


def _name(text: str) -> str:
    return fold(canonical_password(text))


def _refused(reason: PasswordReason) -> PasswordRefused:
    return PasswordRefused(_WORDS[reason], reason=reason)
