"""Settings: typed, bounded, the unit in the name. Environment variables with the prefix `ROTA_`."""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as made_by
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.domain.checkpoints import is_origin
from app.domain.ended_sessions import ACCESS_SECONDS_MAXIMUM
from app.domain.families import Lifetimes
from app.domain.origins import read_origins
from app.domain.passwords import MINIMUM_CHARACTERS, MINIMUM_OF_SEVERAL
from app.domain.proxies import ProxiesInvalid, TrustedProxies, read_proxies

PREFIX: Final = "ROTA_"
SECRET_BYTES_MINIMUM: Final = 32
NAME_CHARACTERS: Final = 4  # of a name that passwords are compared with
NOWHERE: Final = "postgresql://"  # stands where no database is named

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
    direct_database_url: SecretStr = SecretStr("")
    replica_url: SecretStr = SecretStr("")
    replica_lag_seconds: Annotated[int, Field(ge=1, le=600)] = 5
    request_seconds: Annotated[int, Field(ge=1, le=600)] = 30
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
    failed_logins_per_minute: Annotated[int, Field(ge=10, le=1_000_000)] = 600
    registration: Literal["closed", "open"] = "closed"
    password_min_characters: Annotated[int, Field(ge=MINIMUM_OF_SEVERAL, le=64)] = MINIMUM_CHARACTERS
    password_breached_file: str = ""
    cors_origins: Annotated[str, Field(max_length=10_000)] = ""
    maintenance_database_url: SecretStr = SecretStr("")
    migration_database_url: SecretStr = SecretStr("")
    audit_origin: Annotated[str, Field(max_length=200)] = ""
    audit_signing_key: SecretStr = SecretStr("")
    audit_sink: str = ""
    audit_retention_days: Annotated[int, Field(ge=0, le=36_500)] = 0
    audit_legal_hold: bool = False
    slow_request_milliseconds: Annotated[int, Field(ge=1, le=600_000)] = 1000
    slow_statement_milliseconds: Annotated[int, Field(ge=1, le=600_000)] = 500
    metrics_directory: str = ""
    traces_endpoint: Annotated[str, Field(max_length=500)] = ""
    operator_token: SecretStr = SecretStr("")
    backup_stamp: str = ""
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    trusted_proxies: Annotated[str, Field(max_length=20_000)] = ""
    unsafe_trust_any_proxy: bool = False

    @field_validator(
        "database_url", "direct_database_url", "replica_url", "maintenance_database_url", "migration_database_url"
    )
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

    @field_validator("traces_endpoint")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc):
            raise ValueError("must be an http:// or https:// URL, and hold no password")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _lists_origins(cls, value: str) -> str:
        read_origins(value)
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
    def _trusts_somebody_in_particular(self) -> Self:
        try:
            read_proxies(self.trusted_proxies, anybody_may=self.unsafe_trust_any_proxy)
        except ProxiesInvalid as invalid:
            raise ValueError(f"{PREFIX}TRUSTED_PROXIES: {invalid}") from None
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
    def allowed_origins(self) -> tuple[str, ...]:
        """Whose pages may read our answers and use our cookies, besides our own."""
        return read_origins(self.cors_origins)

    @property
    def is_pooled(self) -> bool:
        """Whether a transaction pooler stands before the database: a direct URL is named for what cannot go through."""
        return bool(self.direct_database_url.get_secret_value())

    @property
    def direct_url(self) -> str:
        """Leads to the database itself, by the server's login."""
        return self.direct_database_url.get_secret_value() or self.database_url.get_secret_value()

    @property
    def maintenance_url(self) -> str:
        """Leads to the database itself, by a login that may erase and remove, if one is named."""
        return self.maintenance_database_url.get_secret_value() or self.direct_url

    @property
    def migration_url(self) -> str:
        """Leads to the database itself, by a login that may change its schema."""
        return self.migration_database_url.get_secret_value() or self.direct_url

    @property
    def proxies(self) -> TrustedProxies:
        """Whose `X-Forwarded-For` tells where a client is."""
        return read_proxies(self.trusted_proxies, anybody_may=self.unsafe_trust_any_proxy)

    @property
    def log_origin(self) -> str:
        """The sealed log's name: as set, else after the issuer."""
        return self.audit_origin or f"{self.issuer.partition('://')[2] or self.issuer}/audit".replace("//", "/")

    @property
    def https(self) -> bool:
        """Whether clients come by TLS, and never without."""
        return self.issuer.startswith("https://")

    @property
    def service_names(self) -> tuple[str, ...]:
        """What the service is called: nobody's password shall be that."""
        host = urlsplit(self.issuer).hostname or self.issuer
        labels = host.split(".")
        domains = [".".join(labels[first:]) for first in range(len(labels) - 1)]
        return tuple(name for name in (host, *domains, *labels[:-1], self.audience) if len(name) >= NAME_CHARACTERS)

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


SECRET_FIELDS: Final = (
    "database_url",
    "direct_database_url",
    "replica_url",
    "maintenance_database_url",
    "migration_database_url",
    "secrets",
    "audit_signing_key",
    "operator_token",
)


def load_settings(environ: Mapping[str, str] = os.environ, **otherwise: str) -> Settings:
    """
    Settings from the environment.

    Args:
        otherwise: Values of fields that must be set, for commands that can do without them.
    Raises:
        SettingsInvalid: an unknown `ROTA_` variable (names the nearest known one), a value out of bounds, a secret
            given twice or in a file that cannot be read.
    """
    environ = {name.upper(): value for name, value in environ.items()}
    _refuse_unknown(environ)
    given = _secrets_from_files(environ)
    given |= {name: value for name, value in otherwise.items() if name not in given and variable(name) not in environ}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as invalid:
        raise SettingsInvalid("\n".join(_line(error["loc"], error["msg"]) for error in invalid.errors())) from None


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = [variable(name) for name in Settings.model_fields]
    known += [f"{variable(name)}_FILE" for name in SECRET_FIELDS]
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known and name not in _FOREIGN:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise SettingsInvalid(f"{name} is not a setting; the nearest is {near[0]}")


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with the environment: the variables concerned, and a sentence without values."""

    variables: tuple[str, ...]
    message: str


@dataclass(slots=True)
class Examined:
    """
    An environment as far as it can be understood: what is wrong counts as not set.

    Args:
        files: By field, the file that its value came from.
        given: Fields that the environment sets.
    """

    settings: Settings
    complaints: list[Complaint] = made_by(default_factory=list)
    files: dict[str, str] = made_by(default_factory=dict)
    given: set[str] = made_by(default_factory=set)


class _OfValues(Settings):
    """Of the values it is given, whatever the environment says."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - signature of the framework
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def examine_settings(environ: Mapping[str, str] = os.environ) -> Examined:
    """Read an environment that may be wrong; see `Examined`. Never raises for what stands in it."""
    environ = {name.upper(): value for name, value in environ.items()}
    complaints: list[Complaint] = []
    values: dict[str, str] = {}
    files: dict[str, str] = {}
    for name in sorted(environ):
        try:
            _refuse_unknown({name: environ[name]})
        except SettingsInvalid as unknown:
            complaints.append(Complaint((name,), str(unknown)))
    for each in Settings.model_fields:
        here = {name: environ[name] for name in (variable(each), f"{variable(each)}_FILE") if name in environ}
        try:
            values |= _secrets_from_files(here)
        except SettingsInvalid as wrong:
            complaints.append(Complaint(tuple(here), str(wrong)))
            continue
        if each in SECRET_FIELDS and f"{variable(each)}_FILE" in here:
            files[each] = here[f"{variable(each)}_FILE"]
        elif variable(each) in here:
            values[each] = here[variable(each)]
    given = set(values)
    while True:
        try:
            return Examined(_OfValues(**values), complaints, files, given)  # type: ignore[arg-type]
        except ValidationError as invalid:
            complaints += [_leave_out(values, each["loc"], each["type"], each["msg"]) for each in invalid.errors()]


def _leave_out(values: dict[str, str], location: tuple[int | str, ...], kind: str, message: str) -> Complaint:
    line = _line(location, message)
    if location:
        concerned = [str(location[0])]
    else:  # a rule on several: it names them
        concerned = [each for each in values if re.search(rf"\b{variable(each)}\b", line)]
    for each in concerned:
        values.pop(each, None)
    if kind == "missing":
        line = f"{variable(concerned[0])} is not set"
    values.setdefault("database_url", NOWHERE)
    return Complaint(tuple(variable(each) for each in concerned), line)


def _secrets_from_files(environ: Mapping[str, str]) -> dict[str, str]:
    values = {}
    for field in SECRET_FIELDS:
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
