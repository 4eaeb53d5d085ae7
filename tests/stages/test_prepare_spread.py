"""Prepare by other processes and by a real Ray cluster: what is written is the same, and what is killed loses nothing."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import pool_work
from clusters import AWAKE, ray_cluster
from conftest import LABELS, Project, starter_rows
from finsight import bootstrap
from finsight.adapters.ray_pool import ray_pool
from finsight.errors import ArtifactError, FinsightError, UnreachableError
from finsight.files import folder_digest, sha256
from finsight.params.file import load_params
from finsight.params.prepare import PrepareParams
from finsight.pipeline.prepare import prepare
from finsight.pipeline.row_groups import RowGroup, Run, in_threads, row_groups
from finsight.ports import Backbone
from raw_tables import raw_row, starter_table, write_raw

SPLIT = {"method": "stratified", "own": True, "validation": 0.1, "test": 0.2, "folds": 4, "fold": 0, "held_out": [], "seed": 42}
PARAMS = {"max_length": 64, "near_duplicates": 0.7, "split": SPLIT, "engine": "local", "workers": None}


def headlines(n: int) -> list[dict[str, Any]]:
    """Rows of which each is the head of one starter text and the tail of another."""
    rows = starter_rows(2400)
    halves = [(row["text"].split()[:6], row["text"].split()[6:], row["label"]) for row in rows]
    found = []
    for i in range(n):
        head, (_, tail, label) = halves[i % len(halves)][0], halves[i * 7919 // 11 % len(halves)]
        found.append(raw_row(i, " ".join([*head, str(i % 977), *tail]), label))
    return found


def write_tables(folder: Path, rows: Sequence[dict[str, Any]], texts: Sequence[dict[str, Any]], groups: int) -> None:
    write_raw(folder / "corpus.parquet", rows, groups)
    write_raw(folder / "unlabelled.parquet", [{**row, "label": ""} for row in texts], groups)


def prepared(backbone: Path, run: Run, to: Path) -> tuple[str, str, str]:
    """Run prepare in a folder that has its tables; the digests of all that it wrote."""
    tables, out = (Path("corpus.parquet"), Path("unlabelled.parquet")), (to / "prepared", to / "r.json", to / "lengths.csv")
    about = Backbone("tiny", backbone, "0" * 64, "MIT")
    prepare(*tables, LABELS, {}, PrepareParams.model_validate(PARAMS), about, to / "cache", *out, run=run)
    return folder_digest(out[0]), sha256(out[1]), sha256(out[2])


def elsewhere(make: Callable[[], Callable[[Any], Any]], items: Sequence[Any]) -> Iterator[Any]:
    """As a process on another machine would: all that it gets and gives is pickled, and it stands in another folder."""
    for item in items:
        here = Path.cwd()
        os.chdir("/")
        try:
            found = pickle.dumps(pickle.loads(pickle.dumps(make))()(pickle.loads(pickle.dumps(item))))
        finally:
            os.chdir(here)
        yield pickle.loads(found)


def test_another_process_writes_the_same(tiny_backbone: Path, in_folder: Path) -> None:
    write_tables(in_folder, starter_table(240), headlines(30), 50)
    assert prepared(tiny_backbone, elsewhere, Path("there")) == prepared(tiny_backbone, in_threads, Path("here"))


def test_a_machine_that_does_not_see_the_project_is_named(tmp_path: Path) -> None:
    line = rf"^{tmp_path}/gone/corpus\.parquet: no such file on \S+; every machine of a cluster has to see the project under the same path$"
    with pytest.raises(ArtifactError, match=line):
        RowGroup(Path("corpus.parquet"), 0, 9, tmp_path / "gone").read()


def test_a_machine_that_has_another_table_is_named(in_folder: Path) -> None:
    write_tables(in_folder, starter_table(240), [], 50)
    group = row_groups(Path("corpus.parquet"))[0]
    write_tables(in_folder, starter_table(230), [], 50)
    with pytest.raises(ArtifactError, match=rf"^{in_folder}/corpus\.parquet: is another table on \S+; every machine of a cluster [^\n]*$"):
        group.read()


def test_without_ray_the_line_says_what_to_install(make_project, monkeypatch: pytest.MonkeyPatch) -> None:
    project: Project = make_project("without-ray")
    project.set(prepare__engine="ray")
    params = load_params(project.root / "params.yaml")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FinsightError, match=r"^Ray is not installed: `pip install 'finsight\[scale\]'`, or leave the engine at local$"):
        bootstrap.row_workers(params).__enter__()


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    with ray_cluster() as variables:
        yield variables


@pytest.fixture(scope="module")
def large(make_project: Callable[[str], Project]) -> Project:
    """A project with 200,000 rows, which prepare has seen here and nowhere else."""
    project = make_project("large")
    write_tables(project.root / "data/raw", headlines(200_000), headlines(700)[600:], 32_768)
    project.run("prepare")
    return project


def written(project: Project) -> tuple[str, str, str]:
    return folder_digest(project.root / "data/prepared"), *(
        sha256(project.root / f"reports/{name}") for name in ("prepare.json", "plots/lengths.csv")
    )


def two_workers_write_the_same(large: Project, project: Project, engine: str) -> None:
    for path in (project.root / "data/prepared", project.root / "cache"):
        path.rename(path.with_suffix(".before"))
    project.set(prepare__engine=engine, prepare__workers=2)
    project.run("prepare")
    assert written(project) == written(large)
    assert len(list((project.root / "cache").rglob("tokens.parquet"))) == 7 + 1


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_processes_write_200_000_rows_byte_for_byte_as_one_does(large: Project, copy_of) -> None:
    two_workers_write_the_same(large, copy_of(large), "local")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_cluster_writes_200_000_rows_byte_for_byte_as_one_process_does(large: Project, copy_of, cluster: dict[str, str]) -> None:
    project = copy_of(large)
    project.env.update(cluster)
    two_workers_write_the_same(large, project, "ray")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_killed_driver_goes_on_with_what_was_tokenised(make_project, cluster: dict[str, str]) -> None:
    project: Project = make_project("killed-driver")
    write_tables(project.root / "data/raw", headlines(20_000), [], 500)
    project.set(prepare__engine="ray", prepare__workers=2)
    project.env.update(cluster)
    cache = project.root / "cache/tokens"
    with project.start("prepare") as driver:
        while len(list(cache.rglob("tokens.parquet"))) < 2:
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.01)
        driver.kill()
        driver.communicate()
    assert driver.returncode == -signal.SIGKILL
    assert not (project.root / "data/prepared").exists()
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("tokens.parquet")}
    assert 2 <= len(kept) < 40
    project.run("prepare")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "none was made again"
    assert len(list(cache.rglob("tokens.parquet"))) == 40
    by_ray = written(project)
    project.set(prepare__engine="local", prepare__workers=None)
    project.run("prepare")
    assert written(project) == by_ray


@pytest.fixture
def in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the tests' modules."""
    for name, value in AWAKE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(pool_work.__file__).parent), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")  # of what Ray Data sets itself
def test_a_killed_worker_loses_nothing(tiny_backbone: Path, in_folder: Path, in_workers: None) -> None:
    write_tables(in_folder, headlines(4_000), headlines(4_100)[4_000:], 500)
    expected = prepared(tiny_backbone, in_threads, Path("here"))
    with ray_pool(workers=2) as pool:
        found = prepared(tiny_backbone, lambda make, items: pool.run(partial(pool_work.killed_once, make, in_folder), items), Path("there"))
    assert found == expected
    assert len(list(in_folder.glob("killed-*"))) == 2, "while it compared, and while it tokenised"


class NotThere:
    """What a node without a package can't unpickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, ("a_package_that_is_not_there",)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")  # likewise
def test_a_node_without_the_package_is_named(in_workers: None) -> None:
    line = r"^Ray: no worker could begin \([^\n]*a_package_that_is_not_there[^\n]*\); have the same finsight and Ray on every node$"
    with pytest.raises(UnreachableError, match=line), ray_pool(workers=1) as pool:
        list(pool.run(NotThere(), [1]))  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")  # likewise
def test_a_row_group_that_kills_each_worker_is_given_up(tiny_backbone: Path, in_folder: Path, in_workers: None) -> None:
    write_tables(in_folder, headlines(1_000), [], 500)
    line = r"^Ray: a worker died 4 times at the same item, perhaps for want of memory; the same command goes on with what is left$"
    with pytest.raises(UnreachableError, match=line), ray_pool(workers=2) as pool:
        prepared(tiny_backbone, lambda make, items: pool.run(partial(pool_work.killed_always, make), items), Path("there"))
