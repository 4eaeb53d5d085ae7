"""What a stage leaves for Prometheus: a file, or a group of a real Pushgateway."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from conftest import REPO
from finsight.adapters.stage_metrics import Gateway, Receiver, TextFiles, measured
from finsight.errors import DataError, ParamsError, StoppedError
from monitors import pushgateway

Value = Callable[..., float | None]


def values(text: str) -> Value:
    """A sample of a text by its name and labels; None where there is none."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(name: str, **labels: str) -> float | None:
        found = [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]
        assert len(found) < 2, f"{name} is there {len(found)} times"
        return found[0] if found else None

    return value


@pytest.fixture(params=["file", "gateway"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Receiver, Callable[[], Value]]]:
    """A receiver, and what it has."""
    if request.param == "file":
        yield TextFiles(tmp_path), lambda: values((tmp_path / "export.prom").read_text())
        return
    with pushgateway() as url:
        yield Gateway(url), lambda: values(httpx.get(f"{url}/metrics").text)


def run(receiver: Receiver, report: Path | None = None, error: BaseException | None = None) -> list[str]:
    warnings: list[str] = []
    try:
        with measured("export", report, [receiver], warnings):
            if error:
                raise error
    except (DataError, StoppedError):
        pass
    return warnings


def test_runs_are_counted_over_processes_and_what_the_last_success_said_stays(
    kept: tuple[Receiver, Callable[[], Value]], tmp_path: Path
) -> None:
    receiver, read = kept
    report = tmp_path / "export.json"
    formats = {"onnx-fp32": {"label_flip_rate": 0.0, "texts_per_second": 400.5}}
    content = {"formats": formats, "left_out": {"onnx-int8": "it differs"}, "not_run": {}, "not_started": {}, "bytes": 1000}
    report.write_text(json.dumps(content))
    assert run(receiver, report) == []
    value = read()
    assert value("finsight_export_format", format="onnx-int8", outcome="left_out") == 1
    assert value("finsight_export_bundle_bytes") == 1000
    assert value("finsight_stage_runs_total", outcome="failed") == 0
    succeeded = value("finsight_stage_last_success_timestamp_seconds")
    assert succeeded
    assert abs(succeeded - time.time()) < 60
    assert run(receiver, None, DataError("no")) == run(receiver, None, StoppedError("stop")) == []
    assert run(receiver, report) == []
    assert run(receiver, None, DataError("no")) == []
    value = read()
    assert [value("finsight_stage_runs_total", stage="export", outcome=one) for one in ("succeeded", "failed", "stopped")] == [2, 2, 1]
    assert value("finsight_stage_last_run_succeeded", stage="export") == 0
    assert value("finsight_export_bundle_bytes") == 1000
    again = value("finsight_stage_last_success_timestamp_seconds")
    assert again
    assert again > succeeded


def test_runs_at_the_same_time_are_all_counted_in_a_file(tmp_path: Path) -> None:
    receiver = TextFiles(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: run(receiver), range(40)))
    value = values((tmp_path / "export.prom").read_text())
    assert value("finsight_stage_runs_total", outcome="succeeded") == 40
    assert not list(tmp_path.glob("*.partial"))


def test_a_file_that_somebody_else_wrote_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "export.prom").write_bytes(b"{{{ no metrics\xff\n")
    assert run(TextFiles(tmp_path)) == []
    assert values((tmp_path / "export.prom").read_text())("finsight_stage_runs_total", outcome="succeeded") == 1


def test_a_receiver_that_is_away_is_a_line_and_no_failure(tmp_path: Path) -> None:
    (line,) = run(Gateway("http://127.0.0.1:9"))
    assert line.startswith("FINSIGHT_PUSHGATEWAY: 127.0.0.1:9 does not take metrics (")
    (tmp_path / "file").touch()
    assert len(run(TextFiles(tmp_path / "file"))) == 1


@pytest.mark.parametrize("address", ["gateway:9091", "file:///etc/passwd", "http://", "http://[", "http://who:secret@host:9091"])
def test_no_address_of_a_gateway(address: str) -> None:
    with pytest.raises(ParamsError) as refused:
        Gateway(address)
    assert "secret" not in str(refused.value)


SCRIPT = """
import sys, time
from pathlib import Path
import click
from finsight.command import PATH, edge
from finsight.errors import DataError

@click.command()
@click.option("--report", type=PATH)
@click.option("--then")
@edge
def main(report, then):
    if then == "fail":
        raise DataError("this is why")
    if then == "hang":
        print("hangs", flush=True)
        time.sleep(60)
    report.write_text('{"splits": {"train": {"rows": 7}}}')

main()
"""


def stage(folder: Path, then: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = folder / "stages/prepare.py"
    script.parent.mkdir(exist_ok=True)
    (folder / "dvc.yaml").touch()
    script.write_text(SCRIPT)
    command = [sys.executable, "stages/prepare.py", "--report", "prepare.json", "--then", then]
    return subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)


def test_a_stage_leaves_its_file_where_the_variable_says(tmp_path: Path) -> None:
    assert stage(tmp_path, "work").returncode == 0
    assert not list(tmp_path.rglob("*.prom"))  # nobody asked for it
    assert stage(tmp_path, "work", FINSIGHT_METRICS_DIR="kept").returncode == 0
    failed = stage(tmp_path, "fail", FINSIGHT_METRICS_DIR="kept")
    assert (failed.returncode, failed.stderr) == (1, "error: this is why\n")
    value = values((tmp_path / "kept/prepare.prom").read_text())
    assert [value("finsight_stage_runs_total", stage="prepare", outcome=one) for one in ("succeeded", "failed")] == [1, 1]
    assert value("finsight_split_rows", split="train") == 7
    assert stage(tmp_path, "work", FINSIGHT_METRICS_DIR="kept", LOCAL_RANK="0").returncode == 0  # one of several of one run
    assert values((tmp_path / "kept/prepare.prom").read_text())("finsight_stage_runs_total", outcome="succeeded") == 1


@pytest.mark.long
def test_an_experiment_leaves_its_file_in_the_clone_and_not_in_its_copy(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    copy = tmp_path / ".dvc/tmp/exps/standalone/tmp1"
    copy.mkdir(parents=True)
    assert stage(copy, "work", FINSIGHT_METRICS_DIR="kept").returncode == 0
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.prom")] == [Path("kept/prepare.prom")]


@pytest.mark.long
def test_a_gateway_that_is_away_is_a_warning_of_the_stage(tmp_path: Path) -> None:
    done = stage(tmp_path, "work", FINSIGHT_PUSHGATEWAY="http://127.0.0.1:9")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: FINSIGHT_PUSHGATEWAY: 127.0.0.1:9 does not take metrics")
    wrong = stage(tmp_path, "work", FINSIGHT_PUSHGATEWAY="gateway")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)


@pytest.mark.long
def test_a_stage_that_is_interrupted_is_counted_as_stopped(tmp_path: Path) -> None:
    stage(tmp_path, "fail")
    command = [sys.executable, "stages/prepare.py", "--then", "hang"]
    environment = {**os.environ, "FINSIGHT_METRICS_DIR": str(tmp_path)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    assert process.stdout.readline() == b"hangs\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert values((tmp_path / "prepare.prom").read_text())("finsight_stage_runs_total", outcome="stopped") == 1


def test_every_stage_with_a_report_has_numbers_of_it_where_the_reports_are_as_committed() -> None:
    from finsight.adapters.stage_report import numbers

    called = {"validate": "validation", "evaluate": "metrics"}
    for name in ("ingest", "validate", "prepare", "train", "evaluate", "export"):
        found = numbers(name, REPO / "reports" / f"{called.get(name, name)}.json")
        assert found, name
        assert all(family.samples for family in found), name
