"""Acting on somebody's account: who acts, asked again under the lock, and the guard rails."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from app.domain.clients import ClientContext
from app.domain.errors import AccessTokenRejected, LastAdministrator, OwnAccount, UserDeleted, UserNotFound
from app.domain.events import Actor, ActorKind
from app.domain.families import SessionState
from app.domain.users import User
from app.repositories.database import UnitOfWork
from app.services.authentication import Caller

ADMINISTRATORS: Final = "users.administrators"  # whoever may make one fewer of them comes one by one


@dataclass(frozen=True, slots=True)
class Acting:
    """
    Who acts.

    Args:
        caller: Whose session must still live when the change is made, where somebody acts by a session.
        allow_self: They mean it, also where it locks them out themselves.
    """

    actor: Actor
    client: ClientContext
    caller: Caller | None = None
    allow_self: bool = False

    def check_self(self, user_id: UUID) -> None:
        """
        Before somebody loses what they may do.

        Raises:
            OwnAccount: it is the actor, who has not said that they mean it.
        """
        if self.actor.kind is ActorKind.ADMIN and self.actor.id == user_id and not self.allow_self:
            raise OwnAccount

    async def check(self, db: UnitOfWork) -> None:
        """
        In the transaction of the change: whether the actor's session still lives. A lost role ends it.

        Raises:
            AccessTokenRejected: it does not.
        """
        if self.caller is None:
            return
        session = await db.families.find(self.caller.user_id, self.caller.session_id)
        if session is None or session.state(await db.now()) is not SessionState.ACTIVE:
            raise AccessTokenRejected(why="session over")


async def lock_target(db: UnitOfWork, user_id: UUID, by: Acting, *, fewer_admins: bool) -> User:
    """
    Lock the user to be acted on, and look again whether the actor still may.

    Two administrators who demote each other at once would each see the other one left. So whoever may make one fewer
    waits for the others first, and what they did is seen by then: the end of the actor's session, the last one left.

    Raises:
        UserNotFound: there is none.
        AccessTokenRejected: the actor's session ended meanwhile.
    """
    if fewer_admins:
        await db.jobs.lock(ADMINISTRATORS)
    user = await db.users.lock(user_id)
    await by.check(db)
    if user is None:
        raise UserNotFound
    return user


async def check_guard_rails(db: UnitOfWork, user: User, by: Acting) -> None:
    """
    Before a user loses what they may do. The caller holds the locks of `lock_target`.

    Raises:
        OwnAccount: they are about to lock themselves out, unasked.
        LastAdministrator: nobody would be left who can act.
    """
    by.check_self(user.id)
    if user.is_acting_admin and not await db.users.has_other_admin(user.id):
        raise LastAdministrator


def check_alive(user: User) -> None:
    """
    Before anything is changed about a user.

    Raises:
        UserDeleted: a tombstone.
    """
    if user.deleted_at is not None:
        raise UserDeleted
