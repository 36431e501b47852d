from sqlalchemy import CheckConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.domain.api_clients import NAME_CHARACTERS, SCOPES_MAXIMUM, ClientGrant, ClientScope
from app.models.base import Base, Bytes, Id, Moment, Small, TextList, Words, subset_of


class ApiClientRow(Base):
    """
    A program that speaks to Rota in its own name. On a cluster spread by user this is a reference table.

    Secrets are keyed hashes: the key is the server's and not in the database. The former secret works beside the
    current one until its time, or until it is revoked where it has none.
    """

    __tablename__ = "api_clients"
    __table_args__ = (
        UniqueConstraint("client_id"),  # serves each authentication, at most once a second and process
        CheckConstraint(subset_of("scopes", ClientScope), name="scopes"),
        CheckConstraint(subset_of("grants", ClientGrant), name="grants"),
        CheckConstraint(f"cardinality(session_scopes) <= {SCOPES_MAXIMUM}", name="session_scopes"),
        CheckConstraint(f"char_length(name) BETWEEN 1 AND {NAME_CHARACTERS}", name="name_length"),
        CheckConstraint(
            "client_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{2,63}$' AND client_id <> 'first-party'", name="client_id"
        ),
        CheckConstraint("first_party OR NOT 'password' = ANY (grants)", name="passwords_first_party"),
        CheckConstraint(
            "NOT public OR (first_party AND scopes = '{}' AND NOT 'client_credentials' = ANY (grants) "
            "AND num_nonnulls(secret_hash, former_secret_hash) = 0)",
            name="public",
        ),
        CheckConstraint(
            "num_nonnulls(secret_hash, secret_key_id, secret_created_at) IN (0, 3) "
            "AND coalesce(octet_length(secret_hash), 32) = 32",
            name="secret",
        ),
        CheckConstraint(
            "num_nonnulls(former_secret_hash, former_secret_key_id, former_secret_created_at) IN (0, 3) "
            "AND coalesce(octet_length(former_secret_hash), 32) = 32 "
            "AND (former_secret_expires_at IS NULL OR former_secret_hash IS NOT NULL)",
            name="former_secret",
        ),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    client_id: Mapped[Words]
    name: Mapped[Words]
    scopes: Mapped[TextList]
    grants: Mapped[TextList]
    session_scopes: Mapped[TextList]
    first_party: Mapped[bool]
    public: Mapped[bool]
    created_at: Mapped[Moment]
    disabled_at: Mapped[Moment | None]
    secret_hash: Mapped[Bytes | None]
    secret_key_id: Mapped[Small | None]
    secret_created_at: Mapped[Moment | None]
    former_secret_hash: Mapped[Bytes | None]
    former_secret_key_id: Mapped[Small | None]
    former_secret_created_at: Mapped[Moment | None]
    former_secret_expires_at: Mapped[Moment | None]
