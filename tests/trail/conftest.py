"""A log of one's own: a database, a signing key, a sink."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.cli.verify import BundleFolder
from app.container import Container
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.findings import Report
from app.domain.users import Role
from app.domain.verification import Verifier
from app.security.notes import NoteSigner, new_key, open_note
from app.services.publishing import Publishing
from tests.conftest import PASSWORD, MakeServices, OwnDatabase, Person, client_at

ORIGIN = "example.com/rota"


@dataclass
class Log:
    """One database with its sealer and its publisher."""

    services: Container
    own: OwnDatabase
    folder: Path
    signer: NoteSigner
    make: Callable[..., Container]
    settings: dict[str, Any]
    exported: int = 0
    people: list[Person] = field(default_factory=list)

    @property
    def sink(self) -> Path:
        return self.folder / "sink"

    @property
    def publishing(self) -> Publishing:
        assert self.services.publishing is not None
        return self.services.publishing

    def another(self) -> Container:
        """The services of another process."""
        return self.make(url=self.own.app, **self.settings)

    async def person(self, name: str) -> Person:
        user = await self.services.users.create(name, PASSWORD, role=Role.USER, actor=None, client=client_at())
        self.people.append(Person(self.services, user, name))
        return self.people[-1]

    async def live(self, name: str, refreshes: int = 5, *, end: bool = False) -> Person:
        """Somebody signs in, refreshes and perhaps leaves."""
        person = await self.person(name)
        issued = await person.sign_in()
        for _ in range(refreshes):
            issued = await person.refresh(issued.refresh_token)
        if end:
            await self.services.sessions.log_out_with_refresh_token(issued.refresh_token, client=client_at())
        return person

    async def seal(self) -> None:
        """Seal what can be sealed now."""
        while await self.services.sealing.seal():
            pass

    async def seal_all(self) -> None:
        """Seal all there is; a transaction of some other test may hold it up for a moment."""
        for _ in range(200):
            await self.seal()
            status = await self.services.sealing.status()
            if status is not None and status.lag_seconds == 0:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("something holds up the sealing")

    async def publish(self) -> None:
        await self.seal_all()
        await self.publishing.publish()

    async def export(
        self, since: datetime | None = None, until: datetime | None = None, *, personal: bool = True
    ) -> Path:
        self.exported += 1
        target = self.folder / f"bundle-{self.exported}"
        await self.services.exports.announce("bundle", since, until, actor=SYSTEM, client=NO_CLIENT)
        span = await self.services.exports.span(since, until)
        await self.services.exports.write_bundle(
            target, span, since=since, until=until, personal=personal, progress=lambda _done, _total: None
        )
        return target

    def verify(self, bundle: Path, **options: Any) -> Report:
        origin = options.pop("origin", ORIGIN)
        keys = [self.signer.key(name) for name in {origin, *options.pop("also", ())}]
        if "max_age" in options:
            options["oldest"] = self.services.clock.on_host() - timedelta(seconds=options.pop("max_age"))
        return Verifier(BundleFolder(bundle), partial(open_note, keys=keys), **options).run()


@pytest.fixture
def log(own: OwnDatabase, make_services: MakeServices, tmp_path: Path) -> Log:
    key = new_key()
    (tmp_path / "sink").mkdir()
    settings = {
        "audit_origin": ORIGIN,
        "audit_signing_key": key,
        "audit_sink": str(tmp_path / "sink"),
        "maintenance_database_url": own.maintenance,
    }
    services = make_services(url=own.app, **settings)
    return Log(services, own, tmp_path, NoteSigner(key), make_services, settings)
