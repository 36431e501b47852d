"""What all tables share: names of constraints, column types."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import DateTime, LargeBinary, MetaData, SmallInteger, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, INET
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.types import UserDefinedType

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "pk": "pk_%(table_name)s",
}


class Xid8(UserDefinedType[int]):
    """A transaction id that does not wrap."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "XID8"


ischema_names["xid8"] = Xid8  # so that `alembic check` can read the column back

Id = Annotated[UUID, mapped_column(Uuid)]
Moment = Annotated[datetime, mapped_column(DateTime(timezone=True))]
Words = Annotated[str, mapped_column(Text)]
Bytes = Annotated[bytes, mapped_column(LargeBinary)]
Small = Annotated[int, mapped_column(SmallInteger)]
Address = Annotated[str, mapped_column(INET)]
Xid = Annotated[int, mapped_column(Xid8)]
TextList = Annotated[list[str], mapped_column(ARRAY(Text))]


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)


def one_of(column: str, values: type) -> str:
    """The text of a CHECK that closes a list."""
    listed = ", ".join(f"'{value}'" for value in values)  # type: ignore[attr-defined]
    return f"{column} IN ({listed})"


def subset_of(column: str, values: type) -> str:
    """The same for a column that holds a list."""
    listed = ", ".join(f"'{value}'" for value in values)  # type: ignore[attr-defined]
    return f"{column} <@ ARRAY[{listed}]::text[]"
