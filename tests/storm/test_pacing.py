"""Requests that bring a password begin one after another; refreshes do not wait for them."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.domain.errors import TooBusy
from app.http import pacing
from app.http.pacing import Admission, Pacing
from app.http.protocol import ASKER

FORM = (b"content-type", b"application/x-www-form-urlencoded")


class Application:
    """Says who has begun, and what of the body came to it."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, _: Send) -> None:
        self.begun.append(scope["name"])
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)


def asking(app: Callable[..., Any], name: str, body: bytes, *, path: str = "/token", method: str = "POST") -> Any:
    """A request whose body comes in two parts if it has a line break."""
    parts = body.split(b"\n")
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)} for number, part in enumerate(parts, 1)
    ]
    scope = {"type": "http", "method": method, "path": path, "headers": [FORM], "name": name}

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        pytest.fail(f"nobody answers: {message}")

    return app(scope, receive, send)


def form(**fields: str) -> bytes:
    return urlencode(fields).encode()


SIGN_IN = form(grant_type="password", username="anna", password="b")
REFRESH = form(grant_type="refresh_token", refresh_token="c")


async def test_one_begins_in_a_turn_of_the_loop() -> None:
    """However many come at once; each has its whole body."""
    application = Application()
    pace = Pacing(application)
    tasks = [asyncio.create_task(asking(pace, str(number), SIGN_IN)) for number in range(20)]
    seen = [0]
    while len(application.begun) < 20:
        await asyncio.sleep(0)
        seen.append(len(application.begun))
    assert max(later - sooner for sooner, later in pairwise(seen)) == 1
    await asyncio.gather(*tasks)
    assert application.begun == [str(number) for number in range(20)]
    assert application.bodies == [SIGN_IN] * 20
    await asking(pace, "late", SIGN_IN)
    assert application.begun[-1] == "late"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        pytest.param(REFRESH, "/token", id="a refresh"),
        pytest.param(form(refresh_token="c", grant_type="refresh_token"), "/oauth2/token", id="by a client"),
        pytest.param(form(grant_type="client_credentials", client_id="x"), "/oauth2/token", id="a client's own token"),
        pytest.param(SIGN_IN, "/refresh", id="another route"),
    ],
)
async def test_what_does_not_wait(body: bytes, path: str) -> None:
    """Begun at once, while a hundred wait."""
    application = Application()
    pace = Pacing(application)
    tasks = [asyncio.create_task(asking(pace, "storm", SIGN_IN)) for _ in range(100)]
    await asyncio.sleep(0)
    await asking(pace, "at once", body, path=path)
    assert len(application.begun) < 5
    assert "at once" in application.begun
    await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"grant_type=refresh_token&grant_type=password&password=x", id="two grants"),
        pytest.param(b"grant_type=refresh_token\n&grant_type=password", id="not whole yet"),
        pytest.param(b"agrant_type=refresh_token", id="another field"),
        pytest.param(b"grant_type=refresh%5Ftoken", id="written otherwise"),
        pytest.param(b"grant_type=refresh_token2", id="another grant"),
        pytest.param(b"grant_type=refresh_token" + b"&" * 65_000, id="more fields than a form may have"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_what_is_no_refresh_waits(body: bytes) -> None:
    """Nobody passes the others by a word in the body."""
    application = Application()
    pace = Pacing(application)
    tasks = [asyncio.create_task(asking(pace, "storm", SIGN_IN)) for _ in range(50)]
    await asyncio.sleep(0)
    await asking(pace, "this", body)
    assert application.begun.index("this") == 50
    assert application.bodies[-1] == body.replace(b"\n", b"")
    await asyncio.gather(*tasks)


async def test_a_body_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its route says so as ever, and does not wait once more."""
    monkeypatch.setattr(pacing, "BODY_SECONDS", 0.01)
    said: list[str] = []

    async def application(_: Scope, receive: Receive, __: Send) -> None:
        with pytest.raises(TimeoutError):
            await receive()
        said.append("too slow")

    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    async def send(_: Message) -> None: ...

    scope = {"type": "http", "method": "POST", "path": "/token", "headers": [FORM]}
    await asyncio.wait_for(Pacing(application)(scope, receive, send), 30)
    assert said == ["too slow"]


async def test_cancelled_while_waiting() -> None:
    """As the server stops: the others go on."""
    application = Application()
    pace = Pacing(application)
    tasks = [asyncio.create_task(asking(pace, str(number), SIGN_IN)) for number in range(10)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for number in (3, 4, 9):
        tasks[number].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [number for number, one in enumerate(done) if isinstance(one, asyncio.CancelledError)] == [3, 4, 9]
    assert application.begun == [str(number) for number in range(10) if number not in {3, 4, 9}]


async def test_who_leaves_while_waiting_has_left() -> None:
    """The protocol finds whom to tell, though nothing else has been done for the request."""
    told = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        told.append(scope["state"][ASKER].left)

    pace = Pacing(application)
    scopes: list[Scope] = [
        {"type": "http", "method": "POST", "path": "/token", "headers": [FORM], "state": {}} for _ in range(3)
    ]

    async def receive() -> Message:
        return {"type": "http.request", "body": SIGN_IN, "more_body": False}

    async def send(message: Message) -> None: ...

    tasks = [asyncio.create_task(pace(scope, receive, send)) for scope in scopes]
    await asyncio.sleep(0)
    scopes[2]["state"][ASKER].leave()
    await asyncio.gather(*tasks)
    assert told == [False, False, True]


@pytest.mark.parametrize(
    ("body", "admitted"),
    [
        pytest.param(SIGN_IN, False, id="a sign-in"),
        pytest.param(form(username="anna", password="b"), False, id="one that does not say so"),
        pytest.param(REFRESH, True, id="a refresh"),
        pytest.param(b"gr%61nt_type=refresh_token&refresh_token=c", True, id="a refresh in other writing"),
        pytest.param(form(grant_type="client_credentials"), True, id="another grant"),
        pytest.param(b"grant_type=password&password=b\n&x=y", True, id="not whole: its route decides"),
    ],
)
async def test_admission(body: bytes, admitted: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Of a full queue only sign-ins are told before their route is found."""
    application, statuses = Application(), []

    def admit() -> None:
        raise TooBusy(why="hash queue full")

    async def whole(scope: Scope, receive: Receive, _: Send) -> None:
        async def send(message: Message) -> None:
            statuses.append(message.get("status"))

        scope["state"]["request_id"] = "x"
        await Admission(application, admit)(scope, receive, send)

    await asking(Pacing(whole), "this", body)
    assert application.begun == (["this"] if admitted else [])
    assert statuses[:1] == ([] if admitted else [503])
