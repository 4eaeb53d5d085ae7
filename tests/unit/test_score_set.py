"""A data set is scored part by part: the same rows and values as one file, whole parts alone, gone on with where it was left."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from conftest import LABELS
from finsight.adapters.local_files import LocalFiles
from finsight.adapters.local_pool import LocalPool
from finsight.bootstrap import score_set as data_set
from finsight.bootstrap.pools import worker_pool
from finsight.cli import main
from finsight.errors import ArtifactError, DataError, FinsightError, GateError, ParamsError
from finsight.pipeline import score_parts
from finsight.pipeline.predict import Model
from finsight.pipeline.score import ROWS, Scored, added_names, score
from finsight.pipeline.score_parts import MANIFEST, MadeOf, parquet_files
from finsight.pipeline.score_set import score_set
from finsight.shard_ports import WorkerPool

ADDED = added_names(LABELS, ordered=True)


class Lengths:
    """A classifier whose logits depend on all texts that it is asked for at once, as rounding does in a real one."""

    labels = LABELS

    def __init__(self, log: Path, dies_after: int) -> None:
        self._log, self._dies_after = log, dies_after

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if asked(self._log) >= self._dies_after:
            raise KeyboardInterrupt
        with self._log.open("a") as file:
            file.write(f"{len(texts)}\n")
        lengths = np.array([[len(text) % 7, len(text) % 5, len(text) % 3] for text in texts], dtype=np.float32)
        return lengths.reshape(-1, 3) + np.float32(len(texts) / 1e4)


def asked(log: Path) -> int:
    """How many texts, by all workers."""
    return sum(map(int, log.read_text().split())) if log.exists() else 0


def model(log: Path, dies_after: int = 10**9) -> Model:
    return Model(Lengths(log, dies_after), {"negative": -1.0, "neutral": 0.0, "positive": 1.0}, 0.9)


def table(first: int, n: int) -> pa.Table:
    texts = [None if i % 1000 == 3 else f"row {'x' * (i % 11)} {i}" for i in range(first, first + n)]
    return pa.table({"id": pa.array(range(first, first + n), pa.int32()), "text": texts, "tags": [[{"a": i}] for i in range(n)]})


class Work:
    """A folder of Parquet files, and the scoring of it."""

    def __init__(self, root: Path) -> None:
        self.root, self.out, self.log = root, LocalFiles(root / "out"), root / "asked"
        (root / "in/deep").mkdir(parents=True)
        pq.write_table(table(0, 5 * ROWS + 1), root / "in/a.parquet", row_group_size=3000)
        pq.write_table(table(5 * ROWS + 1, 700), root / "in/deep/b.parquet")
        pq.write_table(table(0, 0), root / "in/empty.parquet")
        (root / "in/_notes.parquet").write_text("is none of ours")

    def score(
        self,
        dies_after: int = 10**9,
        workers: int = 1,
        pool: WorkerPool | None = None,
        opened: Callable[[], Model] | None = None,
        **changes: str,
    ) -> Scored:
        source = LocalFiles(self.root / "in")
        made_of = replace(MadeOf(source.place, "text", "d1", "onnx-fp32"), **changes)
        opened = opened or partial(model, self.log, dies_after)
        self.log.unlink(missing_ok=True)
        return score_set(source, parquet_files(source), self.out, made_of, ADDED, pool or LocalPool(workers), opened)

    def parts(self) -> list[Path]:
        return sorted(self.out.root.glob("part-*.parquet"))

    def table(self) -> pa.Table:
        return pa.concat_tables([pq.read_table(path, partitioning=None) for path in self.parts()])


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_columns_and_values_are_those_of_one_file(work: Work, workers: int) -> None:
    found = work.score(workers=workers)
    assert (found.rows, found.before, found.without_text) == (5 * ROWS + 701, 0, 11)
    alone = []
    for name in ("a.parquet", "deep/b.parquet"):
        score(work.root / "in" / name, work.root / "one.parquet", "text", model(work.root / "other"), "d")
        alone.append(pq.read_table(work.root / "one.parquet"))
    assert work.table().equals(pa.concat_tables(alone)), "to the last digit, in the same order"
    assert [path.name[:13] for path in work.parts()] == [f"part-{i:08d}" for i in range(7)]
    manifest = json.loads((work.out.root / MANIFEST).read_text())
    assert {name: manifest[name] for name in ("column", "bundle", "format", "rows")} == {
        "column": "text", "bundle": "d1", "format": "onnx-fp32", "rows": found.rows,
    }  # fmt: skip
    assert [part["bytes"] for part in manifest["parts"]] == [path.stat().st_size for path in work.parts()]
    assert sum(part["without_text"] for part in manifest["parts"]) == 11
    assert {path.name for path in work.out.root.iterdir()} == {MANIFEST, *(path.name for path in work.parts())}, "nothing else is left"


def test_values_do_not_depend_on_how_large_parts_are(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    work.score()
    small, work.out = work.table(), LocalFiles(work.root / "large")
    monkeypatch.setattr(score_parts, "PARTS", 3)
    work.score()
    assert [pq.read_metadata(path).num_rows for path in work.parts()] == [ROWS, ROWS, ROWS, ROWS, ROWS, 1, 700]
    monkeypatch.setattr(score_parts, "PARTS", 2)
    work.out = LocalFiles(work.root / "larger")
    work.score()
    assert [pq.read_metadata(path).num_rows for path in work.parts()] == [2 * ROWS, 2 * ROWS, ROWS + 1, 700]
    assert work.table().equals(small)


def test_long_texts_make_small_parts(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_parts, "PARTS", 1)
    monkeypatch.setattr(score_parts, "MOST_BYTES", 1)
    work.score()
    assert max(pq.read_metadata(path).num_rows for path in work.parts()) == ROWS


def test_a_file_may_have_a_name_that_is_no_utf_8(work: Work) -> None:
    (work.root / "in/deep/b.parquet").rename(work.root / "in" / os.fsdecode(b"\xff.parquet"))
    assert (work.score().before, work.score().before) == (0, 5 * ROWS + 701)


def test_a_killed_run_goes_on_with_what_is_left(work: Work) -> None:
    with pytest.raises(KeyboardInterrupt):
        work.score(dies_after=2 * ROWS)
    before = {path: path.stat().st_mtime_ns for path in work.parts()}
    assert len(before) == 3, "the third asked one less, for want of texts"
    (work.out.root / f".{work.parts()[0].name}.0123.partial").write_text("half")
    found = work.score(workers=2)
    assert (found.rows, found.before, found.without_text) == (5 * ROWS + 701, 3 * ROWS, 11)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was done is not done again"
    assert not list(work.out.root.glob(".*")), "what a kill left of a file goes"
    kept, work.out = work.table(), LocalFiles(work.root / "anew")
    work.score()
    assert kept.equals(work.table())


def test_only_parts_of_a_file_that_changed_are_scored_again(work: Work) -> None:
    work.score()
    pq.write_table(table(0, 300), work.root / "in/deep/b.parquet")
    assert work.score().before == 5 * ROWS + 1
    assert len(work.table()) == 5 * ROWS + 301
    (work.root / "in/deep/b.parquet").unlink()
    found = work.score()
    assert (found.rows, found.before, asked(work.log)) == (5 * ROWS + 1, 5 * ROWS + 1, 0)
    assert len(work.parts()) == 6, "a part of a file that is gone goes too"


@pytest.mark.parametrize(("name", "value"), [("bundle", "d2"), ("format", "onnx-int8"), ("source", "elsewhere")])
def test_scores_of_another_origin_are_not_gone_on_from(work: Work, name: str, value: str) -> None:
    work.score()
    before = work.table()
    with pytest.raises(DataError, match=rf"out: holds scores of another {name} \(.*, not {value}\); name another place"):
        work.score(**{name: value})
    assert work.table().equals(before)


def test_a_part_that_another_run_left_is_never_taken_for_finished(work: Work) -> None:
    """Of two that begin at once in an empty place the manifest is the later one's, and parts are of both."""
    with pytest.raises(KeyboardInterrupt):
        work.score(dies_after=2 * ROWS, bundle="d2")
    left, manifest = set(work.parts()), work.out.root / MANIFEST
    manifest.write_text(manifest.read_text().replace('"d2"', '"d1"'))
    assert work.score().before == 0
    assert asked(work.log) == 5 * ROWS + 701 - 11
    assert not left & set(work.parts())


class Meddled:
    """A pool beside which something else happens before its last result."""

    cores = 1

    def __init__(self, meddle: Callable[[], object]) -> None:
        self._meddle = meddle

    def run(self, make: Callable[[], Callable[[Any], Any]], items: Sequence[Any]) -> Iterator[Any]:
        *found, last = LocalPool(1).run(make, items)
        yield from found
        self._meddle()
        yield last


def test_what_is_not_there_at_the_end_is_told(work: Work) -> None:
    """Of a worker that sees another folder under the path of ours, or of a second run."""
    work.score()
    part = work.parts()[2]
    with pytest.raises(DataError, match=rf"^{part}: is not there as a worker wrote it; let one run write here, [^\n]*$"):
        (work.root / "in/deep/b.parquet").touch()
        work.score(pool=Meddled(part.unlink))
    stranger = part.with_name("part-00000002-0123456789ab.parquet")
    with pytest.raises(DataError, match=rf"^{stranger}: is of another run at the same time; let one run write here, [^\n]*$"):
        work.score(pool=Meddled(lambda: stranger.write_bytes(b"other")))
    assert work.score().before == 5 * ROWS + 701
    assert len(work.parts()) == 7


def test_a_file_that_is_replaced_while_it_is_scored_is_told(work: Work) -> None:
    def replaced() -> Model:
        pq.write_table(table(0, 5 * ROWS + 2), work.root / "in/a.parquet")
        return model(work.log)

    line = r"^[^\n]*in/a.parquet: on \S+ it is not the file that it was when this run began; run the command again$"
    with pytest.raises(DataError, match=line):
        work.score(opened=replaced)
    assert work.parts() == []
    assert work.score().rows == 5 * ROWS + 702


def test_what_can_t_be_scored_is_said_before_anything_is_written(work: Work) -> None:
    def says(pattern: str) -> None:
        with pytest.raises(DataError, match=pattern):
            work.score()

    pq.write_table(pa.table({"body": ["x"]}), work.root / "in/z.parquet")
    says("in/z.parquet: no column 'text'; it has body: name one with --text")
    pq.write_table(pa.table({"text": ["x"], "score": [1]}), work.root / "in/z.parquet")
    says("in/z.parquet: column 'score' is one that is added; rename it")
    pq.write_table(pa.table({"text": [1]}), work.root / "in/z.parquet")
    says("in/z.parquet: column 'text' holds int64, expected texts")
    (work.root / "in/z.parquet").write_bytes(b"PAR1")
    says("in/z.parquet: not a whole Parquet file")
    assert not work.out.root.exists()
    (work.root / "in/z.parquet").unlink()
    work.out.put("mine.txt", b"precious")
    says("out: holds files that no `finsight score` wrote, such as mine.txt; name an empty place")
    work.out.remove("mine.txt")
    work.out.put(MANIFEST, b"{}")
    says("_finsight.json: not what `finsight score` writes; name another place")
    with pytest.raises(DataError, match=r"holds no .parquet file; name a folder or a prefix that does"):
        parquet_files(LocalFiles(work.root / "nowhere"))


def test_a_damaged_page_is_one_line_and_the_finished_parts_stay(work: Work) -> None:
    path = work.root / "in/deep/b.parquet"
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"^[^\n]*deep/b.parquet: not a whole Parquet file [^\n]*$"):
        work.score()
    assert len(work.parts()) == 6


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["in", "out.parquet"], "out.parquet: a data set is written to a folder or s3://BUCKET/PREFIX; name one"),
        (["in", "in/scored"], "in/scored: lies in what is read; write to another place"),
        (["in", "in"], "in: lies in what is read; write to another place"),
        (["gone", "out/"], "gone: no such file or folder"),
        (["gone.parquet", "out/"], "gone.parquet: no such file or folder"),
        (["rows.csv", "out", "--engine", "ray"], "rows.csv: a data set is of .parquet files; convert it, or name a file as OUT"),
        (["in", "out", "--address", "auto"], "--address: is that of a Ray cluster; give --engine ray, too"),
    ],
)
def test_a_command_that_can_t_be_is_one_line(work: Work, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str) -> None:
    monkeypatch.chdir(work.root)
    (work.root / "rows.csv").write_text("text\nx\n")
    done = CliRunner().invoke(main, ["score", *arguments, "--graph", "onnx-fp32"])
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {says}")


def test_one_file_beside_others_may_have_its_parts_beside_it(work: Work) -> None:
    source, files, one = data_set.source_files(f"{work.root}/in/a.parquet")
    assert (source.place, list(files), one) == (str(work.root / "in"), ["a.parquet"], "a.parquet")
    assert data_set.target_store(f"{work.root}/in/scored", source, one_file=True).place == str(work.root / "in/scored")
    source, files, one = data_set.source_files(str(work.root / "in"))
    assert (list(files), one) == (["a.parquet", "deep/b.parquet", "empty.parquet"], None)


def test_several_processes_here_would_share_a_gpu() -> None:
    with pytest.raises(ParamsError, match=r"^--workers: got 2, and here one process has the GPU; --engine ray gives each its own, "):
        worker_pool("local", workers=2, gpus=True).__enter__()


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FinsightError, match=r"^Ray is not installed: `pip install 'finsight\[scale\]'`, or leave the engine at local$"):
        data_set.worker_pool("ray").__enter__()


def test_a_worker_refuses_a_bundle_that_its_driver_does_not_mean(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"gone: not there on .*, where a worker runs; put it on a shared folder, or name models:/"):
        data_set.open_model(str(tmp_path / "gone"), "d", "onnx-fp32", 1)
    (tmp_path / "bundle").mkdir()
    with pytest.raises(GateError, match=r"bundle: is another bundle on .*, where a worker runs"):
        data_set.open_model(str(tmp_path / "bundle"), "d", "onnx-fp32", 1)
