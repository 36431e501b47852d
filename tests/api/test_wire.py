"""Hostile clients on a real socket: what the ASGI tests cannot see."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.cli.test_cli import ROTA, free_port, running
from tests.conftest import SECRET


@pytest_asyncio.fixture(scope="module")
async def port(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    """`rota serve` as it is deployed."""
    listening = free_port()
    log: Path = tmp_path_factory.mktemp("wire") / "log"
    settings = {"ROTA_DATABASE_URL": database_url, "ROTA_SECRETS": SECRET}
    server = running([ROTA, "serve", "--port", str(listening)], listening, log, **settings)
    await asyncio.to_thread(server.__enter__)
    yield listening
    await asyncio.to_thread(server.__exit__, None, None, None)
    text = log.read_text()
    # Others write to this database as well, and nobody seals it but this server: that it lags is no finding here.
    errors = [line for line in text.splitlines() if '"level":"error"' in line]
    assert not [line for line in errors if not re.search('"event":"audit.(alarm|seal_lags)"', line)]
    assert "Traceback" not in text


async def talk(port: int, *chunks: bytes, seconds: float = 15) -> bytes:
    """Send, hang on, and return what comes until the server closes or is silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
        async with asyncio.timeout(seconds):
            while data := await reader.read(65_536):
                answer += data
                if b"\r\n\r\n" in answer and b"connection: close" not in answer.lower():
                    break
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.close()
    return answer


@pytest.mark.case(62)
async def test_a_head_without_end_is_cut(port: int) -> None:
    """A hundred megabytes of one header: refused after the first 64 KiB, and nobody else has to wait."""
    megabyte = b"x" * 2**20
    flood = asyncio.create_task(talk(port, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: ", *[megabyte] * 100))
    slowest = 0.0
    while not flood.done():
        started = time.perf_counter()
        assert b" 200 " in await talk(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        slowest = max(slowest, time.perf_counter() - started)
    assert (await flood)[:12] in {b"HTTP/1.1 431", b""}  # the reset may overtake the answer


async def test_a_long_url_is_cut(port: int) -> None:
    """The request line belongs to the head."""
    answer = await talk(port, b"GET /", *[b"y" * 65_536] * 20, b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer[:12] in {b"HTTP/1.1 431", b""}


@pytest.mark.case(62)
@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-", id="half a head"),
        pytest.param(
            b"POST /refresh HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
            id="half a body",
        ),
    ],
)
async def test_slow_senders_are_let_go(port: int, request_: bytes) -> None:
    """408 for whoever does not come to the end."""
    assert b" 408 " in await talk(port, request_)


async def test_whoever_hangs_up_is_no_defect(port: int) -> None:
    """A body that ends in the middle: no error line (the fixture looks), and the server goes on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /refresh HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    assert reader is not None
    assert b" 200 " in await talk(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
async def test_ten_megabytes_on_the_wire(port: int, *, chunked: bool) -> None:
    """413, without the connection being torn from under the sender."""
    head = b"POST /refresh HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    megabyte = b"x" * 2**20
    if chunked:
        frames = [b"100000\r\n" + megabyte + b"\r\n"] * 10 + [b"0\r\n\r\n"]
        answer = await talk(port, head + b"Transfer-Encoding: chunked\r\n\r\n", *frames)
    else:
        answer = await talk(port, head + b"Content-Length: 10485760\r\n\r\n", *[megabyte] * 10)
    assert b" 413 " in answer


@pytest.mark.parametrize("request_", [b"NONSENSE\r\n\r\n", b"\0\0\0\0\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"], ids=repr)
async def test_what_is_no_http_is_refused(port: int, request_: bytes) -> None:
    """400, and closed."""
    assert b" 400 " in await talk(port, request_)


async def test_requests_follow_each_other_on_one_connection(port: int) -> None:
    """The bound on the head starts anew with each request."""
    one = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: " + b"z" * 40_000 + b"\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(4):
        writer.write(one)
        async with asyncio.timeout(5):
            assert b" 200 " in await reader.readuntil(b'{"status":"ok"}')
    writer.close()
