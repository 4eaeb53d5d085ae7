"""One suite for ExperimentTracker and ModelRegistry: in memory, MLflow on SQLite, a live MLflow server."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fakes import MemoryRegistry, MemoryTracker
from finsight.adapters.mlflow_registry import MlflowRegistry
from finsight.adapters.mlflow_tracker import MlflowTracker
from finsight.errors import ArtifactError, DataError, ParamsError
from finsight.pipeline.tracking import BUNDLE_TAG
from finsight.ports import ExperimentTracker, ModelRegistry, ModelVersion

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module", params=["memory", "sqlite", "server"])
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "server":
        return str(request.getfixturevalue("mlflow_server"))
    return "" if request.param == "memory" else f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/m.db"


@pytest.fixture
def tracker(uri: str, request: pytest.FixtureRequest, tmp_path: Path) -> ExperimentTracker:
    return MlflowTracker(uri, f"experiment of {request.node.name}") if uri else MemoryTracker(tmp_path / "runs")


@pytest.fixture
def registry(uri: str, request: pytest.FixtureRequest) -> ModelRegistry:
    return MlflowRegistry(uri, f"model of {request.node.name}") if uri else MemoryRegistry()


@pytest.fixture
def run(tracker: ExperimentTracker, tmp_path: Path) -> str:
    """A run with a bundle."""
    (tmp_path / "bundle.json").write_text('{"x": 1}')
    made = tracker.start("train", {})
    tracker.log_files(made, [tmp_path / "bundle.json"], "bundle")
    return made


def test_a_run_is_found_by_its_tags_once_it_is_finished(tracker: ExperimentTracker) -> None:
    run = tracker.start("train", {"train.lr": "0.1"})
    assert tracker.find({"a": "1"}) is None
    tracker.finish(run, {"a": "1", "b": "2"})
    assert tracker.find({"a": "1"}) == tracker.find({"a": "1", "b": "2"}) == run
    assert tracker.find({"a": "1", "b": "3"}) is None


def test_a_failed_run_is_never_found(tracker: ExperimentTracker) -> None:
    tracker.finish(tracker.start("train", {}), {"a": "1"}, failed=True)
    assert tracker.find({"a": "1"}) is None


def test_the_newest_run_wins(tracker: ExperimentTracker) -> None:
    runs = [tracker.start("train", {}) for _ in range(2)]
    for run in runs:
        tracker.finish(run, {"a": "1"})
    assert tracker.find({"a": "1"}) == runs[1]


def test_files_and_folders_come_back_as_they_were_sent(tracker: ExperimentTracker, tmp_path: Path) -> None:
    (tmp_path / "folder/deep").mkdir(parents=True)
    (tmp_path / "folder/deep/a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    run = tracker.start("train", {"p": "1"})
    tracker.log_metrics(run, {"loss": 2.0}, 1)
    tracker.log_files(run, [tmp_path / "folder", tmp_path / "b.txt"], "reports")
    tracker.finish(run, {})
    target = tmp_path / "down"
    target.mkdir()
    tracker.fetch(run, "reports", target)
    assert (target / "b.txt").read_text() == "b"
    assert (target / "folder/deep/a.txt").read_text() == "a"
    assert sorted(path.name for path in target.iterdir()) == ["b.txt", "folder"]


def test_what_a_run_does_not_have_is_said(tracker: ExperimentTracker, tmp_path: Path) -> None:
    run = tracker.start("train", {})
    with pytest.raises(ArtifactError, match=f"run {run}: it has no nothing"):
        tracker.fetch(run, "nothing", tmp_path)
    with pytest.raises(ArtifactError, match="has it no more"):
        tracker.fetch("0" * 32, "nothing", tmp_path)


def plain(version: ModelVersion) -> ModelVersion:
    """A version without the moment at which it was made."""
    return replace(version, created="")


def test_versions_and_aliases(registry: ModelRegistry, run: str) -> None:
    assert registry.versions() == []
    first = registry.create(run, "bundle", "d1", {"git.commit": "abc"}, "the first")
    expected = ModelVersion(1, "d1", run, frozenset(), {"git.commit": "abc", BUNDLE_TAG: "d1"}, "the first")
    assert plain(first) == expected
    registry.set_alias("champion", 1)
    registry.create(run, "bundle", "d2", {})
    registry.set_alias("challenger", 2)
    registry.set_alias("challenger", 1)
    assert [plain(v) for v in registry.versions()] == [
        replace(expected, aliases=frozenset({"champion", "challenger"})),
        ModelVersion(2, "d2", run, frozenset(), {BUNDLE_TAG: "d2"}),
    ]


def test_a_version_says_when_it_was_made(registry: ModelRegistry, run: str) -> None:
    made = registry.create(run, "bundle", "d1", {})
    created = datetime.fromisoformat(made.created)
    assert created.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)
    assert registry.versions()[0].created == made.created


def test_an_alias_is_taken_away_and_a_missing_one_is_no_error(registry: ModelRegistry, run: str) -> None:
    registry.remove_alias("champion")
    registry.create(run, "bundle", "d1", {})
    registry.set_alias("champion", 1)
    registry.remove_alias("champion")
    registry.remove_alias("champion")
    assert registry.versions()[0].aliases == frozenset()


def test_tags_are_added_and_changed(registry: ModelRegistry, run: str) -> None:
    registry.create(run, "bundle", "d1", {"a": "1", "b": "1"})
    registry.tag(1, {"b": "2", "c d.e": "line\nnext → " + "x" * 4000})
    assert registry.versions()[0].tags == {BUNDLE_TAG: "d1", "a": "1", "b": "2", "c d.e": "line\nnext → " + "x" * 4000}


def test_a_deleted_version_is_gone_and_its_number_with_it(registry: ModelRegistry, run: str) -> None:
    for digest in ("d1", "d2"):
        registry.create(run, "bundle", digest, {})
    registry.delete(2)
    assert [v.number for v in registry.versions()] == [1]
    assert registry.create(run, "bundle", "d2", {}).number == 3


def test_a_deleted_version_leaves_its_run(registry: ModelRegistry, tracker: ExperimentTracker, run: str, tmp_path: Path) -> None:
    registry.create(run, "bundle", "d1", {})
    registry.delete(1)
    (tmp_path / "down").mkdir()
    tracker.fetch(run, "bundle", tmp_path / "down")
    assert (tmp_path / "down/bundle.json").read_text() == '{"x": 1}'


@pytest.mark.parametrize("change", [lambda r: r.set_alias("champion", 7), lambda r: r.tag(7, {"a": "b"}), lambda r: r.delete(7)])
def test_a_version_that_is_not_there_is_said(registry: ModelRegistry, run: str, change: Callable[[ModelRegistry], None]) -> None:
    registry.create(run, "bundle", "d1", {})
    with pytest.raises(DataError, match=r"version 7 of .*: there is none"):
        change(registry)


def test_a_bundle_that_is_there_gets_no_second_version(registry: ModelRegistry, run: str) -> None:
    first = registry.create(run, "bundle", "d1", {"a": "1"}, "one")
    assert registry.create(run, "bundle", "d1", {"a": "2"}, "two") == first
    assert len(registry.versions()) == 1


def test_threads_that_ask_for_one_bundle_get_one_version(registry: ModelRegistry, run: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: registry.create(run, "bundle", "d1", {}).number, range(4)))
    assert len(set(made)) == 1
    assert [v.number for v in registry.versions()] == made[:1]


def line(when: str, **other: str) -> dict[str, str]:
    return {"when": when, "what": "promoted", **other}


def test_the_audit_log_begins_before_the_first_version_and_is_sorted(registry: ModelRegistry) -> None:
    assert registry.audit() == []
    later, earlier = line("2026-05-02T10:00:00.000002+00:00"), line("2026-05-02T10:00:00.000001+00:00", why="größer → besser")
    registry.record(later)
    registry.record(earlier)
    assert registry.audit() == [earlier, later]
    assert registry.versions() == []


def test_lines_of_one_moment_are_all_kept(registry: ModelRegistry) -> None:
    moment = "2026-05-02T10:00:00.000001+00:00"
    for who in ("a", "b", "c"):
        registry.record(line(moment, who=who))
    assert sorted(entry["who"] for entry in registry.audit()) == ["a", "b", "c"]


def test_a_long_audit_log_comes_back_whole(registry: ModelRegistry, uri: str) -> None:
    written = [line(f"2026-05-02T10:00:00.{i:06d}+00:00", who="x" * 1000) for i in range(220 if not uri.startswith("http") else 120)]
    for entry in written:
        registry.record(entry)
    assert registry.audit() == written


def test_what_the_registry_can_not_keep_is_refused(registry: ModelRegistry, run: str) -> None:
    registry.record(line("2026-05-02T10:00:00.000001+00:00", why="x" * 4900))
    with pytest.raises(ParamsError, match="audit line: got 50[0-9][0-9] characters"):
        registry.record(line("2026-05-02T10:00:00.000002+00:00", why="x" * 5000))
    assert len(registry.audit()) == 1
    with pytest.raises(ParamsError, match="description: got 5001 characters"):
        registry.create(run, "bundle", "d1", {}, "x" * 5001)


def test_the_log_and_the_tags_of_versions_stay_apart(registry: ModelRegistry, run: str) -> None:
    registry.create(run, "bundle", "d1", {})
    registry.record(line("2026-05-02T10:00:00.000001+00:00"))
    assert registry.versions()[0].tags == {BUNDLE_TAG: "d1"}
