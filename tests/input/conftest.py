"""A server as it is deployed, and bytes sent to it as they are."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from app.domain.users import Role
from tests.cli.test_cli import ROTA, free_port, running
from tests.conftest import SECRET, MakePerson


@pytest.fixture(scope="module")
def log_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "log"


@pytest_asyncio.fixture(scope="module")
async def port(database_url: str, log_path: Path) -> AsyncIterator[int]:
    """`rota serve`, behind an https issuer, with this host as its proxy."""
    listening = free_port()
    settings = {
        "ROTA_DATABASE_URL": database_url,
        "ROTA_SECRETS": SECRET,
        "ROTA_REGISTRATION": "open",
        "ROTA_ISSUER": "https://login.example.com",
        "ROTA_TRUSTED_PROXIES": "127.0.0.1",
        "FORWARDED_ALLOW_IPS": "*",  # uvicorn's own, which must not count
    }
    server = running([ROTA, "serve", "--port", str(listening)], listening, log_path, **settings)
    await asyncio.to_thread(server.__enter__)
    yield listening
    await asyncio.to_thread(server.__exit__, None, None, None)
    text = log_path.read_text()
    assert "Traceback" not in text
    assert '"event":"request.broke"' not in text


async def talk(port: int, *chunks: bytes, seconds: float = 20) -> bytes:
    """Send, and return all that comes until the server closes or has nothing to say for some time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
        async with asyncio.timeout(seconds):
            while data := await reader.read(65_536):
                answer += data
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.close()
    return answer


def statuses(answer: bytes) -> list[int]:
    """Of all answers in it."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


@pytest_asyncio.fixture
async def admin(make_person: MakePerson) -> dict[str, str]:
    """The header of an administrator."""
    issued = await (await make_person(role=Role.ADMIN)).sign_in()
    return {"Authorization": f"Bearer {issued.access_token}"}
