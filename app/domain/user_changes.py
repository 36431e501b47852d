"""What an administrator may change about a user, and what follows from it."""

from dataclasses import dataclass

from app.domain.families import EndReason
from app.domain.users import Role, User


@dataclass(frozen=True, slots=True)
class UserChange:
    """What is to be changed about a user; what is left out stays."""

    username: str | None = None
    role: Role | None = None
    disabled: bool | None = None

    def due(self, user: User) -> "UserChange":
        """What of it is not so already."""
        return UserChange(
            username=self.username if self.username != user.username else None,
            role=self.role if self.role is not user.role else None,
            disabled=self.disabled if self.disabled is not (user.disabled_at is not None) else None,
        )

    def __bool__(self) -> bool:
        return (self.username, self.role, self.disabled) != (None, None, None)

    @property
    def weakens(self) -> bool:
        """Whether somebody may lose by it what an administrator may."""
        return bool(self.disabled) or self.role not in {None, Role.ADMIN}

    @property
    def ends(self) -> EndReason | None:
        """Why the user's sessions end by it, if they do."""
        if self.disabled:
            return EndReason.USER_DISABLED
        return EndReason.ROLE_CHANGE if self.role is not None else None
