"""`rota doctor`: makes every check of the list, each by itself and in its time."""

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Final

from app.domain.check_list import CHECKS
from app.domain.checks import Check, Examination, Finding, Need, Verdict, failure, skipped
from app.domain.errors import Unavailable
from app.observability.logs import describe_failure
from app.services import checks_database, checks_settings, checks_tables, checks_trail
from app.services.patient import Look, Patient

LOOKS: Final[dict[str, Look]] = {
    **checks_settings.LOOKS,
    **checks_database.LOOKS,
    **checks_tables.LOOKS,
    **checks_trail.LOOKS,
}
ALIVE_SECONDS: Final = 2.0
_NOT_ALLOWED: Final = "42501"


class Doctor:
    """What one check comes to never keeps another from being made."""

    def __init__(self, patient: Patient) -> None:
        self._patient = patient
        self._away = ""  # why nothing that needs the database can be looked at any more
        self._away_because = ""
        self._no_schema = ""

    async def examine(self, only: Collection[str] = ()) -> AsyncIterator[Examination]:
        """
        Every check in the order of the list; those that need what is not there are skipped, and say so.

        Args:
            only: Ids of those to be made; none: all.
        """
        reachable = await self._reach()
        for check in CHECKS:
            if only and check.id not in only:
                continue
            if check.id == "database.reachable":
                finding = reachable
            elif (why := self._lacking(check)) is not None:
                finding = skipped(why)
            else:
                finding = await self._make(check)
            yield Examination(check, finding)

    async def _reach(self) -> Finding:
        """First of all, since so much depends on it."""
        finding = await self._make(next(check for check in CHECKS if check.id == "database.reachable"))
        if finding.verdict is Verdict.SKIPPED:  # in its own words: it is away
            finding = failure(self._away_because)
        elif finding.verdict is not Verdict.OK:
            self._away = "the database does not answer this login"
        else:
            await self._look_for_tables()
        return finding

    async def _look_for_tables(self) -> None:
        try:
            async with asyncio.timeout(ALIVE_SECONDS), self._patient.inspection.look() as db:
                missing = await db.diagnostics.list_missing_tables()
        except (Unavailable, TimeoutError):
            self._away = "the database does not answer"
            return
        if missing:
            self._no_schema = f"the schema lacks {len(missing)} tables; run `rota db upgrade`"

    def _lacking(self, check: Check) -> str | None:
        if check.need is Need.NOTHING:
            return None
        if self._away:
            return f"Not looked at: {self._away}."
        if check.need is not Need.DATABASE and self._no_schema:
            return f"Not looked at: {self._no_schema}."
        if check.need is Need.SERVER and self._patient.services is None:
            return "Not looked at: with these settings no server can start."
        return None

    async def _make(self, check: Check) -> Finding:
        try:
            async with asyncio.timeout(check.seconds):
                return await LOOKS[check.id](self._patient)
        except TimeoutError:
            await self._feel_pulse()
            return failure(f"No answer within {check.seconds:g} s.")
        except Unavailable as error:
            await self._feel_pulse()
            if not self._away and check.id != "database.reachable":
                return failure(f"It was broken off by the database ({error.why}).")
            self._away = self._away or "the database does not answer"
            self._away_because = f"It does not answer ({error.why})."
            return skipped(f"Not looked at: {self._away}.")
        except Exception as error:  # noqa: BLE001 - one check that breaks must not hide the others
            told = describe_failure(error)
            if told["sqlstate"] == _NOT_ALLOWED:
                return skipped("This login may not look at it.")
            state = f", SQLSTATE {told['sqlstate']}" if told["sqlstate"] else ""
            return failure(f"It could not be looked at ({type(error).__name__}{state}).")

    async def _feel_pulse(self) -> None:
        """After trouble: whether the database is still there for the others."""
        if self._away:
            return
        try:
            async with asyncio.timeout(ALIVE_SECONDS), self._patient.inspection.look() as db:
                await db.diagnostics.ask()
        except (Unavailable, TimeoutError):
            self._away = "the database does not answer"
        except Exception as error:  # noqa: BLE001 - likewise
            self._away = f"the database does not answer this login ({type(error).__name__})"
