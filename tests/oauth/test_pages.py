"""The pages of the integration say what works: their commands run as they stand."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from app.domain.api_clients import ClientScope
from tests.cli.test_cli import environment
from tests.conftest import PASSWORD, SECRET
from tests.oauth.conftest import ROOT, Served
from tests.oauth.test_libraries import make_app

PAGES = ROOT / "docs" / "integration"


def blocks(page: str) -> str:
    found = re.findall(r"^```sh\n(.*?)^```", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)
    return "set -e\n" + "".join(found)


async def run(script: str, **variables: str) -> str:
    variables["PATH"] = f"{Path(sys.executable).parent}:{environment()['PATH']}"

    def work() -> str:
        done = subprocess.run(
            ["bash", "-c", script],  # noqa: S607 - the reader's shell
            env=environment(**variables),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return await asyncio.to_thread(work)


def objects(said: str) -> list[dict[str, Any]]:
    """One after the other, with or without line ends between, among other text."""
    decoder, found = json.JSONDecoder(), []
    while (start := said.find('{"')) >= 0:
        value, end = decoder.raw_decode(said, start)
        found.append(value)
        said = said[end:]
    return found


async def test_the_page_of_the_standard_surface(served: Served) -> None:
    """Metadata, keys, a client's token, a person's, narrowed, introspected, revoked."""
    known, person = await make_app(served), await served.make_person()
    said = await run(
        blocks("oauth2.md"),
        URL=served.url,
        ID=known.client.client_id,
        SECRET=known.secret,
        NAME=person,
        PASSWORD=PASSWORD,
    )
    metadata, keys, own, narrowed, told = objects(said)
    assert metadata["issuer"] == served.url
    assert len(keys["keys"]) == 3
    assert own["scope"] == "introspect revoke"
    assert narrowed["scope"] == "read"
    assert (told["active"], told["token_use"]) == (True, "refresh_token")
    assert said.rpartition("HTTP/1.1")[2].startswith(" 200")


async def test_the_page_of_clients(served: Served, served_database_url: str) -> None:
    """A client's life at the command line, and a session that one opens."""
    sso = await served.make_client(scopes=[ClientScope.SESSIONS])
    person = await served.services.users.find_by_name(await served.make_person())
    assert person is not None
    said = await run(
        blocks("clients.md"),
        URL=served.url,
        USER_ID=str(person.id),
        SSO_ID=sso.client.client_id,
        SSO_SECRET=sso.secret,
        ROTA_DATABASE_URL=served_database_url,
        ROTA_SECRETS=SECRET,
    )
    assert "gateway, secret rota_cs_" in said
    assert "gateway: the former secret is revoked" in said
    assert "gateway: the current secret is revoked" in said
    assert "gateway is enabled" in said
    (tokens,) = objects(said)
    assert tokens["scope"] == "read write"
