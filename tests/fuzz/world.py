"""
Somebody of each kind, with credentials that are renewed when they have stopped working, and values that are live.

The requests that are tried disable and delete people and end sessions, their own too. So nobody is protected: who has
lost their session is signed in anew, as somebody new.
"""

import asyncio
import base64
import contextlib
import random
import secrets
import threading
from collections import defaultdict, deque
from collections.abc import Coroutine
from typing import Any, TypeVar
from uuid import UUID

from app.container import Container
from app.domain.api_clients import ClientGrant, ClientScope, NewClient
from app.domain.errors import RotaError
from app.domain.events import SYSTEM
from app.domain.users import Role
from app.services.acting import Acting
from tests.conftest import PASSWORD, client_at, make_settings

OPERATOR_TOKEN = "operator-token-operator-token-operator-token"
KEPT = 60
AFRESH = 0.5
T = TypeVar("T")

# Which members of answers are live values, and of what. Found by their names: a new route's are found too.
HARVESTED = ("refresh_token", "password_token", "session_id", "next")
# What the `id` of an answer's items is, by the path that it came from.
IDS = {
    "/admin/users": "user_id",
    "/admin/sessions/revocations": "revocation_id",
    "/admin/sessions": "session_id",
    "/sessions": "session_id",
    "/admin/events": "event_id",
    "/me/events": "event_id",
    "/admin/clients": "client",
}


class World:
    """Acts through services of its own on the server's database."""

    def __init__(self, url: str, dice: random.Random) -> None:
        self.dice = dice
        self.identity = "none"
        self.renewed = 0
        self._header: dict[str, str] = {}
        self._own_session: dict[str, str] = {}
        self._name: dict[str, str] = {}
        self._live: defaultdict[str, deque[Any]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._services = self._run(self._build(url))
        self._run(self._populate())

    def close(self) -> None:
        self._run(self._services.close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def header(self) -> str | None:
        """The `Authorization` of the identity, good at least until something ends it."""
        if self.identity == "none":
            return None
        if self.identity not in self._header:
            self.renewed += 1
            self._header[self.identity] = self._run(self._signed_in(self.identity))
        return self._header[self.identity]

    def refused(self, header: str | None) -> None:
        """A request with that `Authorization` was answered 401."""
        if header == self._header.get(self.identity):
            self._header.pop(self.identity, None)

    def keep(self, name: str, value: Any) -> None:
        if name != "event_id" or len(self._live[name]) < KEPT:  # the first, which are sealed first
            self._live[name].append(value)

    def harvest(self, path: str, answer: Any) -> None:
        """Keep what an answer of 2xx has of live values."""
        if not isinstance(answer, dict):
            return
        for name in HARVESTED:
            if isinstance(answer.get(name), str):
                # A refresh token is its client's: those of /oauth2/token are presented there.
                self.keep(f"{name} of oauth" if path.startswith("/oauth2/") else name, answer[name])
        root = next((root for root in IDS if path == root or path.startswith(root + "/")), None)
        if root is not None:
            for item in [answer, *answer.get("items", [])]:
                if isinstance(item, dict) and isinstance(item.get("id"), str):
                    self.keep(IDS[root], item["id"])

    def one_of(self, name: str) -> Any:
        """A live value, or `None`."""
        found = self._live.get(name)
        return self.dice.choice(found) if found else None

    def take(self, name: str) -> Any:
        """A live value that is good once."""
        found = self._live.get(name)
        return found.popleft() if found else None

    def own_session(self) -> str | None:
        """A session of the identity itself, but the one that it speaks from; it may have ended meanwhile."""
        if self.identity in self._name and self.dice.random() < AFRESH:
            with contextlib.suppress(RotaError):  # they may be gone, or have another password
                self._own_session[self.identity] = self._run(self._another_session(self._name[self.identity]))
        return self._own_session.get(self.identity)

    def refresh_token(self) -> str:
        known: str | None = self.take("refresh_token")
        return known or self._run(self._a_pair())

    def oauth_refresh_token(self) -> str:
        known: str | None = self.take("refresh_token of oauth")
        return known or self._run(self._an_oauth_pair())

    def access_token(self) -> str:
        return (self.header() or "").removeprefix("Bearer ")

    def password_token(self) -> str:
        known: str | None = self.take("password_token")
        return known or self._run(self._a_password_token())

    def username(self) -> str:
        """Of somebody whose password is `PASSWORD`, unless it was changed or they are gone."""
        if self.dice.random() < 0.1 or not self._live["username"]:
            self._run(self._somebody(Role.USER))
        name: str = self._live["username"][-1]
        return name

    def _run(self, doing: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(60)

    async def _build(self, url: str) -> Container:
        return Container.build(make_settings(url))

    async def _populate(self) -> None:
        for role in Role:
            for _ in range(3):
                await self._somebody(role)
        await self._make_client()
        for _ in range(3):
            await self._a_pair()

    async def _make_client(self) -> str:
        made = await self._services.api_clients.create(
            NewClient(
                name="fuzz",
                client_id=f"client-{secrets.token_hex(6)}",
                scopes=frozenset(ClientScope),
                grants=frozenset(ClientGrant),
                session_scopes=("read", "write"),
                first_party=True,
            ),
            actor=SYSTEM,
            client=client_at(),
        )
        pair = f"{made.client.client_id}:{made.secret}"
        self._client = made.client
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    async def _somebody(self, role: Role) -> tuple[str, str]:
        name = f"person-{secrets.token_hex(6)}"
        user = await self._services.users.create(name, PASSWORD, role=role, actor=None, client=client_at())
        self.keep("user_id", str(user.id))
        if role is Role.USER:
            self.keep("username", name)
        return name, str(user.id)

    async def _a_pair(self) -> str:
        name, _ = await self._somebody(Role.USER)
        issued = await self._services.sign_in.with_password(name, PASSWORD, client=client_at())
        self.keep("session_id", str(issued.session_id))
        return issued.refresh_token

    async def _an_oauth_pair(self) -> str:
        name, _ = await self._somebody(Role.USER)
        issued = await self._services.oauth.sign_in(self._client, name, PASSWORD, "", client=client_at())
        return issued.refresh_token

    async def _a_password_token(self) -> str:
        _, user_id = await self._somebody(Role.USER)
        by = Acting(SYSTEM, client_at())
        token, _ = await self._services.credentials.reset(UUID(user_id), forget=False, by=by)
        return token.token

    async def _signed_in(self, identity: str) -> str:
        if identity == "operator":
            return f"Bearer {OPERATOR_TOKEN}"
        if identity == "client":
            return await self._make_client()
        name, _ = await self._somebody(Role(identity))
        self._name[identity] = name
        other = await self._another_session(name)
        issued = await self._services.sign_in.with_password(name, PASSWORD, client=client_at())
        self._own_session[identity] = other
        return f"Bearer {issued.access_token}"

    async def _another_session(self, name: str) -> str:
        issued = await self._services.sign_in.with_password(name, PASSWORD, client=client_at())
        self.keep("session_id", str(issued.session_id))
        return str(issued.session_id)
