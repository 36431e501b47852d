"""Where a request came from, as far as the trail wants to know."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final
from uuid import UUID

IpAddress = IPv4Address | IPv6Address

USER_AGENT_BYTES: Final = 512
ALIKE_FAILURES: Final = 5  # failed sign-ins that are alike and get an event each, a minute
_IPV6: Final = 6

_PREFIX_LENGTH: Final = {
    4: 24,
    6: 48,
}  # what one network usually hands out; wider than one household's changes


@dataclass(frozen=True, slots=True)
class ClientContext:
    """
    One request's origin: carried from the edge to the event.

    Args:
        ip: The peer's address; `None` where there is none (command line, Unix socket).
        user_agent: As sent, at most `USER_AGENT_BYTES` bytes of UTF-8, no control characters.
        request_id: Ours; the same that the answer and the log lines carry. `None` where there was no request.
    """

    ip: IpAddress | None
    user_agent: str | None
    request_id: UUID | None


def same_network(one: IpAddress | None, other: IpAddress | None) -> bool:
    """Whether two addresses share a /24 (IPv4) or a /48 (IPv6). An unknown address is like no other."""
    if one is None or other is None or one.version != other.version:
        return False
    return other in ip_network(f"{one}/{_PREFIX_LENGTH[one.version]}", strict=False)


def failure_source(ip: IpAddress | None) -> str:
    """What makes failures alike: the address, or for IPv6 its /64, of which one household has all the addresses."""
    if ip is None:
        return ""
    return str(ip_network(f"{ip}/64", strict=False).network_address if ip.version == _IPV6 else ip)


def clean_user_agent(raw: bytes | None) -> str | None:
    """A header's bytes as storable text: UTF-8, without control characters, cut at whole characters to 512 bytes."""
    if not raw:
        return None
    text = raw[: 4 * USER_AGENT_BYTES].decode("utf-8", "replace")
    if not text.isprintable():
        text = "".join(character for character in text if character.isprintable())
    return text.encode()[:USER_AGENT_BYTES].decode("utf-8", "ignore") or None
