"""Who is calling: an access token whose session still lives."""

from dataclasses import dataclass
from uuid import UUID

from app.domain.clock import Clock
from app.domain.errors import AccessTokenRejected
from app.domain.events import Actor, ActorKind
from app.domain.users import Role
from app.observability.logs import get_logger
from app.repositories.rotations import RotationRepository
from app.security.access_tokens import AccessTokens

log = get_logger()


@dataclass(frozen=True, slots=True)
class Caller:
    """The user behind an access token, and the session it is of."""

    user_id: UUID
    session_id: UUID
    role: Role

    @property
    def as_admin(self) -> Actor:
        """Who acts, where it is not about themselves."""
        return Actor(ActorKind.ADMIN, self.user_id)


class Authentication:
    def __init__(self, access_tokens: AccessTokens, rotations: RotationRepository, clock: Clock) -> None:
        self._access_tokens = access_tokens
        self._rotations = rotations
        self._clock = clock

    async def authenticate(self, token: str | None) -> Caller:
        """
        Accept an access token if it is genuine, unexpired, and its session lives: one read by primary key.

        Raises:
            AccessTokenRejected: whatever is wrong with it.
            Unavailable: the database cannot be asked; nothing is assumed of the session then.
        """
        return await self._check(token, dead_session=False)

    async def identify(self, token: str | None) -> Caller:
        """As `authenticate`, but the session may be over already: logging out twice is no error."""
        return await self._check(token, dead_session=True)

    async def lives(self, caller: Caller) -> bool:
        """Whether a caller's session lives still: for what takes long."""
        session = await self._rotations.find_liveness(caller.user_id, caller.session_id)
        return session is not None and session.active

    async def _check(self, token: str | None, *, dead_session: bool) -> Caller:
        try:
            return await self._caller(token, dead_session=dead_session)
        except AccessTokenRejected as refused:
            log.info("access.refused", why=refused.why)
            raise

    async def _caller(self, token: str | None, *, dead_session: bool) -> Caller:
        if token is None:
            raise AccessTokenRejected(why="no token")
        claims = self._access_tokens.verify(token, self._clock.on_host())
        session = await self._rotations.find_liveness(claims.user_id, claims.session_id)
        if session is None:
            raise AccessTokenRejected(why="unknown session")
        claims.check_time(session.now)
        if not session.active and not dead_session:
            raise AccessTokenRejected(why="session over")
        return Caller(claims.user_id, claims.session_id, claims.role)
