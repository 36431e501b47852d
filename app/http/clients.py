"""Where a request comes from."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from fastapi import Request

from app.domain.clients import ClientContext, IpAddress, clean_user_agent


def client_context(request: Request) -> ClientContext:
    """
    The peer's address, agent and request id.

    The address is the peer's and no header's: anybody can send `X-Forwarded-For`.
    """
    agents = [value for name, value in request.scope["headers"] if name == b"user-agent"]
    return ClientContext(
        ip=_address(request.client.host if request.client else None),
        user_agent=clean_user_agent(agents[0] if agents else None),
        request_id=request.state.request_id,
    )


@lru_cache(maxsize=4096)
def _address(host: str | None) -> IpAddress | None:
    try:
        address = ip_address(host or "")
    except ValueError:  # a Unix socket has no address
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
