"""What is MLflow's own in the tracker and the registry, on SQLite and a live server; test_registry.py has what every adapter must do."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from finsight.adapters.mlflow_registry import MlflowRegistry
from finsight.adapters.mlflow_store import connect, shown
from finsight.adapters.mlflow_tracker import MlflowTracker
from finsight.errors import DataError, ParamsError, RefusedError, UnreachableError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module", params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "server":
        return str(request.getfixturevalue("mlflow_server"))
    return f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/m.db"


@pytest.fixture
def tracker(uri: str, request: pytest.FixtureRequest) -> MlflowTracker:
    return MlflowTracker(uri, f"experiment of {request.node.name}")


@pytest.fixture
def registry(uri: str, request: pytest.FixtureRequest) -> MlflowRegistry:
    return MlflowRegistry(uri, f"model of {request.node.name}")


def test_params_metrics_and_files_are_kept(tracker: MlflowTracker, uri: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    run = tracker.start("train", {f"p{i}": str(i) for i in range(150)})
    tracker.log_metrics(run, {"loss": 2.0}, 1)
    tracker.log_metrics(run, {"loss": 1.0}, 2)
    tracker.log_files(run, [tmp_path / "folder", tmp_path / "b.txt"], "reports")
    tracker.finish(run, {})
    client = connect(uri)
    assert len(client.get_run(run).data.params) == 150
    assert [(m.step, m.value) for m in client.get_metric_history(run, "loss")] == [(1, 2.0), (2, 1.0)]
    assert {f.path for f in client.list_artifacts(run, "reports")} == {"reports/b.txt", "reports/folder"}


def test_a_version_downloads_as_the_bundle_that_was_registered(
    tracker: MlflowTracker, registry: MlflowRegistry, uri: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    import mlflow

    (tmp_path / "bundle.json").write_text('{"x": 1}')
    run = tracker.start("train", {})
    tracker.log_files(run, [tmp_path / "bundle.json"], "bundle")
    registry.create(run, "bundle", "d1", {})
    registry.set_alias("champion", 1)
    source = connect(uri).get_model_version_by_alias(f"model of {request.node.name}", "champion").source
    folder = mlflow.artifacts.download_artifacts(source, dst_path=str(tmp_path / "down"), tracking_uri=uri)
    assert (Path(folder) / "bundle.json").read_text() == '{"x": 1}'


def test_a_line_of_the_log_that_was_changed_by_hand_is_said(registry: MlflowRegistry, uri: str, request: pytest.FixtureRequest) -> None:
    registry.record({"when": "2026-05-02T10:00:00.000001+00:00"})
    client, model = connect(uri), f"model of {request.node.name}"
    (key,) = client.get_registered_model(model).tags
    assert key.startswith("finsight.audit.2026-05-02T10:00:00.000001_00:00.")
    for text in ("nothing", '["when"]', '{"when": 1}'):
        client.set_registered_model_tag(model, key, text)
        with pytest.raises(DataError, match=r"tag finsight\.audit\..* is no audit line"):
            registry.audit()


def test_a_server_that_is_away_is_one_line_within_seconds() -> None:
    with pytest.raises(
        UnreachableError, match=r"MLflow at http://127\.0\.0\.1:9: Connection refused; start it, or set MLFLOW_TRACKING_URI"
    ):
        MlflowTracker("http://127.0.0.1:9", "x")


def test_a_server_that_is_no_mlflow_is_one_line(s3: tuple[str, Path]) -> None:
    with pytest.raises(UnreachableError, match="MLflow at http"):
        MlflowTracker(s3[0], "x").find({"a": "1"})


def test_a_database_of_another_mlflow_is_one_line_with_what_to_do(registry: MlflowRegistry, uri: str, tmp_path: Path) -> None:
    """As a backup of before an upgrade is, once it is restored."""
    if not uri.startswith("sqlite"):
        pytest.skip("a server of another version does not start over it")
    registry.versions()  # which makes the database
    path = Path(shutil.copy(uri.removeprefix("sqlite:///"), tmp_path))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("update alembic_version set version_num = 'older'")
    with pytest.raises(RefusedError, match=r"of another MLflow \(found version older, .*`mlflow db upgrade ADDRESS`"):
        MlflowRegistry(f"sqlite:///{path}", "finsight").versions()


def test_credentials_in_an_address_are_never_shown() -> None:
    assert shown("https://user:secret@mlflow.example:8443/x") == "https://mlflow.example:8443/x"
    with pytest.raises(UnreachableError) as caught:
        MlflowTracker("http://user:secret@127.0.0.1:9", "x")
    assert "secret" not in str(caught.value)


def test_a_file_store_is_refused_with_what_to_use(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="expected http"):
        MlflowTracker(f"file://{tmp_path}", "x")
