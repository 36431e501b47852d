"""People come, and are shut out."""

from uuid import UUID

from uuid_utils.compat import uuid7

from app.domain.clients import ClientContext
from app.domain.errors import RegistrationClosed, UserNotFound
from app.domain.events import Action, Actor, Event, user_actor
from app.domain.families import EndReason
from app.domain.passwords import check_new_password
from app.domain.users import Role, User, username_key
from app.observability.logs import get_logger
from app.repositories.database import Database
from app.security.passwords import PasswordHasher
from app.services.ends import count_ended, end_events

log = get_logger()


class Users:
    def __init__(self, database: Database, hasher: PasswordHasher, *, registration_open: bool) -> None:
        self._database = database
        self._hasher = hasher
        self._registration_open = registration_open

    async def register(self, username: str, password: str, *, client: ClientContext) -> User:
        """
        Somebody makes an account for themselves.

        Raises:
            RegistrationClosed: accounts are made by administrators here.
            UsernameRefused, UsernameTaken, PasswordRefused: as they say.
        """
        if not self._registration_open:
            raise RegistrationClosed
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
        password_hash = await self._hasher.hash(check_new_password(password))
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
        """Whether there is an administrator, disabled or not."""
        async with self._database.begin() as db:
            return await db.users.exists_with_role(Role.ADMIN)

    async def disable(self, user_id: UUID, *, actor: Actor, client: ClientContext) -> int:
        """
        Shut a user out: no sign-in from now on, and all sessions end in the same transaction.

        Returns:
            How many sessions ended; of a user who was disabled already, none.
        Raises:
            UserNotFound: there is none.
        """
        async with self._database.begin() as db:
            if await db.users.lock(user_id) is None:
                raise UserNotFound
            now = await db.now()
            if not await db.users.set_disabled(user_id, now):
                return 0
            ended = await db.families.end_all(user_id, reason=EndReason.USER_DISABLED, by=actor.id)
            disabled = Event(Action.USER_DISABLED, actor, client, subject_id=user_id)
            await db.audit.add(disabled, *end_events(ended, actor=actor, client=client), at=now)
            await db.commit()
        log.info(Action.USER_DISABLED, user=str(user_id), ended=len(ended))
        return count_ended(ended)

    async def enable(self, user_id: UUID, *, actor: Actor, client: ClientContext) -> bool:
        """
        Let a user sign in again; ended sessions stay ended. False if the user was not disabled.

        Raises:
            UserNotFound: there is none.
        """
        async with self._database.begin() as db:
            if await db.users.lock(user_id) is None:
                raise UserNotFound
            now = await db.now()
            if not await db.users.set_disabled(user_id, None):
                return False
            await db.audit.add(Event(Action.USER_ENABLED, actor, client, subject_id=user_id), at=now)
            await db.commit()
        log.info(Action.USER_ENABLED, user=str(user_id))
        return True
