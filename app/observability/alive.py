"""
Whether the server of this container answers: `python -m app.observability.alive`, for a container's HEALTHCHECK.

Asks `/livez`, which never asks the database: a container is not killed because its database is away. Nothing but the
standard library, and not the settings, since it runs every few seconds beside the server that has read them.
"""

import http.client
import os
import sys
from collections.abc import Mapping
from typing import Final

SECONDS: Final = 4.0
ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a server on all addresses is reached from within


def find_trouble(environ: Mapping[str, str]) -> str | None:
    """What is wrong with the server at `ROTA_HOST` and `ROTA_PORT`; `None`: it answers."""
    host = environ.get("ROTA_HOST", "127.0.0.1")
    port = environ.get("ROTA_PORT", "8000")
    try:
        connection = http.client.HTTPConnection(ANY.get(host, host), int(port), timeout=SECONDS)
        connection.request("GET", "/livez")
        status = connection.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"no answer from {host} port {port} ({type(error).__name__})"
    return None if status == http.client.OK else f"{host} port {port} answers {status}"


def main() -> None:
    trouble = find_trouble(os.environ)
    if trouble is not None:
        print(trouble, file=sys.stderr)  # noqa: T201 - what the container's engine keeps of a check
        sys.exit(1)


if __name__ == "__main__":
    main()
