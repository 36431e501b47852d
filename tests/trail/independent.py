"""
A second verifier of exports, written from `docs/reference/events.md`, C2SP and RFC 6962 alone, sharing no code with the
product and as naive as the definitions. It proves what is sealed; nothing about sessions' lives, times and erasures.
"""

import json
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Head = tuple[str, int, bytes]  # origin, size, root


def need(condition: object, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def sha(*parts: bytes) -> bytes:
    return sha256(b"".join(parts)).digest()


def unbase64(text: str) -> bytes:
    raw = b64decode(text, validate=True)
    need(b64encode(raw).decode() == text, "base64 in another spelling")
    return raw


def power_below(n: int) -> int:
    """RFC 6962: the largest power of two smaller than n."""
    return 1 << ((n - 1).bit_length() - 1)


def tree_hash(hashes: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1: MTH, of leaves that are hashed already."""
    if len(hashes) == 1:
        return hashes[0]
    k = power_below(len(hashes))
    return sha(b"\x01", tree_hash(hashes[:k]), tree_hash(hashes[k:]))


def root_of_path(leaf: bytes, m: int, n: int, path: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1.1: PATH(m, D[n]) ends with the hash of the half that m is not in."""
    if n == 1:
        need(not path, "a path that is too long")
        return leaf
    need(path, "a path that is too short")
    k = power_below(n)
    if m < k:
        return sha(b"\x01", root_of_path(leaf, m, k, path[:-1]), path[-1])
    return sha(b"\x01", path[-1], root_of_path(leaf, m - k, n - k, path[:-1]))


def open_checkpoint(note: str, vkeys: Sequence[str]) -> Head:
    """C2SP signed-note, tlog-checkpoint: a head that is signed, by a known key, under the log's own name."""
    text, _, signatures = note.rpartition("\n\n")
    origin, size, root = text.split("\n")
    need(str(int(size)) == size and int(size) > 0 and len(unbase64(root)) == 32, "not a checkpoint")
    known = {tuple(vkey.split("+", 2)[:2]): unbase64(vkey.split("+", 2)[2]) for vkey in vkeys}
    signers = set()
    for line in signatures.removesuffix("\n").split("\n"):
        dash, name, signature = line.split(" ")
        raw = unbase64(signature)
        key = known.get((name, raw[:4].hex()))
        if key is not None:
            need(dash == "—" and sha(name.encode(), b"\n", key)[:4] == raw[:4] and key[0] == 1, "not of this key")
            Ed25519PublicKey.from_public_bytes(key[1:]).verify(raw[4:], f"{text}\n".encode())
            signers.add(name)
    need(origin in signers and signatures.endswith("\n"), "no known key has signed it")
    return origin, int(size), unbase64(root)


def read_json(raw: bytes) -> dict[str, Any]:
    """Canonical JSON: written again it is the same bytes, so nothing stands twice. Numbers are integers."""
    found: dict[str, Any] = json.loads(raw, parse_float=int)
    again = json.dumps(found, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    need(again.encode() == raw, "not canonical JSON")
    return found


class Bundle:
    """One directory."""

    def __init__(self, folder: Path, vkeys: Sequence[str]) -> None:
        self.folder, self.vkeys = folder, vkeys
        self.findings: list[str] = []
        self.entries: dict[int, bytes] = {}
        self.heads: list[Head] = []
        self.first = self.last = self.size = self.personal = 0

    def attempt(self, check: Callable[..., None], *about: Any) -> None:
        try:
            check(*about)
        except (ValueError, LookupError, TypeError, AttributeError, OSError, InvalidSignature) as error:
            self.findings.append(f"{check.__name__} {about[:1]}: {error!r}")

    def verify(self) -> list[str]:
        self.attempt(self.read_manifest)
        self.attempt(self.read_heads)
        for n in range(self.first // 256, -(-self.last // 256)):
            self.attempt(self.read_entries, n)
            self.attempt(self.check_personal, n)
        for level in range(1, 8):
            for n in range(self.first // 256**level, self.last // 256**level):
                self.attempt(self.check_parent, level, n)
        for _, size, root in self.heads:
            self.attempt(self.check_root, size, root)
        if self.manifest["personal"] is not None and self.manifest["personal"] != self.personal:
            self.findings.append(f"{self.personal} records of personal data, not {self.manifest['personal']}")
        return self.findings

    def read_manifest(self) -> None:
        self.manifest: dict[str, Any] = {"personal": None}
        self.manifest = read_json((self.folder / "manifest.json").read_bytes().removesuffix(b"\n"))
        self.first, self.last, self.size = (self.manifest[name] for name in ("first", "last", "size"))

    def read_heads(self) -> None:
        """Each note has five lines and an empty one after it, but for the last; sizes grow; the newest stands alone."""
        text = (self.folder / "checkpoints").read_bytes().decode()
        lines = text.split("\n")
        notes = ["\n".join(lines[i : i + 5]) + "\n" for i in range(0, len(lines), 6)]
        self.heads = [open_checkpoint(note, self.vkeys) for note in notes]
        sizes = [size for _, size, _ in self.heads]
        need("\n".join(notes) == text and (self.folder / "checkpoint").read_bytes().decode() == notes[-1], "the newest")
        need(sizes == sorted(set(sizes)) and sizes[-1] == self.size, "sizes that do not grow to the bundle's")
        need({origin for origin, _, _ in self.heads} == {self.manifest["origin"]}, "another log's head")
        need(len(sizes) == self.manifest["checkpoints"], "another number of heads")

    def path(self, kind: str, n: int, width: int = 256) -> Path:
        """C2SP tlog-tiles: elements of three digits, all but the last with an x; the width of a partial tile."""
        digits = f"{n:03}" if n < 1000 else f"x{n // 1000:03}/{n % 1000:03}"  # up to 256 million entries
        return self.folder / kind / (digits if width == 256 else f"{digits}.p/{width}")

    def tile(self, level: int, n: int) -> list[bytes]:
        width = min(256, self.size // 256**level - 256 * n)
        raw = self.path(f"tile/{level}", n, width).read_bytes()
        need(len(raw) == 32 * width, "a tile of another width")
        return [raw[i : i + 32] for i in range(0, len(raw), 32)]

    def read_entries(self, n: int) -> None:
        """Entries are canonical, and each hashes to its place in the tile of level 0."""
        width = min(256, self.last - 256 * n)
        raw, found = self.path("tile/entries", n, width).read_bytes(), []
        while raw:
            end = 2 + int.from_bytes(raw[:2], "big")
            need(len(raw) >= end, "an entry is cut short")
            found.append(raw[2:end])
            raw = raw[end:]
        self.entries.update(enumerate(found, 256 * n))
        need([sha(b"\x00", entry) for entry in found] == self.tile(0, n)[:width], "not what was sealed")
        for entry in found:
            read_json(entry)

    def check_personal(self, n: int) -> None:
        """Each line of personal data is what the commitment of its entry commits to; each entry has one at most."""
        path, before = self.path("personal", n), -1
        for line in path.read_bytes().removesuffix(b"\n").split(b"\n") if path.exists() else []:
            index, salt, data = line.split(b" ", 2)
            digest = sha(b"\x02", urlsafe_b64decode(salt + b"="), data)
            committed = read_json(self.entries[int(index)])["commitment"]
            need(committed == urlsafe_b64encode(digest).decode()[:43], f"data of entry {int(index)} is another")
            need(int(index) > before and int(index) // 256 == n and b"%d" % int(index) == index, "out of its place")
            need(read_json(data).keys() == {"ip", "user_agent"}, "not personal data")
            before, self.personal = int(index), self.personal + 1

    def check_parent(self, level: int, n: int) -> None:
        """C2SP tlog-tiles: a full tile's root stands in its place in the tile above."""
        need(self.tile(level, n // 256)[n % 256] == tree_hash(self.tile(level - 1, n)), f"tile {n} below")

    def check_root(self, size: int, root: bytes) -> None:
        """The head's root is that of the entries; of the newest, if they end before, that of the tiles."""
        if self.first == 0 and size <= self.last:
            leaves = [sha(b"\x00", self.entries[index]) for index in range(size)]
            need(tree_hash(leaves) == root, f"of size {size}")
        if size == self.size:
            need(self.root_by_tiles(0, size) == root, f"of size {size}, by tiles")

    def root_by_tiles(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]), split by RFC 6962 until it stands in a tile."""
        for level in range(7, -1, -1):
            n, rest = divmod(start, 1 << (8 * level))
            if end - start == 1 << (8 * level) and rest == 0:
                return self.tile(level, n // 256)[n % 256]
        k = start + power_below(end - start)
        return sha(b"\x01", self.root_by_tiles(start, k), self.root_by_tiles(k, end))


def verify_bundle(folder: Path, vkeys: Sequence[str]) -> list[str]:
    """What does not hold in an exported bundle; empty if all holds."""
    return Bundle(folder, vkeys).verify()


def verify_proof(text: str, vkeys: Sequence[str]) -> list[str]:
    """C2SP tlog-proof whose extra data is the entry: that this entry is at this place under a signed head."""
    head, _, note = text.partition("\n\n")
    try:
        version, extra, index, *path = head.split("\n")
        _, size, root = open_checkpoint(note, vkeys)
        entry, place = unbase64(extra.removeprefix("extra ")), int(index.removeprefix("index "))
        read_json(entry)
        need(version == "c2sp.org/tlog-proof@v1" and 0 <= place < size and f"index {place}" == index, "form")
        need(root_of_path(sha(b"\x00", entry), place, size, [unbase64(line) for line in path]) == root, "root")
    except (ValueError, LookupError, InvalidSignature) as error:
        return [f"the proof does not hold: {error!r}"]
    return []
