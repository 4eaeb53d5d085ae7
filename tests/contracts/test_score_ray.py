"""`finsight score --engine ray`, by a real Ray of its own: the rows and values of the local engine, and nothing lost by a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import Project, starter_rows

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
ROWS = 200_000


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def table(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path, partitioning=None) for path in parts(folder)])


def written(folder: Path, rows: int) -> Path:
    """Two files of headlines, a fifth and the rest, with a row in 5,000 that has no text."""
    folder.mkdir(parents=True)
    given = [row["text"] for row in starter_rows(2800)]
    texts = [None if i % 5000 == 7 else f"{given[i % len(given)]} {i}" for i in range(rows)]
    whole = pa.table({"id": pa.array(range(rows), pa.int64()), "text": texts, "day": pa.array(range(rows), pa.timestamp("s"))})
    pq.write_table(whole.slice(0, rows // 5), folder / "2024.parquet", row_group_size=10_000)
    pq.write_table(whole.slice(rows // 5), folder / "2025.parquet")
    return folder


@contextmanager
def running(project: Project, source: Path | str, target: Path | str, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "finsight.cli", "score", str(source), str(target), "--graph", "onnx-fp32", *options]
    # Ray's workers give way to everything else, and would stand still beside other tests.
    environment = {**os.environ, **project.env, "RAY_worker_niceness": "0"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=project.root, env=environment, text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    return out.strip().splitlines()[-1]  # before it Ray says of a worker that it was killed


def wait_for_parts(process: subprocess.Popen[str], folder: Path, n: int) -> None:
    while len(parts(folder)) < n:
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.05)


def below(process: subprocess.Popen[str]) -> Sequence[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_200_000_rows_equal_the_local_engine_s_and_a_killed_worker_loses_none(finished: Project, tmp_path: Path) -> None:
    source, local, ray = written(tmp_path / "in", ROWS), tmp_path / "local", tmp_path / "ray"
    with running(finished, source, local) as process:
        assert said(process) == f"{local}: {ROWS} rows"
    with running(finished, source, ray, "--engine", "ray", "--workers", "2") as process:
        wait_for_parts(process, ray, 10)
        actors = [one for one in below(process) if "_Actor" in "".join(one.cmdline())]
        assert len(actors) == 2
        actors[0].kill()
        assert said(process) == f"{ray}: {ROWS} rows"
    scored = table(ray)
    assert scored["id"].to_pylist() == list(range(ROWS))
    assert scored["predicted"].null_count == ROWS // 5000
    assert scored.equals(table(local)), "every value, in the same order, in the same parts"
    assert [path.read_bytes() for path in parts(ray)] == [path.read_bytes() for path in parts(local)]
    assert {path.name for path in ray.iterdir()} == {path.name for path in local.iterdir()}


def test_a_killed_driver_is_gone_on_from_in_a_bucket(
    finished: Project, tmp_path: Path, s3: tuple[str, Path], s3_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, root = s3
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    written(root / "headlines/in", 30_000)
    out = root / "headlines/out"
    asked = ("s3://headlines/in", "s3://headlines/out", "--engine", "ray", "--workers", "2")
    with running(finished, *asked) as process:
        wait_for_parts(process, out, 4)
        ended = below(process)
        os.kill(process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(ended, timeout=300)
    assert not alive, "Ray's processes end with their driver"
    before = {path: path.stat().st_mtime_ns for path in parts(out)}
    with running(finished, *asked) as process:
        answer = said(process)
    gone_on = sum(pq.read_metadata(path).num_rows for path in before)
    assert 4 * 2048 <= gone_on < 30_000
    assert answer == f"s3://headlines/out: 30000 rows, {gone_on} of them by an earlier run"
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was done is not done again"
    with running(finished, root / "headlines/in", tmp_path / "local", "--workers", "2") as process:
        said(process)
    assert [path.read_bytes() for path in parts(out)] == [path.read_bytes() for path in parts(tmp_path / "local")]
