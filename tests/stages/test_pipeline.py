"""Each stage as a process of its own: what it writes, that it repeats itself, that a kill does no harm."""

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from conftest import LABELS, REPO, STAGES, Project, starter_rows, write_csv
from finsight.adapters.bundle_classifier import BundleClassifier, runs_here
from finsight.bundle import read_bundle
from finsight.pipeline.run_record import BUNDLE_ARTIFACT
from finsight.pipeline.summary import NEXT
from finsight.pipeline.tables import read_tokens

PIPELINE = YAML(typ="safe").load((REPO / "dvc.yaml").read_text())["stages"]
# What differs from run to run by its nature: speeds and times.
TIMED = {"seconds", "rows_per_second", "texts_per_second", "single_text_p50_ms", "single_text_p99_ms", "cold_start_ms", "peak_memory_mb"}


def outs(stage: str) -> list[str]:
    return [out if isinstance(out, str) else next(iter(out)) for out in PIPELINE[stage]["outs"]]


def untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: untimed(v) for k, v in value.items() if k not in TIMED}
    return value


def fingerprint(project: Project, stage: str) -> dict[str, str]:
    """Digest of every file that a stage wrote; JSON without its times, and only the existence of Data Docs, which bear a date."""
    found: dict[str, str] = {}
    for out in outs(stage):
        path = project.root / out
        assert path.exists(), out
        for file in sorted(p for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file()):
            name = file.relative_to(project.root).as_posix()
            if "data_docs" in name:
                name = f"{out}/…/{file.suffix}"
                content = b""
            elif file.suffix == ".json" and name.startswith("reports/"):
                content = json.dumps(untimed(json.loads(file.read_text()))).encode()
            else:
                content = file.read_bytes()
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def test_the_corpus_table_has_what_the_stages_need(finished: Project) -> None:
    table = pq.read_table(finished.root / "data/raw/corpus.parquet")
    assert table.column_names == ["id", "hash", "text", "label", "corpus", "split", "agreement", "date", "group", "difficulty", "kind"]
    assert table.num_rows == 240
    assert table["id"][0].as_py() == "starter/rows.csv:2"
    assert pq.read_table(finished.root / "data/raw/quarantine.parquet").num_rows == 0


def test_prepared_splits_add_up_and_carry_their_tokens(finished: Project) -> None:
    tables = {s: pq.read_table(finished.root / f"data/prepared/{s}.parquet") for s in ("train", "validation", "test")}
    assert sum(t.num_rows for t in tables.values()) == 240
    ids = [row for t in tables.values() for row in t["id"].to_pylist()]
    assert len(set(ids)) == 240
    tokens = read_tokens(finished.root / "data/prepared/test.arrow")
    assert len(tokens) == tables["test"].num_rows
    assert all(2 < len(row) <= 128 for row in tokens)
    assert (finished.root / "data/prepared/tokenizer/tokenizer.json").is_file()


def test_metrics_can_be_recomputed_from_the_predictions(finished: Project) -> None:
    from sklearn import metrics as sk

    table = pq.read_table(finished.root / "reports/predictions.parquet").to_pydict()
    got = finished.json("metrics.json")
    assert got["n"] == len(table["label"])
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(table["label"], table["predicted"]))
    assert got["macro_f1"] == pytest.approx(sk.f1_score(table["label"], table["predicted"], average="macro"))
    assert got["mcc"] == pytest.approx(sk.matthews_corrcoef(table["label"], table["predicted"]))
    probs = [[table[f"prob_{label}"][i] for label in LABELS] for i in range(got["n"])]
    assert got["nll"] == pytest.approx(sk.log_loss(table["label"], probs, labels=LABELS))
    for i, f1 in enumerate(sk.f1_score(table["label"], table["predicted"], labels=LABELS, average=None)):
        assert got[f"f1_{LABELS[i]}"] == pytest.approx(f1)
    assert got["accuracy_low"] <= got["accuracy"] <= got["accuracy_high"]
    assert got["macro_f1_low"] <= got["macro_f1"] <= got["macro_f1_high"]
    assert all(
        isinstance(value, (int, float))
        for name, value in got.items()
        if name not in ("protocol", "calibration", "baselines", "behaviour", "behaviour_cases")
    )
    for name, beaten in got["baselines"].items():
        assert beaten["accuracy"] == pytest.approx(sk.accuracy_score(table["label"], table[f"baseline_{name}"]))


def test_slices_and_mistakes_are_of_the_predictions(finished: Project) -> None:
    table = pq.read_table(finished.root / "reports/predictions.parquet").to_pydict()
    rows = list(zip(table["text"], table["label"], table["predicted"], strict=True))
    found = finished.json("slices.json")
    number = [label == predicted for text, label, predicted in rows if re.search(r"\d", text)]
    assert found["with number"]["rows"] == len(number)
    assert found["with number"]["accuracy"] == pytest.approx(sum(number) / len(number))
    confused = Counter(f"{label} as {said}" for text, label, said in rows if label != said and re.search(r"\d", text))
    assert found["with number"]["confused"] == confused
    with (finished.root / "reports/mistakes.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert {row["id"] for row in listed} == {i for i, (_, label, predicted) in zip(table["id"], rows, strict=True) if label != predicted}
    assert [float(row["confidence"]) for row in listed] == sorted((float(row["confidence"]) for row in listed), reverse=True)


def test_the_temperature_goes_from_validation_into_the_bundle(finished: Project) -> None:
    from finsight.adapters.torch_classifier import TorchClassifier
    from finsight.domain.calibration import temperature
    from finsight.domain.metrics import softmax

    checkpoint = TorchClassifier(finished.root / "models/checkpoint", 128)
    validation = pq.read_table(finished.root / "data/prepared/validation.parquet")
    logits = checkpoint.logits(validation["text"].to_pylist())
    expected = temperature(validation["label_id"].to_numpy().astype(int), logits)
    manifest = json.loads((finished.root / "models/bundle/bundle.json").read_text())
    calibration = finished.json("metrics.json")["calibration"]
    assert manifest["temperature"] == calibration["temperature"] == pytest.approx(expected, rel=1e-4)
    assert manifest["abstain_below"] == calibration.get("abstain_below")
    predicted = pq.read_table(finished.root / "reports/predictions.parquet").to_pydict()
    served = softmax(BundleClassifier(finished.root / "models/bundle").logits(predicted["text"]))
    assert served[:, 0] == pytest.approx(predicted["prob_negative"], abs=1e-4)
    assert served[:, 0] != pytest.approx(softmax(checkpoint.logits(predicted["text"]))[:, 0], abs=1e-3), "it does something"


def test_nothing_pickled_is_written(finished: Project) -> None:
    suffixes = {p.suffix for folder in ("models", "reports", "data") for p in (finished.root / folder).rglob("*") if p.is_file()}
    assert not suffixes & {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".ckpt"}
    assert ".safetensors" in suffixes


def test_data_docs_open_with_a_page(finished: Project) -> None:
    page = (finished.root / "reports/data_docs/index.html").read_text()
    for suite in ("columns of the corpus", "all corpora", "corpus starter"):
        assert suite in page


def test_the_bundle_carries_no_trace_of_this_machine(finished: Project) -> None:
    for path in (finished.root / "models/bundle").iterdir():
        content = path.read_bytes()
        assert str(REPO).encode() not in content, path.name
        assert b"site-packages" not in content, path.name


def test_registration_names_version_and_alias(finished: Project) -> None:
    found = finished.json("registration.json")
    assert (found["version"], found["aliases"]) == (1, ["champion"])
    assert found["bundle_sha256"] == finished.json("export.json")["bundle_sha256"]


def kill(project: Project, stage: str, target: str, call: int) -> None:
    """Run a stage that gets SIGKILL just before a call of a function."""
    python, script, *arguments = project.command(stage)
    command = [python, str(REPO / "tests/kill.py"), target, str(call), script, *arguments]
    done = subprocess.run(command, cwd=project.root, env={**os.environ, **project.env}, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, f"the stage ended before the signal: {done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    ("stage", "target", "call"),
    [
        ("ingest", "pathlib:Path.replace", 1),
        ("ingest", "pathlib:Path.replace", 3),
        ("validate", "pathlib:Path.replace", 1),
        pytest.param("prepare", "pyarrow.parquet:ParquetWriter.write_table", 2, marks=pytest.mark.long),
        ("prepare", "pathlib:Path.replace", 2),
        ("train", "torch.optim:AdamW.step", 2),
        ("train", "pathlib:Path.replace", 1),
        pytest.param("train", "pathlib:Path.replace", 3, marks=pytest.mark.long),
        pytest.param("evaluate", "pathlib:Path.replace", 1, marks=pytest.mark.long),
        ("evaluate", "pathlib:Path.replace", 3),
        pytest.param("export", "torch.onnx:export", 1, marks=pytest.mark.long),
        ("export", "pathlib:Path.replace", 2),
        ("report", "pathlib:Path.replace", 2),
        ("register", "pathlib:Path.replace", 1),
    ],
)
def test_a_stage_killed_and_run_again_gives_the_same_outputs(
    stage: str, target: str, call: int, finished: Project, copy_of: Callable[[Project], Project]
) -> None:
    project = copy_of(finished)
    expected = fingerprint(project, stage)
    for out in outs(stage):  # DVC removes the outputs before it runs a stage
        path = project.root / out
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    kill(project, stage, target, call)
    for out in outs(stage):
        path = project.root / out
        if path.is_file() and path.suffix == ".json":
            json.loads(path.read_text())  # whole, if there
    project.run(stage)
    assert fingerprint(project, stage) == expected
    assert not [p for folder in ("data", "models", "reports") for p in (project.root / folder).rglob("*.partial")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("target", "call"),
    [
        ("alembic.operations:Operations.create_table", 10),  # while the database is made
        ("mlflow:MlflowClient.log_batch", 3),  # while the run is rebuilt
        ("mlflow:MlflowClient.log_artifacts", 1),
        ("mlflow:MlflowClient.set_terminated", 2),
        ("mlflow:MlflowClient.create_model_version", 1),
        ("mlflow:MlflowClient.set_registered_model_alias", 1),
    ],
)
def test_a_registration_killed_at_any_step_ends_in_one_version_and_one_champion(
    target: str, call: int, finished: Project, copy_of: Callable[[Project], Project]
) -> None:
    from mlflow import MlflowClient

    project = copy_of(finished)
    project.env["MLFLOW_TRACKING_URI"] = uri = f"sqlite:///{project.root}/new/mlflow.db"
    (project.root / "new").mkdir()
    kill(project, "register", target, call)
    project.run("register")
    project.run("register")
    client = MlflowClient(uri)
    (version,) = client.search_model_versions("name = 'finsight'")
    assert client.get_model_version_by_alias("finsight", "champion").version == version.version
    experiment = client.get_experiment_by_name("finsight")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.`finsight.state` = 'registered' and attributes.status = 'FINISHED'")
    assert run.info.run_id == version.run_id
    assert {f.path for f in client.list_artifacts(run.info.run_id, BUNDLE_ARTIFACT)} == {
        f"{BUNDLE_ARTIFACT}/{p.name}" for p in (project.root / "models/bundle").iterdir()
    }


def test_registering_twice_makes_one_version(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(finished)
    before = (project.root / "reports/registration.json").read_bytes()
    project.run("register")
    assert (project.root / "reports/registration.json").read_bytes() == before


def test_inside_an_experiment_a_run_is_logged_and_no_version_made(make_project: Callable[[str], Project], finished: Project) -> None:
    project = make_project("experiment")
    for folder in ("data", "models", "reports"):
        shutil.copytree(finished.root / folder, project.root / folder, dirs_exist_ok=True)
    project.env["DVC_EXP_NAME"] = "warm-lamp"
    project.run("register")
    found = project.json("registration.json")
    assert (found["version"], found["aliases"], found["experiment"]) == (None, [], "warm-lamp")
    run = found["run"]
    project.set(register__experiments=True)
    project.run("register")
    found = project.json("registration.json")
    assert (found["version"], found["aliases"], found["run"]) == (1, ["champion"], run)


def test_a_run_that_the_tracker_does_not_have_is_rebuilt_from_the_files(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    from mlflow import MlflowClient

    project = copy_of(finished)
    project.env["MLFLOW_TRACKING_URI"] = uri = f"sqlite:///{project.root}/other.db"
    project.run("register")
    client = MlflowClient(uri)
    run = client.get_run(project.json("registration.json")["run"])
    assert run.data.params["train.epochs"] == "1"
    assert run.data.metrics["test_accuracy"] == project.json("metrics.json")["accuracy"]
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train_loss")] == [1]
    assert {f.path for f in client.list_artifacts(run.info.run_id)} == {"inputs", "model", "provenance", "reports"}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_every_epoch_is_logged_while_training_and_register_completes_that_run(
    finished: Project, copy_of: Callable[[Project], Project]
) -> None:
    from mlflow import MlflowClient

    project = copy_of(finished)
    project.env["MLFLOW_TRACKING_URI"] = uri = f"sqlite:///{project.root}/other.db"
    project.set(train__epochs=2)
    project.run("train")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("finsight")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert [m.step for m in client.get_metric_history(run.info.run_id, "validation_macro_f1")] == [1, 2]
    project.run("evaluate", "export", "register")
    assert project.json("registration.json")["run"] == run.info.run_id
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_a_backbone_that_changed_since_it_was_tokenised_for_is_refused(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(finished)
    other = Path(shutil.copytree(project.backbone, project.root / "other"))
    project.set(train__backbone=str(other))
    project.run("prepare")
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert "its files have changed: run `dvc repro --force prepare`" in project.fail("train")


@pytest.mark.long
def test_a_second_bundle_becomes_challenger_and_says_how_it_differs(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    from mlflow import MlflowClient

    project = copy_of(finished)
    project.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.root}/other.db"
    project.run("register")
    project.set(train__seed=7)
    project.run("train", "evaluate", "export", "register")
    found = project.json("registration.json")
    assert (found["version"], found["aliases"]) == (2, ["challenger"])
    run = MlflowClient(project.env["MLFLOW_TRACKING_URI"]).get_run(found["run"])
    before, after = (json.loads((p.root / "reports/metrics.json").read_text()) for p in (finished, project))
    for name in ("accuracy", "macro_f1", "ece"):
        assert run.data.metrics[f"delta.{name}"] == pytest.approx(after[name] - before[name])
    assert re.match(r"this model .* in macro_f1: ", run.data.tags["verdict"])
    kept = {f.path for f in MlflowClient(project.env["MLFLOW_TRACKING_URI"]).list_artifacts(run.info.run_id, "reports")}
    assert {"reports/comparison.md", "reports/report.html", "reports/model_card.md"} <= kept


def test_a_champion_that_tells_too_little_does_not_stop_a_registration(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    from mlflow import MlflowClient

    project = copy_of(finished)
    project.env["MLFLOW_TRACKING_URI"] = uri = f"sqlite:///{project.root}/other.db"
    client = MlflowClient(uri)
    client.create_registered_model("finsight")
    run = client.create_run("0")
    client.create_model_version("finsight", str(project.root), run.info.run_id, tags={"finsight.bundle": "0" * 64})
    client.set_registered_model_alias("finsight", "champion", "1")
    project.run("register")
    found = project.json("registration.json")
    assert (found["version"], found["aliases"]) == (2, ["challenger"])
    assert client.get_run(found["run"]).data.tags["verdict"].startswith("not compared with version 1: run ")


@pytest.mark.long
def test_training_survives_a_tracker_that_does_not_answer(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(finished)
    project.env["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    with project.start("train") as process:
        _, err = process.communicate()
    assert process.returncode == 0
    assert "warning: MLflow at http://127.0.0.1:9: Connection refused" in err
    assert "training goes on" in err
    project.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.root}/new.db"
    project.run("evaluate", "export", "register")
    assert project.json("registration.json")["version"] == 1


def test_a_required_format_that_is_not_the_checkpoint_stops_the_export(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(finished)
    before = {p.name: p.read_bytes() for p in (project.root / "models/bundle").iterdir()}
    project.set(export__gates__reduced__max_abs_diff=1e-9, export__formats=["onnx-int8", "onnx-fp32"])
    line = project.fail("export")
    assert "models/bundle: not written" in line
    assert "since onnx-int8, the first of export.formats: on the 48 test rows max_abs_diff is" in line
    assert {p.name: p.read_bytes() for p in (project.root / "models/bundle").iterdir()} == before


def test_another_format_outside_its_limits_is_left_out_with_the_reason(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(finished)
    project.set(export__gates__reduced__max_abs_diff=1e-9, export__formats=["onnx-fp32", "onnx-int8"])
    project.run("export")
    report = project.json("export.json")
    assert list(report["formats"]) == ["onnx-fp32"]
    assert "at most 1e-09 is allowed" in report["left_out"]["onnx-int8"]
    assert list(read_bundle(project.root / "models/bundle").graphs) == ["onnx-fp32"]
    assert not (project.root / "models/bundle/model.int8.onnx").exists()


def test_a_trimmed_vocabulary_answers_as_before_to_texts_that_it_was_made_from(
    finished: Project, copy_of: Callable[[Project], Project]
) -> None:
    project = copy_of(finished)
    whole = (project.root / "models/bundle/model.fp32.onnx").stat().st_size
    loose = {"max_abs_diff": 1.0, "label_flip_rate": 1.0, "macro_f1_loss": 1.0}
    project.set(export__vocabulary="corpora", export__gates__fp32=loose, export__formats=["onnx-fp32"])
    project.run("export")
    bundle = project.root / "models/bundle"
    assert (bundle / "model.fp32.onnx").stat().st_size < whole
    tokens, before = (json.loads((p / "tokenizer.json").read_text())["model"]["vocab"] for p in (bundle, finished.root / "models/bundle"))
    assert len(tokens) < len(before)
    texts = pq.read_table(project.root / "data/prepared/train.parquet", columns=["text"])["text"].to_pylist()
    ours, theirs = (BundleClassifier(p.root / "models/bundle", "onnx-fp32").logits(texts) for p in (project, finished))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    BundleClassifier(bundle, "onnx-fp32").logits(["Zyxomma quoxified the 🙂 thrubbing", "הרווח"])


@pytest.mark.skipif(runs_here("openvino-bf16"), reason="this processor has bfloat16")
def test_a_required_format_that_this_host_cannot_compute_is_refused(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(finished)
    project.set(export__formats=["openvino-bf16", "onnx-fp32"])
    assert "openvino-bf16, the first of export.formats, can't be run here; put another one first" in project.fail("export")


@pytest.mark.long
def test_a_users_own_labels_go_all_the_way(make_project: Callable[[str], Project]) -> None:
    project = make_project("labels")
    mapped = {"negative": "down", "neutral": "down", "positive": "up"}
    write_csv(project.root / "data/starter/rows.csv", [{**row, "label": mapped[row["label"]]} for row in starter_rows(240)])
    project.set(labels=["down", "up"])
    assert "polarity: got ['negative', 'neutral', 'positive'], expected a number for each of ['down', 'up']" in project.fail("ingest")
    project.set(polarity={})
    project.run(*STAGES)
    manifest = json.loads((project.root / "models/bundle/bundle.json").read_text())
    assert (manifest["labels"], manifest["polarity"]) == (["down", "up"], {})
    metrics = project.json("metrics.json")
    assert {"f1_down", "f1_up"} <= set(metrics)
    assert "ordinal_error" not in metrics
    summary = subprocess.run(
        [sys.executable, "-m", "finsight.cli", "summary"], cwd=project.root, capture_output=True, text=True, check=True
    ).stdout
    assert "ordinal error   off: params.yaml states no polarity" in summary


def test_a_correction_changes_a_label_and_is_counted(make_project: Callable[[str], Project]) -> None:
    project = make_project("corrections")
    project.run("ingest", "validate")
    rows = pq.read_table(project.root / "data/raw/corpus.parquet").to_pylist()
    path = project.root / "data/corrections.csv"
    other = "negative" if rows[7]["label"] != "negative" else "positive"
    # The list of suspects is itself a file of corrections: those that are left as they are count as confirmed.
    suspects = (project.root / "reports/suspects.csv").read_text()
    path.write_text(f"hash,label\n{rows[7]['hash']},{other}\n{rows[8]['hash']},\n{'0' * 32},neutral\n")
    project.run("ingest")
    changed = {row["id"]: row["label"] for row in pq.read_table(project.root / "data/raw/corpus.parquet").to_pylist()}
    assert project.json("ingest.json")["corrections"] == {"changed": 1, "left_out": 1, "confirmed": 0, "unmatched": 1}
    assert changed[rows[7]["id"]] == other
    assert rows[8]["id"] not in changed
    path.write_text(suspects)
    project.run("ingest")
    found = project.json("ingest.json")["corrections"]
    assert found["confirmed"] == suspects.count("\n") - 1 > 0
    assert found["changed"] == found["left_out"] == 0


def test_the_protocol_travels_from_prepare_to_the_registry(finished: Project) -> None:
    from mlflow import MlflowClient

    stamp = finished.json("prepare.json")["protocol"]
    assert stamp == finished.json("metrics.json")["protocol"]
    assert stamp == json.loads((finished.root / "models/bundle/bundle.json").read_text())["protocol"]
    assert (stamp["kind"], stamp["contaminated"]) == ("in-domain", [])
    version = MlflowClient(finished.env["MLFLOW_TRACKING_URI"]).get_model_version_by_alias("finsight", "champion")
    assert version.tags["protocol"] == "in-domain (starter: stratified, seed 42); no leaks"
    assert version.tags["contaminated"] == "no"


def test_quarantined_rows_are_kept_with_reason_and_position(make_project: Callable[[str], Project]) -> None:
    project = make_project("quarantine")
    rows = starter_rows(240)
    rows[3]["text"], rows[5]["label"] = " ", "bullish"
    path = write_csv(project.root / "data/starter/rows.csv", rows)
    with path.open("a") as file:
        file.write("only one column\r\n")
    project.set(ingest__max_quarantined=0.02)
    project.run("ingest")
    table = pq.read_table(project.root / "data/raw/quarantine.parquet").to_pydict()
    assert table["id"] == ["starter/rows.csv:5", "starter/rows.csv:7", "starter/rows.csv:242"]
    assert table["reason"] == [
        "empty text",
        "label 'bullish' is not in ['negative', 'neutral', 'positive']",
        "1 columns where the header has 4",
    ]
    report = project.json("ingest.json")
    assert (report["rows"], report["quarantined"]) == (238, 3)


def test_export_twice_is_byte_equal(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    project = copy_of(finished)
    before = fingerprint(project, "export")
    (project.root / "models/bundle/bundle.json").unlink()
    project.run("export")
    assert fingerprint(project, "export") == before


def test_the_summary_says_what_a_person_wants_to_know(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from finsight.cli import main

    monkeypatch.chdir(finished.root)
    metrics = finished.json("metrics.json")
    text = CliRunner().invoke(main, ["summary"]).output
    assert f"{metrics['accuracy']:.3f} ({metrics['accuracy_low']:.3f}–{metrics['accuracy_high']:.3f})" in text
    assert "finsight version 1, champion" in text
    assert all(f"    {command}" in text for command, _ in NEXT)
    markdown = CliRunner().invoke(main, ["summary", "--markdown"]).output
    assert markdown.startswith("| corpus | backbone |")
    assert f"| starter | {finished.backbone} | {metrics['n']} |" in markdown


def test_the_summary_says_in_red_what_is_not_beaten(
    finished: Project, copy_of: Callable[[Project], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from finsight.cli import main

    project = copy_of(finished)
    monkeypatch.chdir(project.root)
    path = project.root / "reports/metrics.json"
    content = json.loads(path.read_text())
    for low, red in ((-0.01, True), (0.01, False)):
        content["baselines"] = {"linear": content["baselines"]["linear"] | {"low": low}}
        path.unlink()
        path.write_text(json.dumps(content))
        output = CliRunner().invoke(main, ["summary"], color=True).output
        assert ("\x1b[31m" in output) == red
        assert ("NOT BEATEN by the model" in output) == red


def test_explain_says_what_each_word_does(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from finsight.cli import main

    monkeypatch.chdir(finished.root)
    told = json.loads(CliRunner().invoke(main, ["predict", "--json", "Profit rose sharply"]).output)
    result = CliRunner().invoke(main, ["explain", "--json", "Profit rose sharply"])
    found = json.loads(result.output)
    assert (found["label"], [word for word, _ in found["words"]]) == (told["label"], ["Profit", "rose", "sharply"])
    assert found["probability"] == pytest.approx(told["probabilities"][told["label"]], abs=1e-5)
    less = json.loads(CliRunner().invoke(main, ["predict", "--json", "Profit sharply"]).output)
    assert found["words"][1][1] == pytest.approx(found["probability"] - less["probabilities"][found["label"]], abs=1e-5)
    shown = CliRunner().invoke(main, ["explain", "--label", "neutral", "Profit rose sharply"]).output.splitlines()
    assert shown[0].startswith("neutral ")
    assert len(shown) == 4
    wrong = CliRunner().invoke(main, ["explain", "--label", "nosuch", "x"])
    assert wrong.exit_code == 1
    assert "error: --label: 'nosuch' is none of the model's labels" in wrong.output


def test_predict_reads_arguments_and_standard_input(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from finsight.cli import main

    monkeypatch.chdir(finished.root)
    table = CliRunner().invoke(main, ["predict", "Profit rose", "Profit fell"]).output.splitlines()
    assert len(table) == 3
    assert table[1].endswith("  Profit rose")
    lines = CliRunner().invoke(main, ["predict", "--json"], input="Profit rose\n\nProfit fell\n").output.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [a["text"] for a in answers] == ["Profit rose", "Profit fell"]
    assert all(sum(a["probabilities"].values()) == pytest.approx(1, abs=1e-5) for a in answers)
    for answer in answers:
        assert answer["score"] == pytest.approx(answer["probabilities"]["positive"] - answer["probabilities"]["negative"], abs=1e-5)


def test_the_example_in_the_docs_runs_without_torch(finished: Project) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (REPO / "docs/predicting.md").read_text(), re.DOTALL)
    code += "\nimport sys\nprint(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=finished.root, capture_output=True, text=True, check=True)
    *told, imported = done.stdout.splitlines()
    assert imported == "[]"
    assert [line.split()[0] in LABELS for line in told] == [True, True]


def test_a_killed_score_goes_on_from_its_last_shard(finished: Project, tmp_path: Path) -> None:
    """Killed in the middle with SIGKILL, then run again: each row once, in its order."""
    n = 20_000
    with (tmp_path / "in.csv").open("w") as file:
        file.write("id,headline\n")
        file.writelines(f'{i},"Profit rose {i} times, more or less"\n' for i in range(n))
    command = [sys.executable, "-m", "finsight.cli", "score", str(tmp_path / "in.csv"), str(tmp_path / "out.parquet"), "--text", "headline"]
    running = subprocess.Popen(command, cwd=finished.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts = tmp_path / "out.parquet.parts"
    until = time.monotonic() + 120
    while len(list(parts.glob("*.parquet"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    running.kill()
    running.wait()
    there = len(list(parts.glob("*.parquet")))
    assert 2 <= there < n / 2048, "it was killed in the middle"
    done = subprocess.run(command, cwd=finished.root, capture_output=True, text=True, check=True)
    assert f"{n} rows, {there * 2048} of them by an earlier run" in done.stdout
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["id"].to_pylist() == [str(i) for i in range(n)]
    assert table["predicted"].null_count == 0
    assert not parts.exists()


def test_verify_refuses_a_flipped_byte_in_every_file_that_the_manifest_lists(
    finished: Project, copy_of: Callable[[Project], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from finsight.cli import main

    project = copy_of(finished)
    monkeypatch.chdir(project.root)
    assert CliRunner().invoke(main, ["verify"]).exit_code == 0
    listed = json.loads(Path("models/bundle/bundle.json").read_text())["files"]
    assert len(listed) == 3
    for path in (Path("models/bundle") / name for name in listed):
        original = path.read_bytes()
        content = bytearray(original)
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        result = CliRunner().invoke(main, ["verify"])
        assert result.exit_code == 1, path
        assert "error: " in result.output
        path.write_bytes(original)
