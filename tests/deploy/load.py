"""A mixed load through a proxy: people who sign in, stay and leave, an administrator who looks, services that ask."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Iterator
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
        """People whom no other actor knows; now and then the administrator, or a service that asks."""
        actor = _Actor(self, random.Random(number), itertools.cycle(self.usernames[number::ACTORS]))
        while not self.stopping:
            # Evenly, with some chance: not in step with the others.
            await asyncio.gather(actor.act(), asyncio.sleep(ACTORS / RATE * actor.dice.uniform(0.7, 1.3)))


ACTS = ["come", "go", "administer", *["stay"] * 6, *["be asked for"] * 7, *["be introspected"] * 3]
PAGES = ["/admin/sessions", "/admin/users", "/admin/events", "/admin/stats"]


@dataclass
class _Actor:
    load: Load
    dice: random.Random
    names: Iterator[str]
    mine: list[Kept] = field(default_factory=list)

    async def act(self) -> None:
        load, dice, mine = self.load, self.dice, self.mine
        match dice.choice(ACTS) if mine else "come":
            case "come":
                if (kept := await load.sign_in(next(self.names))) is not None:
                    mine.append(kept)
            case "go" if len(mine) > 2:
                await load.leave(mine.pop(dice.randrange(len(mine))))
            case "administer":
                await load.ask(f"GET {dice.choice(PAGES)}", token=load.admin)
            case "be asked for":
                await load.ask("GET /authz", token=dice.choice(mine).access_token)
            case "be introspected":
                data = {"token": dice.choice(mine).access_token}
                await load.ask("POST /oauth2/introspect", data=data, auth=load.client)
            case _:
                await load.refresh(dice.choice(mine))
