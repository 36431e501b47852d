"""
Which address a request comes from, where proxies stand before the server.

`X-Forwarded-For` is read from its right end: what the nearest proxy has added is there, and only what a trusted one
has added is true. Further left stands what anybody may have sent.
"""

from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from typing import Final

from app.domain.clients import IpAddress
from app.domain.event_filters import IpNetwork

ANYBODY: Final = "*"
UNIX: Final = "unix"
ENTRIES_MAXIMUM: Final = 256
HOPS_MAXIMUM: Final = 32
HEADER_BYTES: Final = 2048  # looked at, from the right: 32 of the longest entries

_ENTRY_CHARACTERS: Final = 64
_PORT_DIGITS: Final = 5
_MAPPED_BITS: Final = 96  # of ::ffff:0:0/96, before an IPv4 address
# A network of fewer bits holds so many strangers that to trust it is to trust anybody. 10.0.0.0/8 and fc00::/7, which
# are private, are the widest that remain.
_PREFIX_MINIMUM: Final = {4: 8, 6: 16}
_PRIVATE: Final = IPv6Network("fc00::/7")


def _is_too_wide(network: IpNetwork) -> bool:
    if isinstance(network, IPv6Network) and network.subnet_of(_PRIVATE):
        return False
    return network.prefixlen < _PREFIX_MINIMUM[network.version]


class ProxiesInvalid(ValueError):
    """The list of trusted proxies cannot be read; the message has no value of it."""


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """
    Whose `X-Forwarded-For` counts.

    Args:
        unix: Peers without an address, behind a Unix socket.
        anybody: Everybody, so that every client can say to be another one.
    """

    networks: tuple[IpNetwork, ...] = ()
    unix: bool = False
    anybody: bool = False

    def __bool__(self) -> bool:
        return bool(self.networks) or self.unix or self.anybody

    def trust(self, address: IpAddress | None) -> bool:
        """Whether this one's word counts; `None` is a peer behind a Unix socket."""
        if self.anybody:
            return True
        if address is None:
            return self.unix
        return any(address.version == each.version and address in each for each in self.networks)

    def client_of(self, peer: IpAddress | None, forwarded: bytes) -> IpAddress | None:
        """
        The client: the first address that is not a trusted proxy's, from the peer inward.

        What is not exactly an address (with or without a port) ends the search: what stands left of it was vouched for
        by nobody whom we know. The nearest address that somebody trusted has named is then the answer, as it is when
        all are trusted.

        Args:
            forwarded: All `X-Forwarded-For` lines in their order, joined by commas.
        """
        if not forwarded or not self.trust(peer):
            return peer
        nearest = peer
        entries = forwarded[-HEADER_BYTES:].split(b",")
        if len(forwarded) > HEADER_BYTES:
            entries[0] = b""  # half an address may look like another one
        for entry in entries[: -HOPS_MAXIMUM - 1 : -1]:
            address = read_hop(entry)
            if address is None:
                break
            nearest = address
            if not self.trust(address):
                break
        return nearest


def read_address(text: str) -> IpAddress | None:
    """An address in its usual spelling, one of IPv4 within IPv6 as what it is; with a zone it is none."""
    if not text.isascii() or len(text) > _ENTRY_CHARACTERS or "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def read_hop(entry: bytes) -> IpAddress | None:
    """An entry of `X-Forwarded-For`, as `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or with a port."""
    text = entry.decode("latin-1").strip(" \t")
    if text.startswith("["):
        inside, closed, port = text[1:].partition("]")
        address = read_address(inside) if closed and ":" in inside else None
        return address if not port or (port[0] == ":" and _is_port(port[1:])) else None
    host, colon, port = text.partition(":")
    if colon and "." in host:
        address = read_address(host)
        return address if isinstance(address, IPv4Address) and _is_port(port) else None
    return read_address(text)


def _is_port(text: str) -> bool:
    return 0 < len(text) <= _PORT_DIGITS and text.isascii() and text.isdigit() and int(text) < 2**16


def read_proxies(text: str, *, anybody_may: bool) -> TrustedProxies:
    """
    The setting: addresses and networks, `unix`, or `*`, with commas between.

    Args:
        anybody_may: Whether somebody has said that he means it: without, what trusts anybody is refused.
    Raises:
        ProxiesInvalid: an entry is none of these, a network has bits behind its prefix, there are too many, or they
            trust anybody.
    """
    entries = [entry.strip() for entry in text.split(",")] if text.strip() else []
    if len(entries) > ENTRIES_MAXIMUM:
        raise ProxiesInvalid(f"there may be {ENTRIES_MAXIMUM} entries at most")
    unix = UNIX in entries
    networks = [_network(entry, n) for n, entry in enumerate(entries, 1) if entry not in {UNIX, ANYBODY}]
    # Neighbours as the one network that they are: two halves of everything are everything.
    collapsed: tuple[IpNetwork, ...] = (
        *collapse_addresses(each for each in networks if isinstance(each, IPv4Network)),
        *collapse_addresses(each for each in networks if isinstance(each, IPv6Network)),
    )
    anybody = ANYBODY in entries or any(map(_is_too_wide, collapsed))
    if anybody and not anybody_may:
        raise ProxiesInvalid(
            "this would believe anybody's X-Forwarded-For; name the proxies, or set ROTA_UNSAFE_TRUST_ANY_PROXY=true"
        )
    return TrustedProxies(collapsed, unix=unix, anybody=anybody)


def _network(entry: str, number: int) -> IpNetwork:
    try:
        if "%" in entry:
            raise ValueError("a zone")  # noqa: TRY301 - as what ipaddress refuses
        network = ip_network(entry)
    except ValueError:
        raise ProxiesInvalid(
            f"entry {number} must be an address, a network such as 10.0.0.0/8 without bits behind its prefix, or unix"
        ) from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= _MAPPED_BITS:
        return ip_network(f"{mapped}/{network.prefixlen - _MAPPED_BITS}")
    return network
