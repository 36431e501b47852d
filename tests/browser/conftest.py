"""Browsers, as far as HTTP shows them: a jar for cookies, and word of where a request comes from."""

import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.main import create_app
from tests.conftest import AGENT, PASSWORD, MovableClock, make_settings

REFRESH = "__Host-rota_refresh"
DEVICE = "__Host-rota_device"
APP = "https://app.example.com"
OWN = {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8000"}
ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Strict"

_SET = re.compile(rf"(__Host-[a-z_]+)=([^;\s]*); Max-Age=([0-9]+); {re.escape(ATTRIBUTES)}")


@dataclass
class Browser:
    """Keeps the cookies that it is told to, if they have the attributes which are promised, and those of others."""

    http: httpx2.AsyncClient
    comes_from: dict[str, str] = field(default_factory=lambda: dict(OWN))
    jar: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, int] = field(default_factory=dict)

    async def send(
        self, method: str, path: str, *, token: str | None = None, headers: dict[str, str] | None = None, **more: Any
    ) -> httpx2.Response:
        sent = {**self.comes_from, **(headers or {})}
        if self.jar and "Cookie" not in sent:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        answer = await self.http.request(method, path, headers=sent, **more)
        for text in answer.headers.get_list("set-cookie"):
            found = _SET.fullmatch(text)
            assert found, text
            name, value, seconds = found.groups()
            if seconds == "0":
                self.jar.pop(name, None)
            else:
                self.jar[name], self.seconds[name] = value, int(seconds)
        return answer

    async def post(self, path: str, **more: Any) -> httpx2.Response:
        return await self.send("POST", path, **more)

    async def sign_in(self, username: str, **fields: str) -> dict[str, Any]:
        form = {"username": username, "password": PASSWORD, "refresh_token_in": "cookie", **fields}
        answer = await self.post("/token", data=form)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def whose(self, token: str) -> str | None:
        """The username behind an access token, if its session lives."""
        answer = await self.send("GET", "/me", token=token)
        return answer.json()["username"] if answer.status_code == 200 else None


@pytest.fixture
def browser(http: httpx2.AsyncClient) -> Browser:
    return Browser(http)


MakeName = Callable[[], Awaitable[str]]


@pytest.fixture
def make_name(http: httpx2.AsyncClient) -> MakeName:
    """Register somebody; their name."""

    async def make() -> str:
        name = f"browser-{secrets.token_hex(8)}"
        answer = await http.post("/register", json={"username": name, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        return name

    return make


@pytest_asyncio.fixture
async def username(make_name: MakeName) -> str:
    return await make_name()


@pytest_asyncio.fixture
async def listing_app(database_url: str, clock: MovableClock) -> AsyncIterator[FastAPI]:
    """An application that lists other origins, under an issuer of its own."""
    settings = make_settings(
        database_url, issuer="https://auth.example.com", cors_origins=f"{APP},http://localhost:3000"
    )
    application = create_app(settings, clock)
    yield application
    await application.state.container.close()


@pytest_asyncio.fixture
async def listing(listing_app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(listing_app, client=("203.0.113.7", 4711), raise_app_exceptions=False)
    headers = {"User-Agent": AGENT}
    async with httpx2.AsyncClient(transport=transport, base_url="https://auth.example.com", headers=headers) as client:
        yield client
