"""Who is calling: an access token whose session still lives."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.domain.clock import Clock
from app.domain.errors import AccessTokenRejected
from app.domain.events import Actor, ActorKind
from app.domain.users import Role
from app.observability.logs import get_logger
from app.repositories.rotations import RotationRepository
from app.security.access_tokens import AccessClaims, AccessTokens
from app.services.ended_view import EndedView

log = get_logger()


@dataclass(frozen=True, slots=True)
class Caller:
    """The user behind an access token, the session it is of, and what the token was issued for."""

    user_id: UUID
    session_id: UUID
    role: Role
    client_id: str = ""
    scope: str = ""

    @property
    def as_admin(self) -> Actor:
        """Who acts, where it is not about themselves."""
        return Actor(ActorKind.ADMIN, self.user_id)


class Authentication:
    def __init__(
        self, access_tokens: AccessTokens, rotations: RotationRepository, clock: Clock, ended_view: EndedView
    ) -> None:
        self._access_tokens = access_tokens
        self._rotations = rotations
        self._clock = clock
        self._ended_view = ended_view

    async def authenticate(self, token: str | None) -> Caller:
        """
        Accept an access token if it is genuine, unexpired, and its session lives.

        No query where the view of ended sessions is fresh; otherwise one read by primary key.

        Raises:
            AccessTokenRejected: whatever is wrong with it.
            Unavailable: the view is stale and the database cannot be asked; nothing is assumed of the session then.
        """
        return _caller(await self.examine(token))

    async def examine(self, token: str | None) -> AccessClaims:
        """
        As `authenticate`, and answers all that the token says.

        Raises:
            AccessTokenRejected, Unavailable: as `authenticate`.
        """
        try:
            claims = self._verify(token)
            now = self._ended_view.now()
            if now is None:
                return await self._look(claims, dead_session=False)
            return self._look_in_view(claims, now)
        except AccessTokenRejected as refused:
            log.info("access.refused", why=refused.why)
            raise

    async def lives(self, caller: Caller) -> bool:
        """Whether a caller's session lives still: for what takes long."""
        session = await self._rotations.find_liveness(caller.user_id, caller.session_id)
        return session is not None and session.active

    async def identify(self, token: str | None) -> Caller:
        """As `authenticate`, but always asks, and the session may be over: logging out twice is no error."""
        try:
            return _caller(await self._look(self._verify(token), dead_session=True))
        except AccessTokenRejected as refused:
            log.info("access.refused", why=refused.why)
            raise

    def session_of(self, token: str | None) -> UUID | None:
        """
        The session that a token of ours names, expired or over as they may be; `None` of any other text.

        It opens nothing: it tells whether two credentials belong together. So a token that cannot be verified, such as
        one whose key is not known any more, is taken at its word: nobody can do more by one than have their own
        request refused.
        """
        if token is None:
            return None
        try:
            return self._verify(token).session_id
        except AccessTokenRejected:
            return self._access_tokens.session_named_by(token)

    def _verify(self, token: str | None) -> AccessClaims:
        if token is None:
            raise AccessTokenRejected(why="no token")
        return self._access_tokens.verify(token, self._clock.on_host())

    def _look_in_view(self, claims: AccessClaims, now: datetime) -> AccessClaims:
        # The session's own limits need no look: no token outlives them. And of an unknown session we signed none.
        claims.check_time(now)
        if self._ended_view.has_ended(claims.session_id):
            raise AccessTokenRejected(why="session over")
        return claims

    async def _look(self, claims: AccessClaims, *, dead_session: bool) -> AccessClaims:
        session = await self._rotations.find_liveness(claims.user_id, claims.session_id)
        if session is None:
            raise AccessTokenRejected(why="unknown session")
        claims.check_time(session.now)
        if not session.active and not dead_session:
            raise AccessTokenRejected(why="session over")
        return claims


def _caller(claims: AccessClaims) -> Caller:
    return Caller(claims.user_id, claims.session_id, claims.role, claims.client_id, claims.scope)
