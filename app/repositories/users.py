from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

import asyncpg
from sqlalchemy import DateTime, bindparam, func, insert, literal_column, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.errors import StoredStateInvalid, UsernameTaken
from app.domain.users import Role, User, username_key
from app.models import UserRow

COLUMNS = (
    UserRow.id,
    UserRow.username,
    UserRow.password_hash,
    UserRow.role,
    UserRow.disabled_at,
    UserRow.created_at,
    UserRow.password_changed_at,
    UserRow.must_change_password,
    UserRow.deleted_at,
    UserRow.devices_forgotten_at,
)

# What each sign-in asks, built once: that takes longer than sending it.
_BY_KEY = select(*COLUMNS).where(UserRow.username_key == bindparam("key"))
_LOCKED = (
    select(*COLUMNS)
    .where(
        UserRow.id == bindparam("user"),
        UserRow.password_hash == bindparam("verified"),
        UserRow.disabled_at.is_(None),
    )
    .with_for_update(key_share=True)
    .cte("locked")
)
# The clock is read for a row that comes out of there: after the wait for its lock.
_MOMENT = func.coalesce(bindparam("now", type_=DateTime(timezone=True)), func.clock_timestamp())
_VERIFIED = select(_MOMENT, *_LOCKED.c)

COPIED: Final = (
    "id",
    "username",
    "username_key",
    "password_hash",
    "role",
    "disabled_at",
    "created_at",
    "password_changed_at",
    "must_change_password",
)


class UserRepository:
    def __init__(self, db: AsyncConnection, now: datetime | None) -> None:
        """`now` as that of `FamilyRepository`."""
        self._db = db
        self._now = now

    async def find_by_key(self, key: str) -> User | None:
        """By the canonical form of the name; locks nothing."""
        row = (await self._db.execute(_BY_KEY, {"key": key})).one_or_none()
        return None if row is None else read_user(row)

    async def find(self, user_id: UUID) -> User | None:
        row = (await self._db.execute(select(*COLUMNS).where(UserRow.id == user_id))).one_or_none()
        return None if row is None else read_user(row)

    async def lock(self, user_id: UUID) -> User | None:
        """
        Lock the row against sign-in, password change and disabling; `None`: no such user.

        FOR NO KEY UPDATE: enough to exclude each other. The user's row comes before any of the families' rows.
        """
        found = select(*COLUMNS).where(UserRow.id == user_id).with_for_update(key_share=True)
        row = (await self._db.execute(found)).one_or_none()
        return None if row is None else read_user(row)

    async def lock_verified(self, user_id: UUID, password_hash: str) -> tuple[User, datetime] | None:
        """
        Lock the row if the password is still the one that was verified and the user is not disabled.

        Returns:
            The user as locked, and the time since when; `None`: somebody changed the one or the other since, and the
            sign-in must fail.
        """
        values = {"user": user_id, "verified": password_hash, "now": self._now}
        row = (await self._db.execute(_VERIFIED, values)).one_or_none()
        return None if row is None else (read_user(row[1:]), row[0])

    async def is_erased(self, user_id: UUID) -> bool:
        found = select(UserRow.id).where(UserRow.id == user_id, UserRow.erased_at.is_not(None))
        return (await self._db.execute(found)).one_or_none() is not None

    async def exists_with_role(self, role: Role) -> bool:
        """Disabled ones count, deleted ones do not."""
        found = select(UserRow.id).where(UserRow.role == role, UserRow.deleted_at.is_(None)).limit(1)
        return (await self._db.execute(found)).one_or_none() is not None

    async def has_other_admin(self, user_id: UUID) -> bool:
        """Whether an administrator besides this user can act. Only a lock on `ADMINISTRATORS` makes that last."""
        others = select(UserRow.id).where(
            UserRow.role == literal_column(f"'{Role.ADMIN.value}'"),  # a value would hide the partial index
            UserRow.disabled_at.is_(None),
            UserRow.deleted_at.is_(None),
            UserRow.id != user_id,
        )
        return (await self._db.execute(others.limit(1))).one_or_none() is not None

    async def add(self, user: User) -> None:
        """
        Store a new user.

        Raises:
            UsernameTaken: another user has this name in its canonical form.
        """
        values = {
            "id": user.id,
            "username": user.username,
            "username_key": username_key(user.username),
            "password_hash": user.password_hash,
            "role": user.role,
            "created_at": user.created_at,
            "password_changed_at": user.password_changed_at,
            "must_change_password": user.must_change_password,
        }
        with _unique_name():
            await self._db.execute(insert(UserRow).values(values))

    async def copy(self, users: Sequence[User], keys: Sequence[str]) -> None:
        """
        Store many new users at once, by COPY. The caller has begun the transaction with another statement.

        Sorted by name: so two that copy at once wait for each other in one order, and an index is written in its own.

        Args:
            keys: The canonical form of each name.
        Raises:
            UsernameTaken: somebody has one of the names; nothing was stored, and the transaction is void.
        """
        rows = [
            (user.id, user.username, key, user.password_hash, user.role, user.disabled_at, user.created_at,
             user.password_changed_at, user.must_change_password)
            for user, key in sorted(zip(users, keys, strict=True), key=itemgetter(1))
        ]  # fmt: skip
        driver: Any = (await self._db.get_raw_connection()).driver_connection
        try:
            await driver.copy_records_to_table("users", records=rows, columns=COPIED)
        except asyncpg.UniqueViolationError as conflict:
            if conflict.constraint_name != "uq_users_username_key":
                raise
            raise UsernameTaken from None

    async def list_after(self, user_id: UUID, *, limit: int) -> list[User]:
        """Those who were not deleted, in the order of their ids, after one. Served by the primary key."""
        found = select(*COLUMNS).where(UserRow.deleted_at.is_(None), UserRow.id > user_id)
        return [read_user(row) for row in await self._db.execute(found.order_by(UserRow.id).limit(limit))]

    async def rename(self, user_id: UUID, username: str) -> None:
        """
        Give a user another name. The caller holds the user's lock.

        Raises:
            UsernameTaken: another user has this name in its canonical form.
        """
        values = {"username": username, "username_key": username_key(username)}
        with _unique_name():
            await self._db.execute(update(UserRow).where(UserRow.id == user_id).values(values))

    async def replace_hash(self, user_id: UUID, *, verified: str, new: str) -> bool:
        """Store the same password under stronger parameters, unless it was changed since it was verified."""
        changed = update(UserRow).where(UserRow.id == user_id, UserRow.password_hash == verified)
        return (await self._db.execute(changed.values(password_hash=new))).rowcount == 1

    async def change_password(self, user_id: UUID, *, verified: str, new: str, now: datetime) -> bool:
        """Set a new password, unless another change was faster; false then."""
        changed = update(UserRow).where(UserRow.id == user_id, UserRow.password_hash == verified)
        values = {"password_hash": new, "password_changed_at": now, "must_change_password": False}
        return (await self._db.execute(changed.values(values))).rowcount == 1

    async def set_password(self, user_id: UUID, password_hash: str | None, *, must_change: bool, now: datetime) -> None:
        """Set a password, or take it away (`None`). The caller holds the user's lock."""
        values = {"password_hash": password_hash, "password_changed_at": now, "must_change_password": must_change}
        await self._db.execute(update(UserRow).where(UserRow.id == user_id).values(values))

    async def forget_devices(self, user_id: UUID, now: datetime) -> None:
        """No device is a known one any more. The caller holds the user's lock."""
        await self._db.execute(update(UserRow).where(UserRow.id == user_id).values(devices_forgotten_at=now))

    async def set_role(self, user_id: UUID, role: Role) -> None:
        """The caller holds the user's lock, and ends the sessions that have the former role."""
        await self._db.execute(update(UserRow).where(UserRow.id == user_id).values(role=role))

    async def bury(self, user_id: UUID, now: datetime) -> None:
        """
        Make a tombstone: disabled for good, without a password, the name free. The caller holds the user's lock.

        What remains is who was behind an id of the trail, until the person is erased.
        """
        values = {
            "username_key": None,
            "password_hash": None,
            "must_change_password": False,
            "disabled_at": func.coalesce(UserRow.disabled_at, now),
            "deleted_at": now,
        }
        await self._db.execute(update(UserRow).where(UserRow.id == user_id).values(values))

    async def set_disabled(self, user_id: UUID, at: datetime | None) -> bool:
        """Disable (`at`) or enable (`None`); false if the user was so already."""
        was = UserRow.disabled_at.is_(None) if at else UserRow.disabled_at.is_not(None)
        changed = update(UserRow).where(UserRow.id == user_id, was).values(disabled_at=at)
        return (await self._db.execute(changed)).rowcount == 1


@contextmanager
def _unique_name() -> Iterator[None]:
    """The table decides who was first: two requests that look beforehand would both find the name free."""
    try:
        yield
    except IntegrityError as conflict:
        if "uq_users_username_key" in str(conflict.orig):
            raise UsernameTaken from None
        raise


def read_user(row: Sequence[Any]) -> User:
    """From the values of `COLUMNS`, in their order."""
    user_id, username, password_hash, role, *others = row
    try:
        return User(user_id, username, password_hash, Role(role), *others)
    except ValueError:
        raise StoredStateInvalid(why="user role") from None
