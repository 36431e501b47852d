"""Where a request comes from."""

from functools import lru_cache
from typing import Final

from fastapi import Request

from app.domain.clients import ClientContext, IpAddress, clean_user_agent
from app.domain.proxies import HEADER_BYTES, TrustedProxies, read_address

PROXIES: Final = "proxies"  # in the application's state


def client_context(request: Request) -> ClientContext:
    """
    The client's address, agent and request id.

    The address is the peer's, unless that is one of `ROTA_TRUSTED_PROXIES`: then `X-Forwarded-For` tells. No other
    header is asked (`Forwarded`, `X-Real-IP`), since a proxy that does not set it hands on what the client has sent.
    """
    agent, forwarded = None, b""
    proxies: TrustedProxies = getattr(request.app.state, PROXIES)
    for name, value in request.scope["headers"]:
        if name == b"user-agent" and agent is None:
            agent = value
        elif name == b"x-forwarded-for" and proxies:
            forwarded = forwarded + b"," + value if forwarded else value
    return ClientContext(
        ip=_client(proxies, request.client.host if request.client else None, forwarded[-HEADER_BYTES - 1 :]),
        user_agent=clean_user_agent(agent),
        request_id=request.state.request_id,
    )


@lru_cache(maxsize=1024)
def _client(proxies: TrustedProxies, host: str | None, forwarded: bytes) -> IpAddress | None:
    return proxies.client_of(_peer(host), forwarded)


def _peer(host: str | None) -> IpAddress | None:
    """The other end of the connection; a Unix socket has no address. The zone of a link-local one is of this host."""
    return read_address((host or "").partition("%")[0])
