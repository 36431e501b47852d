"""Origins, spelled as browsers spell them (RFC 6454 section 6.1)."""

import re
from typing import Final
from urllib.parse import urlsplit

DEFAULT_PORTS: Final = {"https": 443, "http": 80}
PORT_MAXIMUM: Final = 65_535

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_SPELLED: Final = re.compile(rf"(https?)://({_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:]+\])(?::([1-9][0-9]{{0,4}}))?", re.ASCII)
_HOST_MAXIMUM: Final = 253
_OF_THIS_HOST: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


def read_origins(text: str) -> tuple[str, ...]:
    """
    The origins of a comma-separated list; none of an empty one.

    Raises:
        ValueError: one of them is spelled as no browser would spell it, or stands twice.
    """
    if not text.strip():
        return ()
    origins = tuple(part.strip(" ") for part in text.split(","))
    if not all(is_origin(origin) for origin in origins):
        raise ValueError(
            "must be a comma-separated list of origins as browsers spell them, such as https://app.example.com or "
            "http://localhost:3000: https except on this host, lower case, no path, no slash at the end, no default "
            "port, no *, no null"
        )
    if len(set(origins)) != len(origins):
        raise ValueError("an origin stands twice")
    return origins


def is_origin(text: str) -> bool:
    """Whether a browser would spell an origin that may be trusted so: encrypted, or of the browser's own host."""
    found = _SPELLED.fullmatch(text)
    if found is None:
        return False
    scheme, host, port = found.groups()
    if len(host) > _HOST_MAXIMUM or (port and (int(port) > PORT_MAXIMUM or int(port) == DEFAULT_PORTS[scheme])):
        return False
    return scheme == "https" or host in _OF_THIS_HOST


def is_of_this_host(origin: str) -> bool:
    """Whether the origin is one of the browser's own host: any program there may serve it."""
    found = _SPELLED.fullmatch(origin)
    return found is not None and found.group(2) in _OF_THIS_HOST


def origin_of(url: str) -> str | None:
    """The origin of an http or https URL, as a browser would spell it; `None` of any other text."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in DEFAULT_PORTS or not host:
        return None
    spelled = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{spelled}" + (f":{port}" if port not in {None, DEFAULT_PORTS[parts.scheme]} else "")
