"""
URLs that are refused, whatever stands at them.

Those that hold credentials: proxies log them, browsers keep them, pages hand them on (RFC 9700 section 4.3.1, RFC 6750
section 5.3). Nothing of ours writes a URL down, so here they end.

And those whose path others may have read as another one than we would.
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

# What a parameter that holds one is called, whatever the spelling: without case, underscores, hyphens, brackets.
NAMES: Final = frozenset(
    {b"apikey", b"assertion", b"authorization", b"bearer", b"clientassertion", b"jwt", b"passwd", b"pwd"}
)
# What may stand before it: whose it is.
ENDINGS: Final = (b"token", b"password", b"passphrase", b"secret", b"rotarefresh", b"rotadevice")

_TOKEN: Final = re.compile(
    rb"rota_[a-z]{2}_[A-Za-z0-9_-]{16}|(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}"
)
_PAIRS: Final = re.compile(rb"[&;?#]")  # also those of a URL within a value
_NO_LETTER: Final = re.compile(rb"[^a-z0-9]")
# Its query is the proxy's, and what does not belong there is refused as a requirement that nobody meets: of any other
# answer than 401 and 403 a proxy makes a failure of its own.
ANSWERS_ITSELF: Final = "/authz"
# In percent-encoding: a slash or a backslash, where a proxy with rules for paths may have seen one segment and a route
# has two; what needs none (RFC 3986 section 2.3), by which a word of a rule is another; and a line's end at the end, of
# which neither the pattern of a route nor that of a rule takes notice (`$`).
_AMBIGUOUS: Final = re.compile(rb"%(?:2[def]|3[0-9]|[46][1-9a-f]|[57][0-9a]|5[cf]|7e)|%0a\Z", re.IGNORECASE)
_LAYERS: Final = 4  # of percent-encoding that are looked behind; each is a pass over the text


def holds_credential(path: bytes, query: bytes) -> bool:
    """
    Whether a URL's path or query holds one of our tokens, a JWT, or a parameter that is named like a credential.

    Args:
        path, query: As they were sent, percent-encoded perhaps more than once.
    """
    # One of each request has neither: the path of a route has no dot, no percent sign and no prefix of ours.
    if (b"%" in path or b"rota_" in path or b"eyJ" in path) and any(map(_TOKEN.search, _layers(path))):
        return True
    if not query:
        return False
    return any(
        _TOKEN.search(text) or any(_is_named_like_one(_name(pair)) for pair in _PAIRS.split(text))
        for text in _layers(query)
    )


def is_ambiguous(path: bytes) -> bool:
    """Whether a path, as it was sent, could be taken for another one by what stands before us."""
    return b"%" in path and _AMBIGUOUS.search(path) is not None


def _layers(text: bytes) -> list[bytes]:
    """The text, and what is behind each layer of its percent-encoding."""
    found = [text]
    while len(found) <= _LAYERS and b"%" in found[-1]:
        decoded = unquote_to_bytes(found[-1])
        if decoded == found[-1]:
            break
        found.append(decoded)
    return found


def _is_named_like_one(name: bytes) -> bool:
    return name in NAMES or name.endswith(ENDINGS)


def _name(pair: bytes) -> bytes:
    return _NO_LETTER.sub(b"", pair.partition(b"=")[0].lower())
