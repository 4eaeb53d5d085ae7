"""Secrets in files, as container engines mount them."""

from pathlib import Path

import pytest

from finsight.adapters.job_process import plain_environment
from finsight.errors import ParamsError
from finsight.settings import load_settings

SECRET = "a-secret-of-some-length"


def test_a_secret_is_read_from_the_file_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "REDIS_URL", "OIDC_CLIENT_SECRET", "SIGNING_KEY", "SIGNING_PASSWORD", "ENCRYPTION_KEY"):
        monkeypatch.setenv(f"FINSIGHT_{name}", "")
        (tmp_path / name).write_text(f"{SECRET}-{name}\n")
        monkeypatch.setenv(f"FINSIGHT_{name}_FILE", str(tmp_path / name))
    found = load_settings()
    assert found.api_key is not None
    assert found.api_key.get_secret_value() == f"{SECRET}-API_KEY"
    assert found.redis_url is not None
    assert found.redis_url.get_secret_value() == f"{SECRET}-REDIS_URL"
    for held in (found.oidc_client_secret, found.signing_key, found.signing_password, found.encryption_key):
        assert held is not None
        assert held.get_secret_value().startswith(SECRET)
    assert SECRET not in repr(found)


def test_only_secrets_are_read_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "limits").write_text("predict=1/hour")
    monkeypatch.setenv("FINSIGHT_LIMITS_FILE", str(tmp_path / "limits"))
    assert load_settings().limits == ""


@pytest.mark.parametrize(
    ("content", "other", "words"),
    [(None, "", "can't be read (No such file"), (b"\n", "", "is empty"), (b"\xff", "", "no UTF-8"), (b"x", "y", "too")],
)
def test_what_is_wrong_with_a_file_is_one_line(
    content: bytes | None, other: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("FINSIGHT_API_KEY", other)
    monkeypatch.setenv("FINSIGHT_API_KEY_FILE", str(path))
    with pytest.raises(ParamsError) as caught:
        load_settings()
    assert str(caught.value).startswith("FINSIGHT_API_KEY_FILE: ")
    assert words in str(caught.value)


def test_jobs_are_not_told_where_the_services_secrets_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINSIGHT_API_KEY_FILE", "/run/secrets/api_key")
    monkeypatch.setenv("FINSIGHT_REDIS_URL_FILE", "/run/secrets/redis_url")
    assert not [name for name in plain_environment() if name.endswith("_FILE") and name.startswith("FINSIGHT_")]
