"""Settings: typed, bounded, the unit in the name. Environment variables with the prefix `ROTA_`."""

import difflib
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.domain.checkpoints import is_origin
from app.domain.ended_sessions import ACCESS_SECONDS_MAXIMUM
from app.domain.families import Lifetimes

PREFIX: Final = "ROTA_"
SECRET_BYTES_MINIMUM: Final = 32

_OPERATOR_TOKEN: Final = re.compile(r"[\x21-\x7E]{32,512}", re.ASCII)
_URL_PARAMETERS: Final = frozenset({"host", "port", "sslmode"})

# Read by the test suite, not by the product; it may stand in an environment that also runs the product.
_FOREIGN: Final = frozenset({"ROTA_TEST_DATABASE_URL", "ROTA_TEST_SCHEMA_BY"})


class SettingsInvalid(Exception):
    """The environment is wrong. The message has a line for each variable and never a value."""


class Settings(BaseSettings):
    """
    Everything that can be set.

    A secret may come from a file instead: `ROTA_SECRETS_FILE`, `ROTA_DATABASE_URL_FILE` (trailing line end ignored).
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True)

    database_url: SecretStr
    database_pool_size: Annotated[int, Field(ge=2, le=200)] = 16
    secrets: SecretStr = SecretStr("")
    issuer: Annotated[str, Field(min_length=1, max_length=200)] = "http://127.0.0.1:8000"
    audience: Annotated[str, Field(min_length=1, max_length=200)] = "rota"
    access_token_seconds: Annotated[int, Field(ge=1, le=ACCESS_SECONDS_MAXIMUM)] = ACCESS_SECONDS_MAXIMUM
    refresh_idle_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 604_800
    session_max_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 2_592_000
    refresh_grace_seconds: Annotated[int, Field(ge=0, le=60)] = 10
    refresh_retry_seconds: Annotated[int, Field(ge=0, le=86_400)] = 3_600
    max_sessions_per_user: Annotated[int, Field(ge=0, le=10_000)] = 25
    session_retention_days: Annotated[int, Field(ge=0, le=36_500)] = 0
    revocation_mode: Literal["view", "strict"] = "view"
    revocation_staleness_seconds: Annotated[int, Field(ge=1, le=60)] = 2
    streams_per_client: Annotated[int, Field(ge=1, le=100_000)] = 2000
    registration: Literal["closed", "open"] = "closed"
    maintenance_database_url: SecretStr = SecretStr("")
    migration_database_url: SecretStr = SecretStr("")
    audit_origin: Annotated[str, Field(max_length=200)] = ""
    audit_signing_key: SecretStr = SecretStr("")
    audit_sink: str = ""
    audit_retention_days: Annotated[int, Field(ge=0, le=36_500)] = 0
    audit_legal_hold: bool = False
    operator_token: SecretStr = SecretStr("")
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000

    @field_validator("database_url", "maintenance_database_url", "migration_database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr, given: ValidationInfo) -> SecretStr:
        if given.field_name != "database_url" and not value.get_secret_value():
            return value
        scheme = value.get_secret_value().partition("://")[0]
        if scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
            raise ValueError("must be a postgresql:// URL")
        unknown = parse_qs(urlsplit(value.get_secret_value()).query).keys() - _URL_PARAMETERS
        if unknown:
            raise ValueError(f"the URL's parameters may be {', '.join(sorted(_URL_PARAMETERS))}")
        return value

    @field_validator("operator_token")
    @classmethod
    def _is_hard_to_guess(cls, value: SecretStr) -> SecretStr:
        token = value.get_secret_value()
        if token and not _OPERATOR_TOKEN.fullmatch(token):
            raise ValueError("must be 32 to 512 visible ASCII characters")
        return value

    @field_validator("audit_origin")
    @classmethod
    def _names_a_log(cls, value: str) -> str:
        if value and not is_origin(value):
            raise ValueError("must be a name without spaces and plus signs, such as example.com/rota")
        return value

    @model_validator(mode="after")
    def _signs_for_somebody(self) -> Self:
        if bool(self.audit_signing_key.get_secret_value()) != bool(self.audit_sink):
            raise ValueError(f"{PREFIX}AUDIT_SIGNING_KEY and {PREFIX}AUDIT_SINK belong together; set both or none")
        return self

    @model_validator(mode="after")
    def _secrets_are_strong(self) -> Self:
        secrets = self.secret_list
        if any(len(secret) < SECRET_BYTES_MINIMUM for secret in secrets):
            raise ValueError(f"{PREFIX}SECRETS: each secret must have at least {SECRET_BYTES_MINIMUM} bytes")
        if len(set(secrets)) != len(secrets):
            raise ValueError(f"{PREFIX}SECRETS: a secret stands twice")
        return self

    @property
    def secret_list(self) -> tuple[bytes, ...]:
        """The secrets, newest first; empty when none is set."""
        text = self.secrets.get_secret_value()
        return tuple(part.strip().encode() for part in text.split(",")) if text.strip() else ()

    @property
    def migration_url(self) -> str:
        """Leads to the database itself, by a login that may change its schema."""
        return self.migration_database_url.get_secret_value() or self.database_url.get_secret_value()

    @property
    def log_origin(self) -> str:
        """The sealed log's name: as set, else after the issuer."""
        return self.audit_origin or f"{self.issuer.partition('://')[2] or self.issuer}/audit".replace("//", "/")

    @property
    def lifetimes(self) -> Lifetimes:
        return Lifetimes(
            access=timedelta(seconds=self.access_token_seconds),
            idle=timedelta(seconds=self.refresh_idle_seconds),
            session=timedelta(seconds=self.session_max_seconds),
            grace=timedelta(seconds=self.refresh_grace_seconds),
            retry=timedelta(seconds=self.refresh_retry_seconds),
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - signature of the framework
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings


_SECRET_FIELDS: Final = (
    "database_url",
    "maintenance_database_url",
    "migration_database_url",
    "secrets",
    "audit_signing_key",
    "operator_token",
)


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """
    Settings from the environment.

    Raises:
        SettingsInvalid: an unknown `ROTA_` variable (names the nearest known one), a value out of bounds, a secret
            given twice or in a file that cannot be read.
    """
    environ = {name.upper(): value for name, value in environ.items()}
    _refuse_unknown(environ)
    try:
        return Settings(**_secrets_from_files(environ))  # type: ignore[arg-type]
    except ValidationError as invalid:
        raise SettingsInvalid("\n".join(_line(error["loc"], error["msg"]) for error in invalid.errors())) from None


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = [variable(name) for name in Settings.model_fields]
    known += [f"{variable(name)}_FILE" for name in _SECRET_FIELDS]
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known and name not in _FOREIGN:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise SettingsInvalid(f"{name} is not a setting; the nearest is {near[0]}")


def _secrets_from_files(environ: Mapping[str, str]) -> dict[str, str]:
    values = {}
    for field in _SECRET_FIELDS:
        name = f"{variable(field)}_FILE"
        if (path := environ.get(name)) is None:
            continue
        if variable(field) in environ:
            raise SettingsInvalid(f"{variable(field)} and {name} are both set; remove one")
        try:
            values[field] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as unreadable:
            raise SettingsInvalid(f"{name}: the file cannot be read ({type(unreadable).__name__})") from None
    return values


def variable(field: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field.upper()


def _line(location: tuple[int | str, ...], message: str) -> str:
    text = message.removeprefix("Value error, ")
    return f"{variable(str(location[0]))}: {text}" if location else text
