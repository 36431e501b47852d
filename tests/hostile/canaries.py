"""
Marked secrets, and a search for them in every form in which they could have been kept.

All made-up ones begin with one mark, so that one search finds whatever of them has leaked. What must be stored, because
that is what it is for (a label, a name), has another mark: it may stand in the database and in administrators' answers,
and never on a log line, in a span or in a metric.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable
from urllib.parse import quote

MARK = "CanaryOfRota"
STORED = "StoredOfRota"
# What all tokens begin with, whosever they are; it stands nowhere but in them.
BEGINNINGS = ("rota_rt_", "rota_pt_", "rota_cs_", "rota_dt_", "eyJhbGciOiJ")


def secret(kind: str = "") -> str:
    """One that fits wherever letters and digits do, long enough for a password, a key or a token."""
    return f"{MARK}{kind}{secrets.token_hex(12)}"


def stored(kind: str = "") -> str:
    return f"{STORED}{kind}{secrets.token_hex(6)}"


def needles(text: str) -> dict[str, str]:
    """Form -> what to look for: as it is, escaped, in hexadecimal (as bytea is shown), in base64 wherever it begins."""
    raw = text.encode()
    found = {"itself": text, "hexadecimal": raw.hex(), "reversed": text[::-1]}
    if (escaped := quote(text, safe="")) != text:
        found["escaped"] = escaped
    for shift in range(3):
        # What stands before shifts the letters; the first and the last ones depend on the neighbours, and are left out.
        encoded = base64.b64encode(bytes(shift) + raw).decode().rstrip("=")
        inner = encoded[(8 * shift + 5) // 6 : -2]
        found[f"base64 at {shift}"] = inner
        if "+" in inner or "/" in inner:
            found[f"base64url at {shift}"] = inner.replace("+", "-").replace("/", "_")
    return found


def traces(text: str) -> dict[str, str]:
    """Of one that was really issued: its forms, its bare hashes, and the secret bytes that it spells."""
    found = needles(text)
    for name in ("sha256", "sha1", "md5", "sha512"):
        digest = hashlib.new(name, text.encode()).digest()
        found[name] = digest.hex()
        found[f"{name} in base64"] = base64.b64encode(digest).decode()[:-3]
    if (ours := re.fullmatch(r"rota_[a-z]{2}_([A-Za-z0-9_-]+)", text)) and len(ours.group(1)) > 60:
        raw = base64.urlsafe_b64decode(ours.group(1) + "=" * (-len(ours.group(1)) % 4))
        proof = raw[-28:-8]  # of the part that nobody can guess; what ends it is a tag
        found["its secret bytes"] = proof.hex()
        found["its secret bytes, hashed"] = hashlib.sha256(raw).hexdigest()
    if text.count(".") == 2 and text.startswith("eyJ"):
        found["its signature"] = text.rpartition(".")[2]
    return found


def leaks(text: str, issued: Iterable[tuple[str, str]] = (), *, also_stored: bool, tokens: bool = True) -> list[str]:
    """
    What of our marks, and of secrets that were issued, stands in a text.

    Args:
        issued: Name and text of each.
        also_stored: Whether what may be stored must not be here either.
        tokens: Whether no token at all may be here, of whatever kind.
    """
    found = []
    small = text.lower()
    for mark in (MARK, STORED) if also_stored else (MARK,):
        for form, needle in needles(mark).items():
            at = small.find(needle.lower()) if form in {"itself", "hexadecimal", "reversed"} else text.find(needle)
            if at >= 0:
                found.append(f"{mark}, {form}: {text[max(0, at - 120) : at + 80]!r}")
    for beginning in BEGINNINGS if tokens else ():
        found += [f"a token, {form}" for form, needle in needles(beginning).items() if needle in text]
    for name, value in issued:
        found += [f"{name}, {form}" for form in holds(text, value)]
    return found


def holds(text: str, value: str) -> list[str]:
    """The forms in which a text holds one that was issued."""
    return [form for form, needle in traces(value).items() if needle in text]
