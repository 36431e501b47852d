"""
The API docs as a page: Swagger UI on `/openapi.json`.

FastAPI's own page loads its scripts from another host and has one within itself, so that no policy could keep a
stranger's script out. Here all come from this server: the interface from an installed package, its start from below.
"""

from functools import lru_cache
from importlib.resources import files
from typing import Final

from fastapi import Request, Response
from starlette.routing import Route, Router

from app.http.kept import kept

CHECKED: Final = "no-cache"  # kept, and asked about each time: another release may have other files

# Styles that the interface sets by script are no inline styles to this policy; pictures in its style sheet are data.
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
}

# Addresses are relative, so that the page also works where a proxy has put a path before ours.
_PAGE: Final = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Rota: API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<script src="docs/swagger-ui.js" defer></script>
<script src="docs/start.js" defer></script>
</head>
<body>
<div id="docs"></div>
<noscript>This page needs JavaScript; the document behind it is <a href="openapi.json">openapi.json</a>.</noscript>
</body>
</html>
"""

# No validator: it would send the document's address to another host.
_START: Final = b"""SwaggerUIBundle({
  url: new URL("../openapi.json", document.currentScript.src).href,
  dom_id: "#docs",
  deepLinking: true,
  validatorUrl: null,
  persistAuthorization: false,
  presets: [SwaggerUIBundle.presets.apis],
});
"""


async def page(request: Request) -> Response:
    answer = kept(request, _PAGE, "text/html; charset=utf-8", CHECKED)
    answer.headers.update(_HEADERS)
    return answer


async def start(request: Request) -> Response:
    return kept(request, _START, "text/javascript; charset=utf-8", CHECKED)


def script(request: Request) -> Response:
    return kept(request, _asset("swagger-ui-bundle.js"), "text/javascript; charset=utf-8", CHECKED)


def styles(request: Request) -> Response:
    return kept(request, _asset("swagger-ui.css"), "text/css; charset=utf-8", CHECKED)


@lru_cache(maxsize=2)
def _asset(name: str) -> bytes:
    """A file of the interface; `name` is ours, never the request's."""
    return files("fastapi_offline").joinpath("static", name).read_bytes()


# As FastAPI has its own: for everybody, by GET and HEAD, and no part of the API.
router = Router(
    [
        Route("/docs", page),
        Route("/docs/start.js", start),
        Route("/docs/swagger-ui.js", script),
        Route("/docs/swagger-ui.css", styles),
    ]
)
