"""People come, change, and go."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from app.domain.clients import ClientContext
from app.domain.errors import RegistrationClosed, UserNotFound
from app.domain.events import Action, Actor, Event, user_actor
from app.domain.families import EndReason
from app.domain.notifications import NotificationKind
from app.domain.user_changes import UserChange
from app.domain.users import Role, User, username_key
from app.observability.logs import get_logger
from app.repositories.database import Database, UnitOfWork
from app.security.password_policy import PasswordPolicy
from app.security.passwords import PasswordHasher
from app.services.acting import Acting, check_alive, check_guard_rails, lock_target
from app.services.ends import count_ended, end_events
from app.services.throttling import Throttling

log = get_logger()


@dataclass(frozen=True, slots=True)
class Changed:
    """The user afterwards; `changed` is false if it was all so before, and then nothing was written."""

    user: User
    changed: bool
    sessions_ended: int


class Users:
    def __init__(
        self,
        database: Database,
        hasher: PasswordHasher,
        policy: PasswordPolicy,
        throttling: Throttling,
        *,
        registration_open: bool,
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._policy = policy
        self._throttling = throttling
        self._registration_open = registration_open

    async def register(self, username: str, password: str, *, client: ClientContext) -> User:
        """
        Somebody makes an account for themselves.

        Raises:
            RegistrationClosed: accounts are made by administrators here.
            UsernameRefused, UsernameTaken, PasswordRefused: as they say.
            TooManyAttempts: too many names were taken that came from this address.
        """
        if not self._registration_open:
            raise RegistrationClosed
        self._hasher.admit()
        async with self._throttling.admit_address(client):
            return await self.create(username, password, role=Role.USER, actor=None, client=client)

    async def create(
        self, username: str, password: str, *, role: Role, actor: Actor | None, client: ClientContext
    ) -> User:
        """
        Make an account. Without an actor, the new user is the one who acts.

        Raises:
            UsernameRefused, UsernameTaken, PasswordRefused: as they say.
        """
        username_key(username)
        password_hash = await self._hasher.hash(await self._policy.check(password, username=username))
        async with self._database.begin() as db:
            now = await db.now()
            user = User(
                id=uuid7(),
                username=username,
                password_hash=password_hash,
                role=role,
                disabled_at=None,
                created_at=now,
                password_changed_at=now,
            )
            await db.users.add(user)
            created = Event(
                Action.USER_CREATED,
                actor or user_actor(user.id),
                client,
                subject_id=user.id,
                detail={"role": role.value},
            )
            await db.audit.add(created, at=now)
            await db.commit()
        log.info(Action.USER_CREATED, user=str(user.id), role=role.value)
        return user

    async def get(self, user_id: UUID) -> User:
        """
        One user.

        Raises:
            UserNotFound: there is none.
        """
        async with self._database.begin() as db:
            user = await db.users.find(user_id)
        if user is None:
            raise UserNotFound
        return user

    async def find_by_name(self, username: str) -> User | None:
        async with self._database.begin() as db:
            return await db.users.find_by_key(username_key(username))

    async def has_admin(self) -> bool:
        """Whether there is an administrator, disabled or not, who was not deleted."""
        async with self._database.begin() as db:
            return await db.users.exists_with_role(Role.ADMIN)

    async def disable(self, user_id: UUID, *, actor: Actor, client: ClientContext) -> int:
        """
        Shut a user out: no sign-in from now on, and all sessions end in the same transaction.

        Returns:
            How many sessions ended; of a user who was disabled already, none.
        Raises: as `change`.
        """
        changed = await self.change(user_id, UserChange(disabled=True), by=Acting(actor, client))
        return changed.sessions_ended

    async def enable(self, user_id: UUID, *, actor: Actor, client: ClientContext) -> bool:
        """
        Let a user sign in again; ended sessions stay ended. False if the user was not disabled.

        Raises: as `change`.
        """
        return (await self.change(user_id, UserChange(disabled=False), by=Acting(actor, client))).changed

    async def change(self, user_id: UUID, wanted: UserChange, *, by: Acting) -> Changed:
        """
        Give a user another name, another role, or shut them out or let them in: all of it or none, an event for each.

        All sessions end in the same transaction when the user is shut out or has another role, since their tokens carry
        the role. What is so already is not changed, and nothing is written then.

        Raises:
            UserNotFound, UserDeleted, UsernameRefused, UsernameTaken: as they say.
            OwnAccount, LastAdministrator: the guard rails.
            AccessTokenRejected: the actor's session ended meanwhile.
        """
        if wanted.username is not None:
            username_key(wanted.username)
        async with self._database.begin() as db:
            user = await lock_target(db, user_id, by, fewer_admins=wanted.weakens)
            check_alive(user)
            due = wanted.due(user)
            if not due:
                return Changed(user, changed=False, sessions_ended=0)
            if due.weakens:
                await check_guard_rails(db, user, by)
            now = await db.now()
            events = await _apply(db, user, due, now, by)
            ended = await db.families.end_all(user_id, reason=due.ends, by=by.actor.id) if due.ends else []
            await db.audit.add(*events, *end_events(ended, actor=by.actor, client=by.client), at=now)
            after = await db.users.find(user_id)
            await db.commit()
        for event in events:
            log.info(event.action, user=str(user_id), ended=len(ended))
        return Changed(after or user, changed=True, sessions_ended=count_ended(ended))

    async def delete(self, user_id: UUID, *, by: Acting) -> Changed:
        """
        Delete a user: shut out for good, all sessions end in the same transaction, the name is free at once.

        The row stays as a tombstone, so that the ids of the trail lead to a name until the person is erased.

        Raises:
            UserNotFound: there is none.
            OwnAccount, LastAdministrator: the guard rails.
            AccessTokenRejected: the actor's session ended meanwhile.
        """
        async with self._database.begin() as db:
            user = await lock_target(db, user_id, by, fewer_admins=True)
            if user.deleted_at is not None:
                return Changed(user, changed=False, sessions_ended=0)
            await check_guard_rails(db, user, by)
            now = await db.now()
            await db.users.bury(user_id, now)
            await db.password_tokens.remove(user_id)
            await db.notifications.remove_of(user_id)
            ended = await db.families.end_all(user_id, reason=EndReason.USER_DISABLED, by=by.actor.id)
            deleted = Event(Action.USER_DELETED, by.actor, by.client, subject_id=user_id)
            await db.audit.add(deleted, *end_events(ended, actor=by.actor, client=by.client), at=now)
            after = await db.users.find(user_id)
            await db.commit()
        log.info(Action.USER_DELETED, user=str(user_id), ended=len(ended))
        return Changed(after or user, changed=True, sessions_ended=count_ended(ended))


async def _apply(db: UnitOfWork, user: User, due: UserChange, now: datetime, by: Acting) -> list[Event]:
    """Make the changes; an event for each."""
    events = []
    if due.username is not None:
        await db.users.rename(user.id, due.username)
        await db.notifications.add(user.id, NotificationKind.USERNAME_CHANGED, now=now)
        events.append(Event(Action.USER_RENAMED, by.actor, by.client, subject_id=user.id))
    if due.role is not None:
        await db.users.set_role(user.id, due.role)
        roles = {"from": user.role.value, "to": due.role.value}
        events.append(Event(Action.USER_ROLE_CHANGED, by.actor, by.client, subject_id=user.id, detail=roles))
    if due.disabled is not None:
        await db.users.set_disabled(user.id, now if due.disabled else None)
        action = Action.USER_DISABLED if due.disabled else Action.USER_ENABLED
        events.append(Event(action, by.actor, by.client, subject_id=user.id))
    return events
