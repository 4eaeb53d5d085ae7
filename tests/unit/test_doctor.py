"""The check-up of a machine, against real servers and settings that contradict."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conftest import REPO
from finsight.bootstrap import check_machine, check_settings, check_systems
from finsight.bootstrap.doctor import check_up
from finsight.domain.diagnosis import AdviceError
from finsight.errors import FinsightError, ParamsError, UnreachableError
from servers import free_port

SECRET = "s3cret-of-somebody"
WRONG = [
    ({"REDIS_ULR": "redis://h"}, "FINSIGHT_REDIS_ULR: no such setting; is FINSIGHT_REDIS_URL meant?"),
    ({"AUTH": "key", "OIDC_ISSUER": "https://i.example"}, "FINSIGHT_AUTH: has no oidc"),
    ({"AUTH": "keys"}, "FINSIGHT_AUTH: got 'keys'"),
    ({"REDIS_URL": f"http://u:{SECRET}@h"}, "FINSIGHT_REDIS_URL: expected redis://"),
    ({"OIDC_CLIENT_SECRET": SECRET}, "FINSIGHT_OIDC_CLIENT_SECRET: set without FINSIGHT_OIDC_CLIENT_ID"),
    ({"OIDC_CLIENT_ID": "a"}, "FINSIGHT_OIDC_CLIENT_ID: needs FINSIGHT_OIDC_ISSUER"),
    ({"OIDC_ISSUER": "https://i.example"}, "FINSIGHT_OIDC_ISSUER: needs FINSIGHT_OIDC_AUDIENCE"),
    ({"SIGNING_PASSWORD": SECRET}, "FINSIGHT_SIGNING_PASSWORD: set without FINSIGHT_SIGNING_KEY"),
    ({"REQUIRE_SIGNATURE": "release"}, "FINSIGHT_REQUIRE_SIGNATURE=release: no key counts"),
    ({"ENCRYPTION_KEY": SECRET}, "FINSIGHT_ENCRYPTION_KEY"),
    ({"OBJECTS": "gs://b"}, "FINSIGHT_OBJECTS: got 'gs://b'"),
    ({"MAX_UPLOAD": "10"}, "FINSIGHT_MAX_UPLOAD: 10 is less than FINSIGHT_MAX_BODY"),
    ({"LIMITS": "nothing=1/minute"}, "FINSIGHT_LIMITS"),
    ({"JOB_SECONDS": "soon"}, "FINSIGHT_JOB_SECONDS: got 'soon'"),
]


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_settings_that_can_not_be_are_told(given: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, in_folder: Path) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"FINSIGHT_{name}", value)
    with pytest.raises(ParamsError) as raised:
        check_settings.settings()
    assert said in str(raised.value)
    assert SECRET not in str(raised.value)


def test_settings_that_are_well_are_named_without_their_values(monkeypatch: pytest.MonkeyPatch, in_folder: Path) -> None:
    with pytest.raises(AdviceError, match="FINSIGHT_API_KEY: unset"):
        check_settings.settings()
    monkeypatch.setenv("FINSIGHT_API_KEY", SECRET)
    assert check_settings.settings() == "api_key"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")
    with pytest.raises(FinsightError, match="OTEL_EXPORTER_OTLP_ENDPOINT: expected http"):
        check_settings.settings()


def test_the_machine_that_runs_the_tests_can_run_the_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(REPO)
    assert check_machine.python().startswith("3.")
    assert "needed ones as constraints.txt pins them" in check_machine.packages()
    looked_at = {"processor": check_machine.processor, "memory": check_machine.memory, "gpu": check_machine.gpu}
    assert {one.state for one in check_up(looked_at)} <= {"ok", "advice"}
    (tmp_path / "constraints.txt").write_text("click==0.1\ntorch==2.13.0\nno-such-package==1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AdviceError, match=r"^click [0-9.]+ for 0\.1 in constraints\.txt"):
        check_machine.packages()


def test_systems_that_answer_and_those_that_do_not(
    redis_url: str, s3: tuple[str, Path], s3_credentials: None, monkeypatch: pytest.MonkeyPatch, in_folder: Path
) -> None:
    (s3[1] / "doctored").mkdir(exist_ok=True)
    monkeypatch.setenv("FINSIGHT_OBJECTS", "s3://doctored/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3[0])
    monkeypatch.setenv("FINSIGHT_REDIS_URL", redis_url)
    assert check_systems.objects() == "bucket doctored"
    assert check_systems.redis().startswith("Redis ")
    assert check_systems.clock().startswith("within 5 s of Redis")
    monkeypatch.setattr("finsight.bootstrap.check_systems.time.time", lambda now=time.time: now() - 12)
    with pytest.raises(AdviceError, match=r"1[12] s behind that of (Redis|S3)"):
        check_systems.clock()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("FINSIGHT_REDIS_URL", f"redis://:{SECRET}@127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://u:{SECRET}@127.0.0.1:{free_port()}")
    for check in (check_systems.objects, check_systems.redis, check_systems.mlflow):
        with pytest.raises(UnreachableError) as raised:
            check()
        assert SECRET not in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_check_that_hangs_or_breaks_takes_its_own_line_alone() -> None:
    over = threading.Event()

    def breaks() -> str:
        raise KeyError("x")

    def advises() -> str:
        raise AdviceError("do this")

    checks = {"hangs": lambda: str(over.wait(20)), "breaks": breaks, "advises": advises}
    found = {one.subject: (one.state, one.said) for one in check_up(checks, 0.2)}
    over.set()
    assert found == {
        "hangs": ("wrong", "no answer within 0 s; is the network there?"),
        "breaks": ("wrong", "KeyError, which nobody foresaw: 'x'; report it"),
        "advises": ("advice", "do this"),
    }


@pytest.mark.long
def test_the_command_has_a_line_for_each_and_ends_with_1_where_something_will_not_work(
    monkeypatch: pytest.MonkeyPatch, in_folder: Path
) -> None:
    def doctor() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "finsight.cli", "doctor"], capture_output=True, text=True, cwd=REPO)

    well = doctor()
    monkeypatch.setenv("FINSIGHT_REDIS_URL", f"redis://:{SECRET}@127.0.0.1:{free_port()}")
    ill = doctor()
    for done in (well, ill):
        assert len(done.stdout.splitlines()) == 16, done.stdout + done.stderr
        assert done.stderr == ""
        assert SECRET not in done.stdout
    assert {line.split()[0] for line in well.stdout.splitlines()} <= {"ok", "advice"}, well.stdout
    assert [line.split()[1] for line in ill.stdout.splitlines() if line.startswith("wrong")] == ["Redis"]
    assert (well.returncode, ill.returncode) == (0, 1)


def test_mlflows_database_is_told_from_what_is_none(in_folder: Path) -> None:
    assert check_systems.mlflow() == "SQLite, made by the first run"
    Path("mlflow.db").write_text("no database, and long enough to be told from an empty one " * 20)
    with pytest.raises(UnreachableError, match=r"^mlflow\.db: .*; is it MLflow's database"):
        check_systems.mlflow()


@pytest.mark.parametrize("uri", ["postgresql://u:s3cret@db/mlflow", "mlflow.example:5000", "file:./mlruns", "sqlite://"])
def test_an_address_that_is_no_mlflow_is_not_taken_for_a_database_to_be_made(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(FinsightError, match="MLFLOW_TRACKING_URI: expected") as raised:
        check_systems.mlflow()
    assert "s3cret" not in str(raised.value)


def test_a_secret_may_stand_in_a_file_and_nothing_else(monkeypatch: pytest.MonkeyPatch, in_folder: Path) -> None:
    Path("key").write_text(SECRET)
    monkeypatch.setenv("FINSIGHT_API_KEY_FILE", "key")
    assert check_settings.settings() == "api_key_file"
    monkeypatch.setenv("FINSIGHT_LIMITS_FILE", "key")
    with pytest.raises(ParamsError, match="FINSIGHT_LIMITS_FILE: no such setting"):
        check_settings.settings()


def test_all_that_hang_are_waited_for_together() -> None:
    over, began = threading.Event(), time.monotonic()
    found = [one.state for one in check_up({str(n): lambda: str(over.wait(20)) for n in range(6)}, 0.3)]
    over.set()
    assert found == ["wrong"] * 6
    assert time.monotonic() - began < 1.5


@pytest.mark.long
def test_a_broken_configuration_of_dvc_is_more_than_a_lack_of_a_remote(in_folder: Path) -> None:
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    with pytest.raises(AdviceError, match="no default remote"):
        check_systems.dvc_remote()
    Path(".dvc/config").write_text("[core")
    with pytest.raises(FinsightError, match=r"^\.dvc/config can't be read: configuration error") as raised:
        check_systems.dvc_remote()
    assert not isinstance(raised.value, AdviceError)
