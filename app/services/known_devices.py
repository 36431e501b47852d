"""Which of the device tokens that a request brings is of the account that it is about."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from app.domain import device_token
from app.domain.device_token import DeviceToken
from app.domain.throttling import DEVICE, DEVICES, Counted
from app.domain.users import User
from app.repositories.database import Database


async def find_device(
    database: Database, keys: Mapping[int, bytes], presented: Sequence[str], username_key: str
) -> DeviceToken | None:
    """
    The genuine token that counts, of several of the user the newest; `None`: there is none. Whether it is this user's,
    and has guesses left, is seen later.

    Only where there are several is the user looked up for it, and likewise if nobody has the name.
    """
    tokens = list(dict.fromkeys(token for each in presented for token in device_token.parse_all(each, keys)))
    if len(tokens) < 2:  # noqa: PLR2004 - several
        return tokens[0] if tokens else None
    async with database.begin() as db:
        user = await db.users.find_by_key(username_key)
    own = [token for token in tokens if user is not None and token.user_id == user.id]
    return max(own, key=lambda token: token.issued_at, default=None)


def is_known(token: DeviceToken, user: User | None, counted: Sequence[Counted | None], now: datetime) -> bool:
    """Whether it is the user's own device, and has failures of its own left; else it is as good as any other."""
    if user is None or not token.is_of(user.id, now=now, forgotten_at=user.devices_forgotten_at):
        return False
    limits = zip(counted, (DEVICES, DEVICE), strict=True)
    return all(each is None or each.failures < limit.most for each, limit in limits)
