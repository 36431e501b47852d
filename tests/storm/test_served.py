"""A storm of sign-ins on a real server: memory, refusals, refreshes beside it, clients that leave."""

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from urllib.parse import urlencode

import pytest

from app.container import Container
from app.security.passwords import MEMORY_KIB, NICENESS
from app.services.tokens import IssuedTokens
from tests.conftest import PASSWORD, MakePerson, MakeServices, Person
from tests.deploy.conftest import Serve, Served
from tests.oauth.conftest import Known, make_known

OPERATOR = "operator-token-operator-token-operator"
STORM = 500
THREADS = 2
SLACK_MIB = 48  # what 500 connections and their requests take, and what an allocator leaves lying about
TWO = {"PYTHON_CPU_COUNT": str(THREADS), "ROTA_OPERATOR_TOKEN": OPERATOR}

Answer = tuple[int, dict[str, str], bytes]


async def post(served: Served, path: str, headers: dict[str, str] | None = None, **fields: str) -> Answer:
    """On a connection of its own, as 500 people have them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(request(path, headers or {}, fields))
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = head.strip().split("\r\n")
    shown = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(shown["content-length"]))
    writer.close()
    return int(status.split()[1]), shown, body


def request(path: str, headers: dict[str, str], fields: dict[str, str]) -> bytes:
    body = urlencode(fields).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: rota", "Content-Type: application/x-www-form-urlencoded"]
    lines += [f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def metric(served: Served, name: str) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(f"GET /metrics HTTP/1.1\r\nHost: rota\r\nAuthorization: Bearer {OPERATOR}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    found = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
    assert found, head
    text = (await reader.readexactly(int(found.group(1)))).decode()
    writer.close()
    value = re.search(rf"^{name} ([\d.e+]+)$", text, re.MULTILINE)
    assert value, text
    return float(value.group(1))


def mebibytes(served: Served, name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{served.process.pid}/status").read_text(encoding="ascii"))
    assert found
    return int(found.group(1)) / 1024


@pytest.fixture
async def people(make_services: MakeServices, make_person: MakePerson) -> list[Person]:
    services = make_services()
    return [await make_person(services) for _ in range(25)]


async def refreshing(served: Served, issued: IssuedTokens, enough: asyncio.Event) -> list[int]:
    """A session that is refreshed as fast as it goes until there is enough."""
    token, statuses = issued.refresh_token, []
    while not enough.is_set():
        status, _, body = await post(served, "/refresh", refresh_token=token)
        statuses.append(status)
        if status != 200:
            return statuses
        token = json.loads(body)["refresh_token"]
    return statuses


@pytest.mark.alone
@pytest.mark.case(47)
async def test_five_hundred_at_once(database_url: str, serve: Serve, people: list[Person]) -> None:
    """
    Each is signed in or refused with 503 and `Retry-After`; memory grows by no more than the threads' hashes; and
    whoever is signed in already refreshes as if nothing were the matter.
    """
    served = await serve(database_url, **TWO)
    issued = [await person.sign_in() for person in people[:4]]
    assert (await post(served, "/refresh", refresh_token=issued.pop().refresh_token))[0] == 200
    before = mebibytes(served, "VmRSS")
    enough = asyncio.Event()
    beside = [asyncio.create_task(refreshing(served, each, enough)) for each in issued]
    for _ in range(2):
        storm = (
            post(served, "/token", username=people[number % 25].username, password=PASSWORD) for number in range(STORM)
        )
        answers = await asyncio.gather(*storm)
        statuses = Counter(status for status, _, _ in answers)
        assert set(statuses) == {200, 503}, statuses
        for status, headers, body in answers:
            if status == 503:
                assert json.loads(body)["code"] == "too_busy"
                assert int(headers["retry-after"]) >= 1
    enough.set()
    refreshed = [status for statuses in await asyncio.gather(*beside) for status in statuses]
    assert set(refreshed) == {200}
    assert len(refreshed) > len(issued)
    assert mebibytes(served, "VmHWM") - before <= THREADS * MEMORY_KIB / 1024 + SLACK_MIB
    assert await metric(served, "rota_password_hashes_waiting") == 0


@pytest.mark.alone
async def test_refusals_do_not_wait(database_url: str, serve: Serve, people: list[Person]) -> None:
    """Those who are refused have their answers while those who are let in still wait for theirs."""
    served = await serve(database_url, **TWO)
    order: list[int] = []

    async def sign_in(number: int) -> None:
        order.append((await post(served, "/token", username=people[number % 25].username, password=PASSWORD))[0])

    await asyncio.gather(*(sign_in(number) for number in range(STORM)))
    counted = Counter(order)
    assert set(counted) == {200, 503}
    first = order[: counted[503]]
    assert first.count(503) > 0.8 * counted[503]


@pytest.fixture
async def known(make_services: MakeServices) -> Known:
    services: Container = make_services()
    return await make_known(services, grants={"password"}, first_party=True)


@pytest.mark.alone
async def test_a_storm_through_a_client(database_url: str, serve: Serve, people: list[Person], known: Known) -> None:
    """RFC 6749's form, 503, and never `invalid_grant`, upon which clients forget what they have."""
    served = await serve(database_url, **TWO)
    answers = await asyncio.gather(
        *(
            post(
                served, "/oauth2/token", known.basic, grant_type="password", username=people[number % 25].username,
                password=PASSWORD,
            )
            for number in range(STORM)
        )
    )  # fmt: skip
    assert {status for status, _, _ in answers} == {200, 503}
    for status, headers, body in answers:
        if status == 503:
            assert json.loads(body)["error"] == "too_busy"
            assert int(headers["retry-after"]) >= 1


@pytest.mark.alone
async def test_clients_that_leave(database_url: str, serve: Serve, people: list[Person]) -> None:
    """A hundred connections that ask and are closed: only those are hashed whose turn had come. Who stays is served."""
    served = await serve(database_url, **TWO | {"PYTHON_CPU_COUNT": "1"})
    asked = request("/token", {}, {"username": people[0].username, "password": PASSWORD})
    hashed = "rota_password_hash_wait_seconds_count"
    before = await metric(served, hashed)
    lines = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(100)]
    for _, writer in lines:
        writer.write(asked)
    for _, writer in lines:
        await writer.drain()
    staying = asyncio.create_task(post(served, "/token", username=people[1].username, password=PASSWORD))
    for _, writer in lines:
        writer.transport.abort()
    assert (await staying)[0] in {200, 503}
    async with asyncio.timeout(60):
        while (await post(served, "/token", username=people[2].username, password=PASSWORD))[0] != 200:
            await asyncio.sleep(0.05)
    assert await metric(served, hashed) - before < 40


@pytest.mark.alone
async def test_workers_share_the_processors(database_url: str, serve: Serve, people: list[Person]) -> None:
    """Four processors among three workers: two threads each hash, however many ask."""
    served = await serve(database_url, "--workers", "3", **TWO | {"PYTHON_CPU_COUNT": "4"})
    await asyncio.gather(
        *(post(served, "/token", username=people[number % 25].username, password=PASSWORD) for number in range(120))
    )
    counts = [count for pid in served.group if (count := giving_way(pid))]
    assert counts
    assert max(counts) == 2
    assert len(counts) <= 3


def giving_way(pid: int) -> int:
    """How many threads of a process have a lower priority than others, as those have that hash."""
    stats = [task.read_text().rpartition(") ")[2].split() for task in Path(f"/proc/{pid}/task").glob("*/stat")]
    return sum(int(fields[16]) == NICENESS for fields in stats)
