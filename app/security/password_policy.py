"""The rules for new passwords, with zxcvbn's lists and the operator's collection of stolen ones."""

import asyncio
import hashlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final

from app.domain.errors import Unavailable
from app.domain.passwords import MINIMUM_CHARACTERS, PRODUCT, Blocklist, check_new_password

_WORD_CHARACTERS: Final = 3
_YEARS: Final = range(1930, 2050)
_HASH: Final = 40  # hexadecimal digits of a SHA-1
_LINE: Final = 128  # bytes that a line of the collection has at most


class BreachedFile:
    """
    A file of stolen passwords' SHA-1 hashes in hexadecimal, one a line and in order, perhaps with `:count` behind.

    That is what the downloader of Have I Been Pwned writes, some 40 GB; a look-up reads some forty lines of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self) -> None:
        """
        Look whether it can be used.

        Raises:
            OSError: it cannot be read.
            ValueError: its first line is no such hash.
        """
        with self._path.open("rb") as file:
            bytes.fromhex(file.read(_HASH).decode("ascii"))

    def has(self, canonical: str) -> bool:
        """Whether the password is among them; reads the file."""
        wanted = hashlib.sha1(canonical.encode(), usedforsecurity=False).hexdigest().upper().encode("ascii")
        with self._path.open("rb") as file:
            low, high = 0, file.seek(0, os.SEEK_END)  # the line that is looked for begins in low..high
            while low < high:
                middle = (low + high) // 2
                start, line = _line_from(file, middle)
                if not line or line[:_HASH].upper() >= wanted:
                    high = middle
                else:
                    low = start + 1
            return _line_from(file, low)[1][:_HASH].upper() == wanted


class PasswordPolicy:
    def __init__(
        self,
        *,
        minimum: int = MINIMUM_CHARACTERS,
        product_names: Sequence[str] = (),
        breached: BreachedFile | None = None,
    ) -> None:
        """`product_names`: what this service is called besides Rota."""
        self._minimum = minimum
        self._product_names = (PRODUCT, *product_names)
        self._breached = breached
        self._blocklist: Blocklist | None = None
        self._loading = Lock()
        self._turn = asyncio.Semaphore(1)

    def load(self) -> Blocklist:
        """The lists, loaded once: some 50 ms and 14 MB. Not on the event loop."""
        with self._loading:
            if self._blocklist is None:
                self._blocklist = _load(self._breached)
            return self._blocklist

    async def check(self, new: str, *, username: str) -> str:
        """
        The canonical form of a password that this user may set.

        Off the event loop, since it takes some milliseconds, and reads a file where there is a collection of stolen
        ones; one after another, since it is Python all the time, and many threads of it hold up the event loop.

        Raises:
            PasswordRefused: it may not be set.
            Unavailable: the collection of stolen ones cannot be read now; none is set unseen.
        """
        try:
            async with self._turn:
                return await asyncio.to_thread(self._check, new, username)
        except OSError as unreadable:
            raise Unavailable(why="the collection of stolen passwords cannot be read") from unreadable

    def _check(self, new: str, username: str) -> str:
        return check_new_password(
            new,
            minimum=self._minimum,
            blocklist=self.load(),
            username=username,
            product_names=self._product_names,
        )


def _load(breached: BreachedFile | None) -> Blocklist:
    lists = _frequency_lists()
    ranks = {str(year): len(_YEARS) for year in _YEARS}
    for words in lists.values():
        for rank, word in enumerate(words, 1):
            if len(word) >= _WORD_CHARACTERS:
                ranks[word] = min(rank, ranks.get(word, rank))
    return Blocklist(ranks) if breached is None else Blocklist(ranks, breached.has)


def _frequency_lists() -> Mapping[str, Sequence[str]]:
    """
    zxcvbn's lists, without the rest of it: importing the package would rank them all, and keep three times as much.

    The module's own name is not entered, so that what is not used of it goes again.
    """
    package = importlib.util.find_spec("zxcvbn")
    if package is None or package.origin is None:  # pragma: no cover - it is a dependency
        raise ModuleNotFoundError("zxcvbn")
    path = Path(package.origin).with_name("frequency_lists.py")
    spec = importlib.util.spec_from_file_location("rota_frequency_lists", path)
    assert spec is not None  # noqa: S101 - a Python file has one
    assert spec.loader is not None  # noqa: S101 - likewise
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lists: Mapping[str, Sequence[str]] = module.FREQUENCY_LISTS
    return lists


def _line_from(file: Any, position: int) -> tuple[int, bytes]:
    """The first line that begins at a position or behind it, and where it begins; empty at the end."""
    start = position
    if position:
        file.seek(position - 1)
        start = position - 1 + len(file.readline(_LINE))  # the rest of the line before
    file.seek(start)
    return start, file.readline(_LINE)
