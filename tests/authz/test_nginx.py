"""The nginx configuration under `examples/`, in a real nginx, between a client that lies and a service that listens."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from app.domain.events import SYSTEM
from app.domain.users import Role
from benchmarks import rig
from tests.conftest import SECRET, MakePerson, MakeServices, client_at

EXAMPLE = Path(__file__).parents[2] / "examples" / "nginx"
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

OURS = re.compile(r"(x[-_.]?)?(auth[-_.]request|remote|forwarded)[-_.](?!for)", re.IGNORECASE)

# The same names as a client may spell them in the hope that somebody reads them as ours.
PLAIN = ("X-Auth-Request-User", "X-Auth-Request-Roles", "X-Auth-Request-Session", "Remote-User", "Remote-Groups")
SPELLINGS = (str.lower, str.upper, lambda name: name.replace("-", "_"), lambda name: name.replace("-", "."))
LIES = [f"{name}: intruder" for name in PLAIN]
LIES += [f"{spell(name)}: intruder" for name in PLAIN for spell in SPELLINGS]
LIES += [f"{name.replace('-', '_', 1)}: intruder" for name in PLAIN]
LIES += [
    f"{name}: intruder"
    for name in (
        "X-Auth-Request-Scope", "X-Auth-Request-Client", "X-Auth-Request-Groups", "X-Auth-Request-Email",
        "X-Auth-Request-Preferred-Username", "X-Auth-Request-Access-Token", "Remote-Name", "Remote-Email",
        "X-Forwarded-User", "X-Forwarded-Groups", "X-Forwarded-Email", "X-Forwarded-Preferred-Username",
        "X-Remote-User", "HTTP_REMOTE_USER", "HTTP_X_AUTH_REQUEST_USER",
    )
]  # fmt: skip


@dataclass
class Front:
    """nginx before an echoing service; the lines that the service got are in `heard`."""

    port: int
    heard: list[list[str]]

    async def ask(self, *lines: str, path: str = "/", method: str = "GET", body: bytes = b"") -> tuple[int, str]:
        """The status and the head of the answer to a request with exactly these header lines."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = [f"{method} {path} HTTP/1.1", "Host: front", "Connection: close", f"Content-Length: {len(body)}", *lines]
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        return int(answer[9:12]), answer.partition("\r\n\r\n")[0].lower()


@contextmanager
def nginx(rota_port: int, service_port: int) -> Iterator[int]:
    """The example, with these ports in the place of its own, as a user without any rights."""
    port = rig.free_port()
    folder = Path(tempfile.mkdtemp(prefix="rota-nginx-"))
    for file in EXAMPLE.iterdir():
        text = file.read_text()
        for old, new in (("8000", rota_port), ("9000", service_port), ("8080", port)):
            text = text.replace(f"127.0.0.1:{old};", f"127.0.0.1:{new};")
        (folder / file.name).write_text(text)
    who: str | None = None
    if os.geteuid() == 0:
        who = "nobody"
        shutil.chown(folder, who)
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"], user=who)
    try:
        while not _listens(port):
            assert process.poll() is None, "nginx did not start"
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest_asyncio.fixture(scope="module")
async def front(database_url: str) -> AsyncIterator[Front]:
    heard: list[list[str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        heard.append(head.split("\r\n")[:-2])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    service = await asyncio.start_server(serve, "127.0.0.1", 0)
    with (
        rig.rota(database_url, seals=False, ROTA_SECRETS=SECRET) as rota_port,
        nginx(rota_port, _port(service)) as port,
    ):
        yield Front(port, heard)
    service.close()
    await service.wait_closed()


def _port(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


def _ours(lines: list[str]) -> dict[str, list[str]]:
    """The header lines that speak of who calls, by lower-case name."""
    found: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if OURS.match(name) or OURS.match(name.removeprefix("HTTP_")):
            found.setdefault(name.lower(), []).append(value)
    return found


async def test_lies_do_not_come_through(front: Front, make_services: MakeServices, make_person: MakePerson) -> None:
    """Each lie alone, doubled, before and after the token, named in Connection: the service hears Rota's words only."""
    person = await make_person(make_services())
    issued = await person.sign_in()
    token = f"Authorization: Bearer {issued.access_token}"
    truth = {
        "x-auth-request-user": [str(person.user.id)],
        "x-auth-request-session": [str(issued.session_id)],
        "x-auth-request-roles": ["user"],
        "x-auth-request-groups": ["user"],
        "x-auth-request-client": ["first-party"],
        "remote-user": [str(person.user.id)],
        "remote-groups": ["user"],
    }
    attempts = [[lie, token] for lie in LIES] + [[token, lie, lie] for lie in LIES]
    attempts += [[*LIES, token, *LIES], [token, f"Connection: {', '.join(truth)}"]]
    for lines in attempts:
        front.heard.clear()
        status, _ = await front.ask(*lines)
        assert status == 200, lines
        (heard,) = front.heard
        assert _ours(heard) == truth, lines
        assert not [line for line in heard if "intruder" in line or "Bearer" in line], lines


async def test_without_a_token_the_service_is_not_reached(front: Front) -> None:
    """401 with the challenge, whatever else is claimed; by any method, with a body too."""
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"):
        for lines in ([], LIES, ["Authorization: Bearer nonsense"], ["Authorization: Basic YTpi"]):
            front.heard.clear()
            status, head = await front.ask(*lines, method=method, body=b"" if method == "GET" else b"x=1")
            assert status == 401
            assert 'www-authenticate: bearer realm="rota"' in head
            assert front.heard == []


async def test_the_asking_locations_cannot_be_asked_from_outside(front: Front) -> None:
    """They are internal."""
    for path in ("/_authz", "/_authz/admin", "/_unavailable"):
        assert (await front.ask(path=path))[0] == 404


async def test_a_role_that_is_required(front: Front, make_services: MakeServices, make_person: MakePerson) -> None:
    """403 for whoever has another one, 200 for an administrator."""
    services = make_services()
    for role, expected in ((Role.USER, 403), (Role.AUDITOR, 403), (Role.ADMIN, 200)):
        issued = await (await make_person(services, role=role)).sign_in()
        front.heard.clear()
        status, _ = await front.ask(f"Authorization: Bearer {issued.access_token}", path="/admin/x")
        assert (status, len(front.heard)) == (expected, int(expected == 200))


async def test_the_path_that_is_judged_is_the_path_that_arrives(
    front: Front, make_services: MakeServices, make_person: MakePerson
) -> None:
    """However it is spelled, nothing that a service could take for a path of administrators reaches it from others."""
    services = make_services()
    issued = await (await make_person(services)).sign_in()
    token = f"Authorization: Bearer {issued.access_token}"
    paths = ["/admin/x", "//admin/x", "/x/../admin/x", "/admin/..%2fx", "/admin/%2e%2e/x", "/admin%2F..%2Fx", "/admin"]
    paths += ["/admin%2fx", "/%61dmin/x", "/x/%2e%2e/admin/x", "/admin%0a", "/admin/x%0a", "/x%2f..%2fadmin%2fx"]
    for path in paths:
        front.heard.clear()
        status, _ = await front.ask(token, path=path)
        assert status in {200, 301, 403, 404}, path
        for heard in front.heard:
            assert "admin" not in heard[0], (path, heard[0])
    front.heard.clear()
    assert (await front.ask(token, path="/x?y=%2f&z"))[0] == 200
    assert front.heard[0][0].split()[1] == "/x?y=%2f&z"


async def test_an_ended_session_is_shut_out(front: Front, make_services: MakeServices, make_person: MakePerson) -> None:
    """Ended in another process: the proxy lets it in for the bound at most, and from then on never."""
    person = await make_person(make_services())
    issued = await person.sign_in()
    token = f"Authorization: Bearer {issued.access_token}"
    assert (await front.ask(token))[0] == 200
    await person.services.users.disable(person.user.id, actor=SYSTEM, client=client_at())
    async with asyncio.timeout(5):
        while (await front.ask(token))[0] == 200:
            pass
    assert (await front.ask(token))[0] == 401


async def test_when_rota_is_away_nobody_gets_in() -> None:
    """503 with Retry-After, not the 500 that nginx makes of it, and nothing reaches the service."""
    with nginx(rig.free_port(), rig.free_port()) as port:
        status, head = await Front(port, []).ask("Authorization: Bearer x")
        assert status == 503
        assert "retry-after: 1" in head
