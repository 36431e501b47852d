"""A mixed load through a proxy: people who sign in, stay and leave, an administrator who looks, services that ask."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.conftest import PASSWORD

RATE = 100  # requests a second, all together
ACTORS = 20


@dataclass
class Kept:
    """A session as its client knows it."""

    session_id: str
    refresh_token: str
    access_token: str


@dataclass
class Load:
    """
    `sessions` are those that nobody has ended; `left` those that were logged out; `failures` everything that was not
    answered as it should be.
    """

    http: httpx2.AsyncClient
    usernames: list[str]
    admin: str
    client: tuple[str, str]
    sessions: list[Kept] = field(default_factory=list)
    left: list[Kept] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    stopping: bool = False

    async def sign_in(self, username: str) -> Kept | None:
        answer = await self.ask("POST /token", data={"username": username, "password": PASSWORD})
        if answer is None:
            return None
        body = answer.json()
        kept = Kept(body["session_id"], body["refresh_token"], body["access_token"])
        self.sessions.append(kept)
        return kept

    async def refresh(self, kept: Kept) -> bool:
        answer = await self.ask("POST /refresh", data={"refresh_token": kept.refresh_token})
        if answer is None:
            return False
        body = answer.json()
        kept.refresh_token, kept.access_token = body["refresh_token"], body["access_token"]
        return True

    async def leave(self, kept: Kept) -> None:
        self.sessions.remove(kept)
        self.left.append(kept)
        await self.ask("POST /logout", data={"refresh_token": kept.refresh_token})

    async def ask(
        self, what: str, status: int = 200, token: str | None = None, **request: Any
    ) -> httpx2.Response | None:
        """One request; `None` if it failed, which is noted."""
        method, path = what.split()
        headers = {"Authorization": f"Bearer {token}"} if token else None
        try:
            answer = await self.http.request(method, path, headers=headers, **request)
        except httpx2.TransportError as error:
            self.failures.append(f"{what}: {type(error).__name__} {error}")
            return None
        if answer.status_code != status:
            self.failures.append(f"{what}: {answer.status_code} {answer.text[:200]}")
            return None
        self.done[what] += 1
        return answer

    async def run(self) -> None:
        """Until `stopping`."""
        await asyncio.gather(*(self._act(number) for number in range(ACTORS)))

    async def _act(self, number: int) -> None:
        """One person after the other, none of whom another actor knows; now and then the administrator, and a service."""
        dice = random.Random(number)
        names = itertools.cycle(self.usernames[number::ACTORS])
        mine: list[Kept] = []
        while not self.stopping:
            for act in self._acts(dice, names, mine):
                if self.stopping:
                    break
                # Evenly, with some chance: not in step with the others.
                await asyncio.gather(act(), asyncio.sleep(ACTORS / RATE * dice.uniform(0.7, 1.3)))

    def _acts(self, dice: random.Random, names: Any, mine: list[Kept]) -> list[Callable[[], Awaitable[Any]]]:
        async def come() -> None:
            if (kept := await self.sign_in(next(names))) is not None:
                mine.append(kept)

        async def go() -> None:
            if len(mine) > 2:
                await self.leave(mine.pop(dice.randrange(len(mine))))

        async def stay() -> None:
            if mine:
                await self.refresh(dice.choice(mine))

        async def be_asked_for() -> None:
            if mine:
                await self.ask("GET /authz", token=dice.choice(mine).access_token)

        async def be_introspected() -> None:
            if mine:
                data = {"token": dice.choice(mine).access_token}
                await self.ask("POST /oauth2/introspect", data=data, auth=self.client)

        async def administer() -> None:
            path = dice.choice(["/admin/sessions", "/admin/users", "/admin/events", "/admin/stats"])
            await self.ask(f"GET {path}", token=self.admin)

        often: list[Callable[[], Awaitable[Any]]] = [stay] * 6 + [be_asked_for] * 7 + [be_introspected] * 3
        acts = [come, go, administer, *often]
        dice.shuffle(acts)
        return acts
