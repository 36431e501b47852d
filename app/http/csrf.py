"""
Whether a request that a browser sends is meant: cross-site request forgery.

Our cookies are `SameSite=Strict`, which still lets other hosts of the same site use them; so the browser's own word on
where a request comes from decides. A script cannot forge either header.
"""

from dataclasses import dataclass
from typing import Final, Self

from fastapi import Request

from app.domain.origins import origin_of
from app.http.errors import CrossSiteRequest
from app.settings import Settings

OWN: Final = "same-origin"


@dataclass(frozen=True, slots=True)
class Origins:
    """Ours, if the issuer is a URL, and those listed exactly."""

    own: str | None
    listed: tuple[str, ...]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(origin_of(settings.issuer), settings.allowed_origins)


def refuse_cross_site(request: Request, origins: Origins, *, by_cookie: bool) -> None:
    """
    Let a request pass whose browser says that a page of ours, or of a listed origin, has sent it.

    `Sec-Fetch-Site: same-origin` is enough: behind a proxy our own origin may be one that we do not know. Otherwise
    `Origin` must be listed, or ours where `Sec-Fetch-Site` is missing: from an older browser, or over plain http. What
    no page has sent (`none`) is not meant either, since nobody types a POST.

    Args:
        by_cookie: The request carries one of our cookies, so a browser sends it, and a browser says where it comes
            from: without either header it is refused. Without cookie and headers nothing speaks for it but what it
            says itself, and so nothing can be forged.
    Raises:
        CrossSiteRequest: in all other cases, also if a header stands twice or the origin is hidden (`null`).
    Source: OWASP ASVS 5.0, 3.5.1 and 3.5.3; W3C Fetch Metadata.
    """
    site, origin = request.headers.getlist("sec-fetch-site"), request.headers.getlist("origin")
    if len(site) > 1 or len(origin) > 1:
        raise CrossSiteRequest(why="a header twice")
    if not site and not origin:
        if by_cookie:
            raise CrossSiteRequest(why="neither header")
        return
    if origin == ["null"]:
        raise CrossSiteRequest(why="origin null")
    if site == [OWN]:
        return
    trusted = set(origins.listed)
    if not site and origins.own is not None:
        trusted.add(origins.own)
    if site == ["none"] or not trusted.intersection(origin):
        raise CrossSiteRequest(why=f"from {'another origin' if origin else 'elsewhere'}")
