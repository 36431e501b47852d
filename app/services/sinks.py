"""Where checkpoints are published: outside the database, where its owner cannot take them back."""

import os
import secrets
from pathlib import Path
from urllib.parse import quote

_DIGITS = 15  # of a size, in groups of three: names in order are sizes in order


class SinkConflict(Exception):
    """Another checkpoint of that size is there already. It stays."""


class DirectorySink:
    """
    A directory of files, one a checkpoint, never changed: `<origin>/000/000/012/345/678`.

    Best on a medium that only lets add: a mounted object store with a retention lock, a repository, another host.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def find_newest(self, origin: str) -> str | None:
        """
        The checkpoint of the largest size; `None`: nothing was published for this log.

        Raises:
            OSError: the directory cannot be read; what was published is unknown then.
        """
        place = self._folder(origin)
        if not self._root.is_dir():
            raise FileNotFoundError(f"the sink {self._root} is not there")
        if not place.exists():
            return None
        newest = _newest(place, _DIGITS // 3)
        return None if newest is None else newest.read_text(encoding="utf-8", errors="replace")

    def publish(self, origin: str, size: int, note: str) -> None:
        """
        Add a checkpoint: whole and on disk, or not at all. The same one again is no error.

        Raises:
            SinkConflict: a different one of that size is there.
            OSError: it cannot be written; nothing is left behind.
        """
        digits = f"{size:0{_DIGITS}}"
        target = self._folder(origin).joinpath(*(digits[i : i + 3] for i in range(0, _DIGITS, 3)))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
        try:
            with temporary.open("x", encoding="utf-8") as file:
                file.write(note)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o444)
            try:
                os.link(temporary, target)
            except FileExistsError:
                if target.read_text(encoding="utf-8") != note:
                    raise SinkConflict(f"{target} holds another checkpoint") from None
            _sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def _folder(self, origin: str) -> Path:
        return self._root / quote(origin, safe="")


def _newest(folder: Path, depth: int) -> Path | None:
    """The last file in order; folders that a crash has left empty are passed over."""
    for name in sorted(os.listdir(folder), reverse=True):  # noqa: PTH208 - names are all that is needed
        if len(name) == 3 and name.isdigit():  # noqa: PLR2004 - a group of digits
            found = folder / name if depth == 1 else _newest(folder / name, depth - 1)
            if found is not None:
                return found
    return None


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
