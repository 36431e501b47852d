"""
Our two cookies, read and written strictly.

Only pairs under our own names are looked at: what other applications of the site have left in the browser may be
anything. What stands under ours has one meaning or none: a cookie that cannot be read is refused, never taken for none.

The prefix `__Host-` has browsers refuse them unless they are `Secure`, for `/` and for no domain, so no other host of
the site can set one (RFC 6265bis section 4.1.3.2).
"""

import re
from typing import Final

from fastapi import Request

from app.domain import device_token, refresh_token
from app.http.errors import CLEARING, CookieMalformed

REFRESH: Final = "__Host-rota_refresh"
DEVICE: Final = "__Host-rota_device"

DEVICE_SECONDS: Final = 180 * 86_400
VALUE_BYTES_MAXIMUM: Final = 1024
HEADERS_BYTES_MAXIMUM: Final = 65_536

_BLANK: Final = b" \t"
_VALUE: Final = re.compile(rf"[!#-+\--:<-\[\]-~]{{1,{VALUE_BYTES_MAXIMUM}}}".encode())  # cookie-octet: no quotes


def find_pairs(request: Request, name: str) -> list[bytes]:
    """
    The pairs under one of our names, each as it stands in the request; of all `Cookie` headers, which HTTP/2 may split.

    A name with blanks around it is ours too: others cut them off, and would see a cookie where we saw none. One in
    other letters, or with blanks that are not ASCII, is another name.
    """
    headers = [value for header, value in request.scope["headers"] if header == b"cookie"]
    if not headers:
        return []
    if sum(map(len, headers)) > HEADERS_BYTES_MAXIMUM:
        raise CookieMalformed(clearing=clearing(name), why="cookie headers too large")
    wanted = name.encode()
    pairs = (pair.strip(_BLANK) for header in headers for pair in header.split(b";"))
    return [pair for pair in pairs if pair.partition(b"=")[0].strip() == wanted]


def read_value(pairs: list[bytes], name: str) -> str:
    """
    The value of a cookie that stands once, by RFC 6265 section 4.1.1, without quotes.

    Raises:
        CookieMalformed: it stands twice, has no value, a quoted one, one with other characters, or one too long.
    """
    found, equals, value = pairs[0].partition(b"=")
    if len(pairs) > 1 or found != name.encode() or not equals or not _VALUE.fullmatch(value):
        raise CookieMalformed(clearing=clearing(name), why="doubled" if len(pairs) > 1 else "malformed")
    return value.decode()


def read_refresh_token(request: Request, pairs: list[bytes]) -> str:
    """
    The refresh token of the cookie; from now on, a refusal of it takes the cookie away.

    Raises:
        CookieMalformed: as `read_value`, or not the shape of one of our tokens.
    """
    value = read_value(pairs, REFRESH)
    if not refresh_token.is_spelled(value):
        raise CookieMalformed(clearing=clearing(REFRESH), why="not the shape of a refresh token")
    request.scope[CLEARING] = clearing(REFRESH)
    return value


def read_device_tokens(pairs: list[bytes]) -> str:
    """
    The device tokens of the cookie. Whether they are genuine and of whom is nothing that refuses a request.

    Raises:
        CookieMalformed: as `read_value`, or not the shape of what we set.
    """
    value = read_value(pairs, DEVICE)
    if not device_token.is_spelled(value):
        raise CookieMalformed(clearing=clearing(DEVICE), why="not the shape of device tokens")
    return value


def set_cookie(name: str, value: str, *, seconds: int) -> str:
    """
    The text of a `Set-Cookie` header.

    Raises:
        ValueError: the value is none that could be read again; so nothing can end the header, or begin an attribute.
    """
    if not _VALUE.fullmatch(value.encode()):
        raise ValueError("not a cookie's value")
    return _spelled(name, value, seconds)


def clearing(name: str) -> str:
    """The text of the `Set-Cookie` header that takes a cookie away."""
    return _spelled(name, "", 0)


def _spelled(name: str, value: str, seconds: int) -> str:
    return f"{name}={value}; Max-Age={seconds}; Path=/; Secure; HttpOnly; SameSite=Strict"
