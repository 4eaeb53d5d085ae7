"""The way to an MLflow server: credentials, TLS, a network that fails now and then."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finsight.adapters.mlflow_registry import MlflowRegistry
from finsight.adapters.mlflow_tracker import MlflowTracker
from finsight.errors import UnreachableError
from gate import Certificates, Gate, basic, certificates, gate_before
from servers import free_port

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")

SECRET = "s3cret-of-the-test"
VARIABLES = ("USERNAME", "PASSWORD", "TOKEN", "SERVER_CERT_PATH", "INSECURE_TLS")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # ~/.mlflow/credentials, ~/.netrc


@pytest.fixture
def gate(mlflow_server: str) -> Iterator[Gate]:
    with gate_before(mlflow_server) as opened:
        yield opened


@pytest.fixture
def guarded(gate: Gate) -> Gate:
    """A gate that asks who is there."""
    gate.accepted = {basic("ada", SECRET), f"Bearer {SECRET}"}
    return gate


def use(uri: str, name: str, folder: Path) -> None:
    """A run, its files there and back, a version."""
    tracker, registry = MlflowTracker(uri, f"e {name}"), MlflowRegistry(uri, f"m {name}")
    (folder / "bundle.json").write_text("{}")
    run = tracker.start("train", {})
    tracker.log_files(run, [folder / "bundle.json"], "bundle")
    tracker.finish(run, {})
    registry.create(run, "bundle", "d1", {})
    (folder / "down").mkdir()
    tracker.fetch(run, "bundle", folder / "down")
    assert (folder / "down/bundle.json").read_text() == "{}"


def test_user_and_password(guarded: Gate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    use(guarded.url, "password", tmp_path)


def test_a_token(guarded: Gate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    use(guarded.url, "token", tmp_path)


def test_credentials_in_the_address(guarded: Gate, tmp_path: Path) -> None:
    use(guarded.url.replace("://", f"://ada:{SECRET}@"), "address", tmp_path)


REFUSALS = {
    "a proxy's page": (401, "text/html", b"<html>Unauthorized</html>"),
    "a proxy's words": (401, "application/json", b'{"detail": "Not authenticated"}'),
    "MLflow's words": (403, "application/json", b'{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}'),
    "forbidden": (403, "text/plain", b"Permission denied"),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_wrong_credentials_are_one_line_without_them(
    guarded: Gate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refusal: tuple[int, str, bytes]
) -> None:
    tracker = MlflowTracker(guarded.url, "e refused")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    (tmp_path / "a").write_text("a")
    run = tracker.start("train", {})
    tracker.log_files(run, [tmp_path / "a"], "bundle")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", f"not {SECRET}")
    guarded.refusal = refusal
    asks: list[Callable[[], object]] = [
        lambda: tracker.find({"a": "1"}),
        lambda: MlflowRegistry(guarded.url, "m").versions(),
        lambda: MlflowRegistry(guarded.url, "m").audit(),
        lambda: tracker.log_files(run, [tmp_path / "a"], "bundle"),
        lambda: tracker.fetch(run, "bundle", tmp_path),
    ]
    for ask in asks:
        before = len(guarded.asked)
        with pytest.raises(UnreachableError) as caught:
            ask()
        assert f"MLflow at {guarded.url}: the server refuses the credentials (HTTP 40" in str(caught.value)
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
            assert name in str(caught.value)
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(guarded.asked) == before + 1, "a refusal is not tried again"


def test_what_a_server_says_back_is_not_repeated_where_it_is_secret(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    gate.accepted = {"nobody"}
    gate.refusal = (400, "text/plain", f"what is {SECRET}?".encode())
    with pytest.raises(UnreachableError, match=r"what is …\?"):
        MlflowRegistry(gate.url, "m").versions()


def test_a_host_name_that_the_server_does_not_know_is_no_matter_of_credentials(gate: Gate) -> None:
    gate.accepted = {"nobody"}
    gate.refusal = (403, "text/plain", b"Invalid Host header - possible DNS rebinding attack detected")
    with pytest.raises(UnreachableError, match="does not answer to this host name; start it with --allowed-hosts"):
        MlflowRegistry(gate.url, "m").versions()


def test_connections_are_kept(gate: Gate) -> None:
    registry = MlflowRegistry(gate.url, "m kept")
    registry.versions()
    before = set(gate.peers)
    for _ in range(20):
        registry.versions()
    assert len(gate.peers - before) <= 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy_is_asked_again(gate: Gate, tmp_path: Path, status: int) -> None:
    registry = MlflowRegistry(gate.url, "m busy")
    gate.failures = [status]
    assert registry.versions() == []
    tracker = MlflowTracker(gate.url, "e busy")
    run = tracker.start("train", {})
    (tmp_path / "big").write_bytes(os.urandom(300_000))
    gate.failures = [status]
    tracker.log_files(run, [tmp_path / "big"], "bundle")
    (tmp_path / "down").mkdir()
    gate.failures = [status]
    tracker.fetch(run, "bundle", tmp_path / "down")
    assert (tmp_path / "down/big").read_bytes() == (tmp_path / "big").read_bytes()


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, gate: Gate, tmp_path: Path) -> None:
    tracker, registry = MlflowTracker(gate.url, "e silent"), MlflowRegistry(gate.url, "m silent")
    run = tracker.start("train", {})
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    gate.silent = True
    begun = time.monotonic()
    asks: list[Callable[[], object]] = [
        registry.versions,
        lambda: tracker.log_files(run, [tmp_path], "bundle"),
        lambda: tracker.fetch(run, "bundle", tmp_path / "down"),
    ]
    for ask in asks:
        with pytest.raises(UnreachableError, match="MLflow at http.*timed out"):
            ask()
    assert time.monotonic() - begun < 20


def test_a_server_that_stays_busy_is_one_line(gate: Gate) -> None:
    registry = MlflowRegistry(gate.url, "m busy")
    gate.failures = [503] * 20
    with pytest.raises(UnreachableError, match=r"MLflow at http://127\.0\.0\.1:\d+: ResponseError\(.too many 503 error responses"):
        registry.versions()


def test_a_download_that_breaks_off_is_begun_again(gate: Gate, tmp_path: Path) -> None:
    tracker = MlflowTracker(gate.url, "e cut")
    (tmp_path / "big").write_bytes(os.urandom(3_000_000))
    run = tracker.start("train", {})
    tracker.log_files(run, [tmp_path / "big"], "bundle")
    (tmp_path / "down").mkdir()
    gate.cuts = 2
    tracker.fetch(run, "bundle", tmp_path / "down")
    assert (tmp_path / "down/big").read_bytes() == (tmp_path / "big").read_bytes()
    assert gate.cuts == 0
    gate.cuts = 99
    (tmp_path / "again").mkdir()
    with pytest.raises(UnreachableError, match="MLflow at http.*IncompleteRead"):
        tracker.fetch(run, "bundle", tmp_path / "again")
    assert list((tmp_path / "again").iterdir()) == []


def test_an_upload_may_take_longer_than_an_answer(gate: Gate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tracker = MlflowTracker(gate.url, "e slow")
    (tmp_path / "a").write_text("a")
    run = tracker.start("train", {})
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    gate.dawdle = 2.5
    tracker.log_files(run, [tmp_path / "a"], "bundle")
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "1"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Certificates]]:
    """A live MLflow server that speaks TLS only, with a certificate of a local authority."""
    folder = tmp_path_factory.mktemp("tls")
    made, port = certificates(folder), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/m.db", "--port", str(port)]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
    command += ["--uvicorn-opts", f"--ssl-keyfile {made.key} --ssl-certfile {made.certificate}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        answers(f"https://127.0.0.1:{port}", made, process)
        yield f"https://127.0.0.1:{port}", made
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it would wait for connections that are kept
        process.wait(30)


def answers(url: str, made: Certificates, process: subprocess.Popen[bytes]) -> None:
    import requests

    end = time.monotonic() + 90
    while time.monotonic() < end:
        assert process.poll() is None
        try:
            requests.get(f"{url}/health", verify=str(made.authority), timeout=5)
        except requests.ConnectionError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"nothing at {url}")


def test_tls_with_the_certificate_of_a_local_authority(
    tls: tuple[str, Certificates], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tls[1].authority))
    use(tls[0], "tls", tmp_path)


@pytest.mark.parametrize("variable", ["", "no such file", "another authority"])
def test_a_certificate_that_is_not_trusted_is_one_line(
    tls: tuple[str, Certificates], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    if variable:
        other = certificates(tmp_path).authority if variable == "another authority" else tmp_path / "gone.pem"
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(other))
    with pytest.raises(UnreachableError) as caught:
        MlflowRegistry(tls[0], "m").versions()
    assert str(caught.value).startswith(f"MLflow at {tls[0]}: its TLS certificate is not trusted; set MLFLOW_TRACKING_SERVER_CERT_PATH to")
    assert "\n" not in str(caught.value)


def test_http_to_a_server_that_speaks_tls_is_one_line(tls: tuple[str, Certificates]) -> None:
    with pytest.raises(UnreachableError, match="MLflow at http://127"):
        MlflowRegistry(tls[0].replace("https", "http"), "m").versions()
