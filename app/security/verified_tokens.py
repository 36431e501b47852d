"""Signatures that were right already."""

from typing import Final, Generic, TypeVar

VERIFIED_MAXIMUM: Final = 16_384  # tokens in use at a time whose check is spared; some 1 KB each

T = TypeVar("T")


class VerifiedTokens(Generic[T]):
    """
    Tokens whose signature was right, by the digest of all their bytes: checking it again would find the same.

    Nothing that can change is kept: times and the session's life are checked at each use. Only what we signed gets in,
    so noise cannot push anything out; bounded by two generations, of which the older one goes as a whole.
    """

    def __init__(self, size: int = VERIFIED_MAXIMUM) -> None:
        self._half = size // 2
        self._newer: dict[bytes, T] = {}
        self._older: dict[bytes, T] = {}

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def find(self, digest: bytes) -> T | None:
        found = self._newer.get(digest)
        if found is None and (found := self._older.get(digest)) is not None:
            self.add(digest, found)
        return found

    def add(self, digest: bytes, found: T) -> None:
        if len(self._newer) >= self._half:
            self._newer, self._older = {}, self._newer
        self._newer[digest] = found
