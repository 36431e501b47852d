"""`rota clients`: the whole life of a client at the command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import environment
from tests.conftest import SECRET, MakeServices
from tests.oauth.conftest import ROOT

ROTA = str(Path(sys.executable).with_name("rota"))


@pytest.fixture
def rota(database_url: str) -> Any:
    def run(*words: str, expect: int = 0) -> str:
        done = subprocess.run(
            [ROTA, "clients", *words],
            env=environment(ROTA_DATABASE_URL=database_url, ROTA_SECRETS=SECRET),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == expect, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if expect == 0 else done.stderr

    return run


async def test_a_clients_life_at_the_command_line(rota: Any, make_services: MakeServices) -> None:
    """Made with a secret that works, listed and shown without it, rotated, revoked, shut out and let in."""
    services = make_services()
    words = ["--scope", "introspect", "--scope", "revoke", "--session-scope", "read", "--json"]
    made = json.loads(rota("create", "billing", *words))
    assert made["scopes"] == ["introspect", "revoke"]
    who = made["client_id"]
    assert await services.client_authentication.authenticate(who, made["client_secret"])
    assert made["client_secret"] not in rota("show", who)
    assert json.loads(rota("show", made["id"], "--json"))["client_id"] == who
    assert who in [each["client_id"] for each in json.loads(rota("list", "--json"))]
    assert f"{who}  billing  confidential  introspect revoke" in rota("list")
    rotated = json.loads(rota("rotate-secret", who, "--overlap-seconds", "60", "--json"))
    assert rotated["former_secret_expires_at"]
    services.client_authentication.forget(who)
    for secret in (made["client_secret"], rotated["client_secret"]):
        assert await services.client_authentication.authenticate(who, secret)
    assert rota("revoke-secret", who) == f"{who}: the former secret is revoked\n"
    assert rota("revoke-secret", who) == f"{who}: there was no former secret\n"
    assert "works until it is revoked" in rota("rotate-secret", who, "--until-revoked")
    assert rota("disable", who) == f"{who} is disabled\n"
    assert rota("disable", who) == f"{who} was disabled already\n"
    assert rota("enable", who) == f"{who} is enabled\n"
    assert json.loads(rota("enable", who, "--json"))["changed"] is False


def test_what_the_command_line_refuses(rota: Any) -> None:
    """Usage is 2, an unknown client is 3, what cannot be is 4."""
    assert "first-party" in rota("create", "x", "--grant", "password", expect=2)
    rota("create", "x", "--scope", "everything", expect=2)
    rota("rotate-secret", "x", "--overlap-seconds", "-1", expect=2)
    assert "no such client" in rota("show", "nobody", expect=3)
    assert "no such client" in rota("disable", "nobody", expect=3)
    public = json.loads(rota("create", "app", "--public", "--first-party", "--json"))
    assert public["client_secret"] is None
    rota("rotate-secret", public["client_id"], expect=4)
    rota("create", "app", "--client-id", public["client_id"], expect=4)
