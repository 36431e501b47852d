"""Forgetting a person: their data goes, the trail and every proof stay."""

from uuid import UUID

from app.domain.clients import ClientContext
from app.domain.entries import SealedFields, commitment_of, person_of
from app.domain.events import Action, Actor, Event
from app.domain.families import EndReason
from app.domain.pages import Position
from app.observability.logs import get_logger
from app.repositories.database import Database, UnitOfWork
from app.services.acting import Acting, check_guard_rails, lock_target
from app.services.ends import end_events
from app.services.housekeeping import BATCH, login_failure_sums
from app.services.sealing import new_salt

log = get_logger()


class Erasure:
    def __init__(self, maintenance: Database) -> None:
        """`maintenance` acts as the role that may do this to the trail, and nothing else."""
        self._database = maintenance

    async def erase(self, user_id: UUID, why: str, *, actor: Actor, client: ClientContext) -> int:
        """
        Remove a person's data from the user's row, their sessions and all events about them or by them.

        All sessions end at once, and the account is deleted if it was not. Events keep a commitment in the place of
        address and agent, so that their entries, and with them every proof, stay byte for byte what they were; then the
        salt is deleted, without which a commitment tells nothing. Broken off, it can be run again and goes on.

        Args:
            why: For the trail; a ticket number, no personal data.
        Returns:
            How many events held personal data.
        Raises:
            UserNotFound: there is none.
            LastAdministrator: nobody would be left who can act.
        """
        client = ClientContext(None, None, client.request_id)  # no address enters the events of somebody erased
        await self._forget_user(user_id, actor, client)
        replaced = 0
        for of_others in (False, True):
            after: Position | None = None
            while True:
                async with self._database.begin() as db:
                    page = await self._replace_page(db, user_id, of_others=of_others, after=after)
                    await db.commit()
                replaced += len(page)
                if len(page) < BATCH:
                    break
                after = Position(page[-1].occurred_at, page[-1].id)
        async with self._database.begin() as db:
            await db.jobs.lock("audit.seal")  # what is sealed from here on finds the commitments, or another salt
            for of_others in (False, True):
                while page := await self._replace_page(db, user_id, of_others=of_others, after=None):
                    replaced += len(page)  # came meanwhile
            await db.erasures.delete_salt(user_id)
            erased = Event(
                Action.SUBJECT_ERASED, actor, client, subject_id=user_id, detail={"events": replaced, "why": why}
            )
            await db.audit.add(erased, at=await db.now())
            await db.commit()
        log.info(Action.SUBJECT_ERASED, user=str(user_id), events=replaced)
        return replaced

    async def _forget_user(self, user_id: UUID, actor: Actor, client: ClientContext) -> None:
        async with self._database.begin() as db:
            by = Acting(actor, client, allow_self=True)
            user = await lock_target(db, user_id, by, fewer_admins=True)
            await check_guard_rails(db, user, by)
            now = await db.now()
            ended = await db.families.end_all(user_id, reason=EndReason.USER_DISABLED, by=actor.id)
            await db.audit.add(*end_events(ended, actor=actor, client=client), at=now)
            failures = await db.refusals.take_login_batch(None, limit=BATCH, subject_id=user_id)
            await db.audit.add(*login_failure_sums(failures), at=now)
            await db.erasures.forget_user(user_id, pseudonym=f"erased-{user_id}", now=now)
            await db.password_tokens.remove(user_id)
            await db.notifications.remove_of(user_id)
            await db.commit()

    async def _replace_page(
        self, db: UnitOfWork, user_id: UUID, *, of_others: bool, after: Position | None
    ) -> list[SealedFields]:
        """One page of events; each commitment is the one that the sealer has computed, or would."""
        page = await db.erasures.list_personal(user_id, of_others=of_others, after=after, limit=BATCH)
        people = {person_of(event.actor_kind, event.actor_id, event.subject_id) for event in page}
        salts = await db.seals.get_salts(people, new_salt)
        if page:
            await db.jobs.lock("stats")  # what is counted by address and agent moves no more until they are gone
            await db.stats.forget_sources(page)
            await db.erasures.replace_personal(page, [commitment_of(event, salts) for event in page])
        return page
