"""`finsight storage` and `finsight mlflow --server` as a user starts them: a run, a version, the bucket, and the end of it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import REPO
from finsight.adapters.mlflow_registry import MlflowRegistry
from finsight.adapters.mlflow_tracker import MlflowTracker
from servers import free_port, wait_for

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a clone's settings stand in, the S3 remote on a port of its own."""
    root = tmp_path_factory.mktemp("clone")
    (root / ".dvc").mkdir()
    shutil.copy(REPO / "dvc.yaml", root)
    config = (REPO / ".dvc/config").read_text().replace("127.0.0.1:9000", f"127.0.0.1:{free_port()}")
    (root / ".dvc/config").write_text(config)
    return root


@pytest.fixture(scope="module")
def start(clone: Path) -> Iterator[Start]:
    """Start `finsight …` in the clone, its output in a file named after it."""
    started: list[subprocess.Popen[bytes]] = []
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MLFLOW_TRACKING"))}

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        with (clone / f"{arguments[0]}.log").open("wb") as log:
            command = [sys.executable, "-m", "finsight.cli", *arguments]
            started.append(subprocess.Popen(command, cwd=clone, env=environment, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in reversed(started):
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def server(start: Start, clone: Path) -> str:
    """The address of an MLflow server with its artifacts on the S3 server, both started as users do."""
    endpoint = next(line.split(" = ")[1] for line in (clone / ".dvc/config").read_text().splitlines() if "endpointurl" in line)
    wait_for(endpoint, start("storage", "--address", endpoint.removeprefix("http://")))
    address = f"http://127.0.0.1:{free_port()}"
    process = start("mlflow", "--server", "--port", address.rpartition(":")[2])
    wait_for(f"{address}/health", process)
    return address


def test_without_the_s3_server_it_is_one_line(start: Start, clone: Path) -> None:
    (clone / ".dvc/config.local").write_text("['remote \"minio\"']\n    access_key_id = abc\n    secret_access_key = defg\n")
    assert start("mlflow", "--server").wait(60) == 1
    (clone / ".dvc/config.local").unlink()
    said = (clone / "mlflow.log").read_text().strip()
    assert said.startswith("error: S3 at http://127.0.0.1:")
    assert said.endswith("Connection refused; start it in another terminal: `make storage`")
    assert start("mlflow", "--server").wait(60) == 1
    assert "no key in .dvc/config.local; `make storage` makes one" in (clone / "mlflow.log").read_text()


def test_a_run_a_version_and_an_alias_with_artifacts_in_the_bucket(
    server: str, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    tracker, registry = MlflowTracker(server, "e"), MlflowRegistry(server, "m")
    content = os.urandom(9_000_000)  # beyond what one part of an upload takes
    (tmp_path / "model.onnx").write_bytes(content)
    run = tracker.start("train", {})
    tracker.log_files(run, [tmp_path / "model.onnx"], "bundle")
    tracker.finish(run, {})
    kept = list((clone / ".storage/s3/finsight/mlflow").rglob("model.onnx"))
    assert [path.read_bytes() == content for path in kept] == [True]
    assert run in str(kept[0])
    assert registry.create(run, "bundle", "d1", {}).number == 1
    registry.set_alias("champion", 1)
    assert registry.versions()[0].aliases == {"champion"}
    (tmp_path / "down").mkdir()
    tracker.fetch(run, "bundle", tmp_path / "down")
    assert (tmp_path / "down/model.onnx").read_bytes() == content
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    folder = mlflow.artifacts.download_artifacts("models:/m@champion", dst_path=str(tmp_path / "by MLflow"))
    assert (Path(folder) / "model.onnx").read_bytes() == content
    assert (clone / ".storage/mlflow.db").stat().st_size > 0
    assert not (clone / "mlflow.db").exists()


def test_it_says_how_to_use_it_and_keeps_the_key_to_itself(server: str, clone: Path) -> None:
    said = (clone / "mlflow.log").read_text()
    assert f"export MLFLOW_TRACKING_URI={server}\n" in said
    secret = (clone / ".dvc/config.local").read_text().split("secret_access_key = ")[1].split()[0]
    assert secret not in said
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if readable(path)]
    assert not [line for line in commands if secret.encode() in line]
    assert [line for line in commands if server.rpartition(":")[2].encode() in line and b"mlflow" in line]


def readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:  # it has ended
        return False
    return True


def session_of(pid: int) -> set[int]:
    """The processes whose parent's parents lead to one."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


@pytest.mark.parametrize(("number", "what"), [(signal.SIGTERM, "mlflow"), (signal.SIGINT, "storage"), (signal.SIGHUP, "storage")])
def test_a_stopped_command_takes_its_children_with_it(start: Start, server: str, number: signal.Signals, what: str) -> None:
    port = free_port()
    process = start("mlflow", "--port", str(port)) if what == "mlflow" else start("storage", "--address", f"127.0.0.1:{port}")
    wait_for(f"http://127.0.0.1:{port}", process)
    family = session_of(process.pid)
    assert len(family) > 1
    process.send_signal(number)
    assert process.wait(30) == 0
    end = time.monotonic() + 10
    while (alive := {pid for pid in family if Path(f"/proc/{pid}").exists()}) and time.monotonic() < end:
        time.sleep(0.1)
    assert not alive


def test_a_port_that_is_taken_is_one_line(server: str, start: Start, clone: Path) -> None:
    assert start("mlflow", "--port", server.rpartition(":")[2]).wait(90) == 1
    taken = f"error: {server.removeprefix('http://')}: something listens there already; end it, or choose another port with --port\n"
    assert (clone / "mlflow.log").read_text() == taken
