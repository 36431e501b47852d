"""
Which hashes of passwords are understood: ours, and those that people bring along.

A hash counts only if it says itself of what kind it is, has a salt, holds for the whole password, and can be verified
within bounds. It is kept as it was written; what passlib knows under another spelling is spelt so for each
verification. All but ours are outdated, so the first sign-in puts ours in their place.
"""

import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from passlib.context import CryptContext
from passlib.exc import PasslibWarning

from app.domain.errors import TooBusy
from app.domain.passwords import MAXIMUM_BYTES
from app.domain.user_imports import Reason
from app.security.hash_kinds import HashRefused, KnownHash, spelt

HASH_CHARACTERS: Final = 1024
BCRYPT_BYTES: Final = 72

# What one verification may take. Each bound is some two seconds of a core of 2026. Memory is for each thread that
# hashes, and as much as the defaults of libraries need (Django's Argon2: 100 MiB; OWASP's scrypt: 128 MiB).
MEMORY_BYTES: Final = 128 * 1024 * 1024
ARGON2_WORK_BYTES: Final = 2 * 1024 * 1024 * 1024  # memory times passes
SCRYPT_WORK_BYTES: Final = 1024 * 1024 * 1024  # memory times parallelism
MOST_LANES: Final = 16
ARGON2_LANE_PASSES: Final = 4096  # each starts four threads, however little memory it is for
SCRYPT_BLOCK: Final = 1024  # each lane, and each step, takes a block besides
BCRYPT_COST: Final = 15
PBKDF2_ROUNDS: Final = 5_000_000
SHA_CRYPT_ROUNDS: Final = 700_000  # passlib's default is 656,000
LEAST_DIGEST: Final = 16

# What it says of a hash that it finds odd, it quotes.
logging.getLogger("passlib").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", category=PasslibWarning)

_LACK_OF_MEMORY: Final = ("Memory allocation error", "malloc failure")

# What passlib and its backends raise at a hash or a password that they do not like.
_FOREIGN_ERRORS: Final = (
    ValueError,
    TypeError,
    AssertionError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    Warning,
)


class PasswordHashes:
    """Makes hashes of today's parameters, and verifies all that are understood."""

    def __init__(self, *, memory_kib: int, passes: int, lanes: int) -> None:
        self._ours: Any = CryptContext(
            schemes=["argon2"],
            argon2__type="ID",
            argon2__memory_cost=memory_kib,
            argon2__time_cost=passes,
            argon2__parallelism=lanes,
        )
        self._seconds = 0.0  # that the latest hash of ours took

    def hash(self, password: str) -> str:
        """A new hash with today's parameters."""
        began = time.perf_counter()
        with _lack_of_memory_is_busy():
            made: str = self._ours.hash(password)
        self._seconds = time.perf_counter() - began
        return made

    def verify(self, password: str, stored: str) -> bool:
        """
        Whether the password is the stored hash's. Whatever is stored, the answer is yes or no.

        What cannot be verified takes as long as a hash of ours, and is false: a text that is no hash, a hash beyond
        the bounds. So is a password with a NUL for kinds that end there, and one of more than 72 bytes for bcrypt,
        which looks at no more: any of the passwords that begin alike would be right.

        Raises:
            TooBusy: there is no memory for it.
        """
        with _lack_of_memory_is_busy():
            try:
                return self._verify(password, read_hash(stored))
            except HashRefused:
                self._ours.dummy_verify()
            except _FOREIGN_ERRORS as error:
                if _lacks_memory(error):
                    raise
                self._ours.dummy_verify()
        return False

    def needs_update(self, stored: str) -> bool:
        """Whether it is not of our kind with today's parameters."""
        try:
            known = read_hash(stored)
        except HashRefused:
            return True
        outdated: bool = known.scheme != "argon2" or known.text != stored or self._ours.needs_update(stored)
        return outdated

    def _verify(self, password: str, known: KnownHash) -> bool:
        secret = password.encode()
        if len(secret) > MAXIMUM_BYTES and known.scheme != "argon2":  # nobody has one; some kinds read it each round
            self._ours.dummy_verify()
            return False
        cut = known.scheme == "bcrypt" and len(secret) > BCRYPT_BYTES
        if cut:
            secret = secret[:BCRYPT_BYTES].replace(b"\0", b"0")
        began = time.perf_counter()
        right: bool = known.handler.verify(secret, known.text)
        if time.perf_counter() - began < self._seconds / 2:
            # Or it would be told apart from a user whom nobody knows; a right one of somebody disabled, too.
            self._ours.dummy_verify()
        return right and not cut


def read_hash(text: str) -> KnownHash:
    """
    What kind of hash this is.

    Raises:
        HashRefused: `hash_unknown`, `hash_malformed`, `hash_unsafe` (no salt, reversible, or not of the whole
            password), `hash_ambiguous`, `hash_too_costly` or `hash_disabled` (a mark that there is none).
    """
    if len(text) > HASH_CHARACTERS or not _PRINTABLE.fullmatch(text):
        raise HashRefused(Reason.HASH_MALFORMED)
    known = spelt(text)
    try:
        parsed = known.handler.from_string(known.text)
    except _FOREIGN_ERRORS:
        raise HashRefused(Reason.HASH_MALFORMED) from None
    if not parsed.checksum or (known.scheme == "argon2" and (len(parsed.checksum) < LEAST_DIGEST or parsed.data)):
        raise HashRefused(Reason.HASH_MALFORMED)
    if not getattr(parsed, "salt", None):
        raise HashRefused(Reason.HASH_UNSAFE)
    if not _EXISTS.get(known.scheme, _no_bound)(parsed):
        raise HashRefused(Reason.HASH_MALFORMED)
    if not _BOUNDS.get(known.scheme, _no_bound)(parsed):
        raise HashRefused(Reason.HASH_TOO_COSTLY)
    return known


@contextmanager
def _lack_of_memory_is_busy() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if _lacks_memory(error):
            raise TooBusy(why="no memory for a hash") from None
        raise


def _lacks_memory(error: BaseException | None) -> bool:
    """Also as Argon2 and OpenSSL say it, in the words of errors of any class."""
    while error is not None:
        if isinstance(error, MemoryError) or any(words in str(error) for words in _LACK_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def _no_bound(_parsed: Any) -> bool:
    return True


def _argon2_bound(parsed: Any) -> bool:
    memory = parsed.memory_cost * 1024
    work = memory * parsed.rounds
    return bool(
        memory <= MEMORY_BYTES
        and work <= ARGON2_WORK_BYTES
        and parsed.parallelism <= MOST_LANES
        and parsed.rounds * parsed.parallelism <= ARGON2_LANE_PASSES
    )


def _scrypt_bound(parsed: Any) -> bool:
    memory = (128 << parsed.rounds) * parsed.block_size
    work = memory * parsed.parallelism
    return bool(
        memory <= MEMORY_BYTES
        and work <= SCRYPT_WORK_BYTES
        and parsed.parallelism <= MOST_LANES
        and parsed.block_size <= SCRYPT_BLOCK
    )


def _argon2_exists(parsed: Any) -> bool:
    """RFC 9106 section 3.1: eight blocks a lane, at least."""
    return bool(parsed.memory_cost >= 8 * parsed.parallelism)


def _scrypt_exists(parsed: Any) -> bool:
    """RFC 7914 section 2: N is less than two to the power of 128 r / 8."""
    return bool(parsed.rounds < 16 * parsed.block_size)


def _rounds(most: int) -> Callable[[Any], bool]:
    return lambda parsed: parsed.rounds <= most


_PRINTABLE: Final = re.compile(r"[!-~]+")
# Which parameters make a function at all; with others no password would ever be right.
_EXISTS: Final[Mapping[str, Callable[[Any], bool]]] = {"argon2": _argon2_exists, "scrypt": _scrypt_exists}
_BOUNDS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "argon2": _argon2_bound,
    "scrypt": _scrypt_bound,
    "bcrypt": _rounds(BCRYPT_COST),
    "bcrypt_sha256": _rounds(BCRYPT_COST),
    "django_bcrypt_sha256": _rounds(BCRYPT_COST),
    "pbkdf2_sha1": _rounds(PBKDF2_ROUNDS),
    "pbkdf2_sha256": _rounds(PBKDF2_ROUNDS),
    "pbkdf2_sha512": _rounds(PBKDF2_ROUNDS),
    "cta_pbkdf2_sha1": _rounds(PBKDF2_ROUNDS),
    "dlitz_pbkdf2_sha1": _rounds(PBKDF2_ROUNDS),
    "grub_pbkdf2_sha512": _rounds(PBKDF2_ROUNDS),
    "scram": _rounds(2_000_000),
    "fshp": _rounds(2_000_000),
    "sha256_crypt": _rounds(SHA_CRYPT_ROUNDS),
    "sha512_crypt": _rounds(SHA_CRYPT_ROUNDS),
    "sha1_crypt": _rounds(1_000_000),
    "sun_md5_crypt": _rounds(100_000),
    "bsdi_crypt": _rounds(100_001),
    "phpass": _rounds(20),  # of two's exponent; each round reads the whole password
}
