"""The environment: read strictly, and never repeated."""

from pathlib import Path

import pytest

from app.settings import SettingsInvalid, load_settings

URL = "postgresql://u:hunter2@db/rota"
SECRET = "s" * 32
GOOD = {"ROTA_DATABASE_URL": URL, "ROTA_SECRETS": SECRET}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROTA_DATABASE_URL", "ROTA_SECRETS", "ROTA_REGISTRATION"):
        monkeypatch.delenv(name, raising=False)


def load(monkeypatch: pytest.MonkeyPatch, **changes: str) -> object:
    environment = {**GOOD, **changes}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings({**environment})


def test_defaults() -> None:
    """The documented ones."""
    from app.settings import Settings  # noqa: PLC0415 - beside its only use

    settings = Settings(database_url=URL, secrets=SECRET)  # type: ignore[arg-type]
    assert settings.access_token_seconds == 900
    assert settings.refresh_idle_seconds == 604_800
    assert settings.session_max_seconds == 2_592_000
    assert settings.refresh_grace_seconds == 10
    assert settings.refresh_retry_seconds == 3_600
    assert settings.max_sessions_per_user == 25
    assert settings.registration == "closed"
    assert settings.port == 8000


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        pytest.param("ROTA_REFRESH_GRACE_SECOND", "5", "ROTA_REFRESH_GRACE_SECONDS", id="misspelt"),
        pytest.param("ROTA_ACCES_TOKEN_SECONDS", "5", "ROTA_ACCESS_TOKEN_SECONDS", id="misspelt too"),
        pytest.param("ROTA_REFRESH_GRACE_SECONDS", "61", "ROTA_REFRESH_GRACE_SECONDS", id="grace too long"),
        pytest.param("ROTA_REFRESH_GRACE_SECONDS", "-1", "ROTA_REFRESH_GRACE_SECONDS", id="grace negative"),
        pytest.param("ROTA_ACCESS_TOKEN_SECONDS", "901", "ROTA_ACCESS_TOKEN_SECONDS", id="access too long"),
        pytest.param("ROTA_ACCESS_TOKEN_SECONDS", "soon", "ROTA_ACCESS_TOKEN_SECONDS", id="no number"),
        pytest.param("ROTA_REGISTRATION", "maybe", "ROTA_REGISTRATION", id="no such word"),
        pytest.param("ROTA_DATABASE_URL", "mysql://hunter2@db", "ROTA_DATABASE_URL", id="other database"),
        pytest.param("ROTA_SECRETS", "hunter2", "ROTA_SECRETS", id="short secret"),
        pytest.param("ROTA_SECRETS", f"{SECRET},hunter2", "ROTA_SECRETS", id="short second secret"),
        pytest.param("ROTA_SECRETS", f"{SECRET},{SECRET}", "ROTA_SECRETS", id="secret twice"),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    """The message names the variable, or the nearest one, and never shows a value."""
    with pytest.raises(SettingsInvalid, match=says) as raised:
        load(monkeypatch, **{name: value})
    assert "hunter2" not in str(raised.value)
    assert SECRET not in str(raised.value)


def test_secrets_come_from_files(tmp_path: Path) -> None:
    """`*_FILE` is read, its line end dropped; both at once is an error; so is a missing file."""
    path = tmp_path / "secrets"
    path.write_text(f"{SECRET},{'t' * 32}\n")
    settings = load_settings(
        {"ROTA_DATABASE_URL_FILE": str(_written(tmp_path / "url", URL)), "ROTA_SECRETS_FILE": str(path)}
    )
    assert settings.secret_list == (SECRET.encode(), b"t" * 32)
    with pytest.raises(SettingsInvalid, match="both"):
        load_settings({"ROTA_SECRETS": SECRET, "ROTA_SECRETS_FILE": str(path)})
    with pytest.raises(SettingsInvalid, match="ROTA_SECRETS_FILE"):
        load_settings({"ROTA_SECRETS_FILE": str(tmp_path / "nowhere")})


def test_a_missing_database_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is guessed."""
    with pytest.raises(SettingsInvalid, match="ROTA_DATABASE_URL"):
        load_settings({})


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
