from sqlalchemy import CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.domain.schema import Phase
from app.models.base import Base, Moment, Words, one_of


class SchemaRevisionRow(Base):
    """
    What each applied revision declared, so that a release can judge a schema that a newer one has made.

    `told_at` is the time of the audit event that tells of it: null from its commit until that event's, so that what a
    killed runner did, or a script run by hand, is told of by the next run.
    """

    __tablename__ = "schema_revisions"
    __table_args__ = (CheckConstraint(one_of("phase", Phase), name="phase"),)

    revision: Mapped[Words] = mapped_column(primary_key=True)
    phase: Mapped[Words]
    oldest_release: Mapped[Words]
    rewrites: Mapped[bool]
    applied_at: Mapped[Moment]
    told_at: Mapped[Moment | None]
