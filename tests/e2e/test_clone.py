"""A fresh clone, the real `dvc`, and what a DVC user does with them. The backbone is tiny, everything else is real."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from clones import BIN, Clone, copy_tree, environment
from conftest import LOOSE_INT8, Project, starter_rows, write_csv
from servers import free_port, wait_for


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Clone:
    """The tree with 240 rows and the tiny backbone, reproduced and committed."""
    run = copy_tree(tmp_path_factory.mktemp("clone") / "finsight", leave_out=("data/starter/",))
    root = run.root
    write_csv(root / "data/starter/rows.csv", starter_rows(240))
    tiny = {"train__backbone": str(tiny_backbone), "train__epochs": 1, "train__lr": 0.01, "train__threads": 1}
    Project(root, tiny_backbone).set(**tiny, export__gates=LOOSE_INT8)
    run("git", "add", "-A")
    run("git", "commit", "-qm", "first")
    output = run("dvc", "repro")
    assert run.ran(output) == ["ingest", "validate", "prepare", "train", "evaluate", "export", "report", "register"]
    run("git", "add", "-A")
    run("git", "commit", "-qm", "reproduced")
    return run


def test_a_second_repro_runs_register_only_and_changes_nothing(clone: Clone) -> None:
    before = [(clone.root / name).read_bytes() for name in ("dvc.lock", "reports/registration.json")]
    assert clone.ran(clone("dvc", "repro")) == ["register"]
    assert [(clone.root / name).read_bytes() for name in ("dvc.lock", "reports/registration.json")] == before
    assert clone("git", "status", "--porcelain") == ""


def test_status_names_register_alone(clone: Clone) -> None:
    assert clone("dvc", "status", "--json").strip() == '{"register": ["always changed"]}'


def test_what_dvc_users_look_at(clone: Clone) -> None:
    assert "register" in clone("dvc", "dag")
    metrics = json.loads(clone("dvc", "metrics", "show", "--json"))
    assert metrics[""]["data"]["reports/metrics.json"]["data"]["n"] == 48
    page = clone("dvc", "plots", "show").strip()
    assert "Loss by epoch" in Path(page.removeprefix("file://")).read_text()
    assert "Confusion matrix" in Path(page.removeprefix("file://")).read_text()


def test_what_the_extension_for_vs_code_asks_for(clone: Clone) -> None:
    """The three commands that it reads; source: github.com/iterative/vscode-dvc, extension/src/cli/dvc/reader.ts."""
    listed = YAML(typ="safe").load((clone.root / "dvc.yaml").read_text())
    (clone.root / ".dvc/tmp/plots").mkdir(parents=True, exist_ok=True)
    drawn = json.loads(clone("dvc", "plots", "diff", "HEAD", "-o", ".dvc/tmp/plots", "--split", "--json"))
    assert "errors" not in drawn
    assert set(drawn["data"]) == {name for plot in listed["plots"] for name in plot}
    for name, (plot,) in drawn["data"].items():
        assert (plot["type"], set(plot["revisions"])) == ("vega", {"workspace", "HEAD"}), name
        assert plot["anchor_definitions"]["<DVC_METRIC_DATA>"], name
    for row in json.loads(clone("dvc", "exp", "show", "--num", "1", "--json")):
        assert row.get("error") is None
        metrics = row["data"]["metrics"]
        assert set(metrics) == set(listed["metrics"])
        assert all(found.get("error") is None for found in metrics.values())
        assert 0 <= metrics["reports/metrics.json"]["data"]["behaviour"]["negation"] <= 1
        assert row["data"]["params"]["params.yaml"]["data"]["train"]["epochs"] == 1
    status = json.loads(clone("dvc", "data", "status", "--granular", "--unchanged", "--json"))
    assert "models/bundle/" in status["unchanged"]
    assert not status.get("not_in_cache")


@pytest.mark.long
def test_an_experiment_is_shown_compared_applied_and_makes_no_version(clone: Clone) -> None:
    try:
        output = clone("dvc", "exp", "run", "-n", "slow", "-S", "train.lr=3e-5")
        assert clone.ran(output) == ["train", "evaluate", "export", "report", "register"]
        registration = json.loads((clone.root / "reports/registration.json").read_text())
        assert (registration["version"], registration["experiment"]) == (None, "slow")
        assert "slow" in clone("dvc", "exp", "show", "--csv")
        assert json.loads(clone("dvc", "params", "diff", "--json"))["params.yaml"]["train.lr"] == {
            "old": 0.01,
            "new": 3e-05,
            "diff": 3e-05 - 0.01,
        }
        assert "reports/metrics.json" in clone("dvc", "metrics", "diff", "--json", "HEAD")
        said = clone("finsight", "compare", "--base", "HEAD", "--new", "slow")
        assert "macro_f1" in said
        assert re.search(r"train\.lr +0\.01 +3e-05", said)
        slow, here = (json.loads(clone("finsight", "compare", "--new", new, "--format", "json")) for new in ("slow", "workspace"))
        assert slow == {**here, "new": "slow"}
        clone("git", "reset", "-q", "--hard")
        clone("dvc", "checkout", "-q")
        clone("dvc", "exp", "apply", "slow")
        assert "lr: 3e-05" in (clone.root / "params.yaml").read_text()
        assert clone.ran(clone("dvc", "repro")) == ["register"]
        registration = json.loads((clone.root / "reports/registration.json").read_text())
        assert (registration["version"], registration["aliases"]) == (2, ["challenger"])
        champion = json.loads(clone("finsight", "compare", "--base", "champion", "--format", "json"))
        assert champion["base"] == "finsight version 1"
        assert champion["metrics"] == json.loads(clone("finsight", "compare", "--base", "1", "--new", "2", "--format", "json"))["metrics"]
    finally:
        clone("git", "reset", "-q", "--hard")
        clone("dvc", "checkout", "-q")


@pytest.mark.long
def test_a_running_experiment_is_followed_from_another_terminal(clone: Clone) -> None:
    curves = clone.root / "reports/plots/curves.csv"
    running = subprocess.Popen(
        ["dvc", "exp", "run", "-S", "train.epochs=500"], cwd=clone.root, env=clone.env, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        end = time.monotonic() + 120
        while not curves.exists() or curves.read_text().count("\n") < 3:  # what git has is replaced when the stage begins
            assert time.monotonic() < end, "no epoch was seen"
            time.sleep(0.1)
        rows = json.loads(clone("dvc", "exp", "show", "--json"))
        shown = next(row for row in rows if row["rev"] == "workspace")["data"]["metrics"]["reports/train.json"]["data"]
        assert shown["epoch"] >= 2
        assert 0 <= shown["validation_macro_f1"] <= 1
        assert "Validation by epoch" in Path(clone("dvc", "plots", "show").strip().removeprefix("file://")).read_text()
        assert running.poll() is None
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        clone("git", "reset", "-q", "--hard")
        clone("dvc", "checkout", "-q", "--force")  # the log of the killed run is in no cache


def test_the_gates_decide_how_a_comparison_ends(clone: Clone) -> None:
    try:
        said = clone("finsight", "compare", "--output", "comment.md", "--format", "markdown")
        assert said == ""
        assert "gates passed" in (clone.root / "comment.md").read_text()
        Project(clone.root, Path()).set(gates__primary="better", gates__at_most={"ece": 0.0})
        said = clone("make", "diff", "BIN=" + str(BIN), "-o", "setup", ok=False)
        assert "gate failed: gates.primary: macro_f1 has to be better, it is: no significant difference" in said
        assert "error: gates.primary" in said
        assert "gates.at_most.ece is " in said
    finally:
        clone("git", "reset", "-q", "--hard")
        clone("git", "clean", "-qf", "comment.md")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nosuch", "error: nosuch: no git revision or experiment here"),
        ("99", "error: 99: no such version; there: 1 champion"),
        ("HEAD~1", "error: HEAD~1: its files can't be had: No storage files available: 'reports/predictions.parquet'"),
    ],
)
def test_what_can_t_be_compared_with_is_one_line(clone: Clone, name: str, says: str) -> None:
    output = clone("finsight", "compare", "--base", name, ok=False)
    assert says in output
    assert "Traceback" not in output


def test_metrics_are_computed_anew(clone: Clone) -> None:
    found = json.loads(clone("finsight", "metrics", "--json"))
    reported = json.loads((clone.root / "reports/metrics.json").read_text())
    assert found == {
        name: value for name, value in reported.items() if name not in ("protocol", "calibration", "behaviour", "behaviour_cases")
    }
    assert "macro_f1" in clone("finsight", "metrics")
    assert json.loads(clone("finsight", "metrics", "--slices")) == json.loads((clone.root / "reports/slices.json").read_text())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("+train.learnin_rate=1", "error: params.yaml: train.learnin_rate: unknown key"),
        ("train.epochs=many", "error: params.yaml: train.epochs: got 'many'"),
        ("train.backbone=/no/such/folder", "error: train.backbone: /no/such/folder is no folder"),
        ("ingest.corpora=[nosuch]", "error: params.yaml: ingest.corpora: 'nosuch' is not under corpora"),
    ],
)
def test_a_wrong_parameter_ends_a_temporary_experiment_in_one_line(clone: Clone, change: str, says: str) -> None:
    output = clone("dvc", "exp", "run", "--temp", "-S", change, ok=False)
    assert says in output
    assert "Traceback" not in output
    assert clone("git", "status", "--porcelain") == ""


@pytest.mark.long
def test_a_range_is_queued_and_run(clone: Clone) -> None:
    try:
        clone("dvc", "exp", "run", "--queue", "-S", "train.lr=range(0.01,0.03,0.01)")
        queued = clone("dvc", "queue", "status")
        assert queued.count("Queued") == 2
        clone("dvc", "exp", "run", "--run-all", "--jobs", "1")
        rows = json.loads(clone("dvc", "exp", "show", "--json"))
        found = [e["revs"][0]["data"] for row in rows for e in row["experiments"] or () if "queue" not in e["revs"][0]["rev"]]
        rates = [data["params"]["params.yaml"]["data"]["train"]["lr"] for data in found if data]
        assert {0.01, 0.02} <= set(rates)
    finally:
        clone("git", "reset", "-q", "--hard")
        clone("dvc", "checkout", "-q")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_temporary_experiment_leaves_the_workspace_alone_and_logs_to_the_clones_mlflow(clone: Clone) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{clone.root}/mlflow.db")
    experiment = client.get_experiment_by_name("finsight")
    assert experiment is not None
    before = len(client.search_runs([experiment.experiment_id]))
    clone("dvc", "exp", "run", "--temp", "-n", "apart", "-S", "train.seed=7")
    assert clone("git", "status", "--porcelain") == ""
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == before + 1
    assert runs[0].data.params["train.seed"] == "7"
    assert str(runs[0].info.artifact_uri).startswith(f"file://{clone.root}/mlruns/")


@pytest.mark.long
def test_a_repro_killed_in_the_middle_is_simply_run_again(clone: Clone) -> None:
    try:
        Project(clone.root, Path()).set(train__seed=11)
        with subprocess.Popen(
            ["dvc", "repro"], cwd=clone.root, env=clone.env, text=True, stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("Running stage 'train'"):
                    break
            os.killpg(process.pid, signal.SIGKILL)
        output = clone("dvc", "repro")
        assert clone.ran(output) == ["train", "evaluate", "export", "report", "register"]
    finally:
        clone("git", "reset", "-q", "--hard")
        clone("dvc", "checkout", "-q")


def test_the_code_of_a_stage_is_its_dependency(clone: Clone) -> None:
    path = clone.root / "src/finsight/pipeline/evaluate.py"
    try:
        path.write_text(path.read_text() + "\n# changed\n")
        # The last line: the experiment that a test above has ended left a lock, and DVC may say first that it removes it.
        status = json.loads(clone("dvc", "status", "--json").splitlines()[-1])
        assert set(status) == {"evaluate", "register"}
    finally:
        clone("git", "checkout", "-q", "src")


@pytest.fixture
def storage(clone: Clone) -> Iterator[Clone]:
    """The development S3 server of `make storage`, on a free port."""
    address = f"127.0.0.1:{free_port()}"
    clone("dvc", "remote", "modify", "--local", "minio", "endpointurl", f"http://{address}")
    process = subprocess.Popen(["finsight", "storage", "--address", address], cwd=clone.root, env=clone.env, start_new_session=True)
    try:
        wait_for(f"http://{address}", process)
        yield clone
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_push_fresh_clone_pull(storage: Clone, tmp_path: Path) -> None:
    assert (storage.root / ".dvc/config.local").stat().st_mode & 0o077 == 0
    storage("finsight", "push")
    root = tmp_path / "second"
    storage("git", "clone", "-q", str(storage.root), str(root))
    second = Clone(root, environment(root))
    shutil.copy(storage.root / ".dvc/config.local", root / ".dvc/config.local")
    second("finsight", "pull")
    assert second("dvc", "status", "--json").strip() == '{"register": ["always changed"]}'
    for name in (
        "models/bundle/bundle.json",
        "models/checkpoint/model.safetensors",
        "reports/predictions.parquet",
        "reports/registration.json",
    ):
        assert (root / name).read_bytes() == (storage.root / name).read_bytes()
    assert "files match bundle.json" in second("finsight", "verify")
    assert second("git", "status", "--porcelain") == ""


def test_what_a_colleague_has_run_is_fetched_and_not_computed(storage: Clone, tmp_path: Path) -> None:
    """A second clone with the same parameters, without dvc.lock and without a single output, those that git keeps included."""
    storage("finsight", "push")
    second = Clone(tmp_path / "second", environment(tmp_path / "second"))
    storage("git", "clone", "-q", str(storage.root), str(second.root))
    shutil.copy(storage.root / ".dvc/config.local", second.root / ".dvc/config.local")
    (second.root / "dvc.lock").unlink()
    shutil.rmtree(second.root / "reports")
    second("finsight", "pull")
    assert second.ran(second("dvc", "repro")) == ["register"]
    assert second("git", "status", "--porcelain", "reports") == ""


def test_what_no_version_or_experiment_needs_is_found_and_removed(storage: Clone) -> None:
    kept = {path for path in (storage.root / ".dvc/cache/files").rglob("*") if path.is_file()}
    vain = storage.root / ".dvc/cache/files/md5/00/0123456789abcdef0123456789abcd"
    vain.parent.mkdir(exist_ok=True)
    vain.write_text("an object that nothing names")
    said = storage("finsight", "gc")
    assert re.search(r"here: \d+ objects \(.* MB\) and \d+ runs needed by nobody; \d+ objects stay", said)
    assert str(vain) in said
    assert "nothing was removed; --yes removes it" in said
    assert vain.exists()
    assert "removed; " in storage("finsight", "gc", "--yes")
    assert not vain.exists()
    assert {path for path in (storage.root / ".dvc/cache/files").rglob("*") if path.is_file()} <= kept
    # Whatever went, the workspace and the versions are whole.
    storage("dvc", "checkout", "-q", "--force")
    assert storage("dvc", "status", "--json").strip() == '{"register": ["always changed"]}'
    away = Clone(storage.root, {**storage.env, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    assert "error: MLflow at http://127.0.0.1:9" in away("finsight", "gc", "--yes", ok=False)
    empty = Clone(storage.root, {**storage.env, "MLFLOW_TRACKING_URI": f"sqlite:///{storage.root}/.dvc/tmp/empty.db"})
    assert "has no version of finsight; set MLFLOW_TRACKING_URI to the one" in empty("finsight", "gc", "-r", "minio", ok=False)


def test_a_second_clone_pulls_from_the_default_remote(clone: Clone, tmp_path: Path) -> None:
    clone("dvc", "push", "-q")
    second = Clone(tmp_path / "second", clone.env)
    clone("git", "clone", "-q", str(clone.root), str(second.root))
    second("dvc", "pull", "-q")
    assert second("dvc", "status", "--json").strip() == '{"register": ["always changed"]}'


def test_a_version_says_where_it_came_from(clone: Clone) -> None:
    import sqlite3

    with sqlite3.connect(clone.root / "mlflow.db") as database:
        tags = dict(database.execute("select key, value from model_version_tags where version = 1").fetchall())
    assert len(tags["git.commit"]) == 40
    assert tags["dvc.models/checkpoint"].endswith(".dir")
    assert tags["finsight.bundle"] == json.loads((clone.root / "reports/export.json").read_text())["bundle_sha256"]


@pytest.mark.long
def test_a_version_is_made_again_byte_for_byte(clone: Clone, tmp_path: Path) -> None:
    statement = json.loads(clone("finsight", "lineage", "1", "--json"))
    source = statement["predicate"]["buildDefinition"]["resolvedDependencies"][0]
    assert source["name"] == "source"
    assert source["annotations"]["changed"] == []  # what the pipeline itself writes is no change of what shapes it
    output = clone("finsight", "reproduce", "champion", "--into", str(tmp_path / "again"))
    assert clone.ran(output) == ["ingest", "validate", "prepare", "train", "evaluate", "export"]
    assert output.splitlines()[-1] == "reproduced byte for byte"
    assert "models/checkpoint" in output
    assert clone("git", "status", "--porcelain") == ""
    bundles = [root / "models/bundle/model.fp32.onnx" for root in (clone.root, tmp_path / "again")]
    assert bundles[0].read_bytes() == bundles[1].read_bytes()


@pytest.mark.long
def test_a_dirty_tree_can_t_be_made_again_until_it_is_committed(clone: Clone) -> None:
    code = clone.root / "src/finsight/pipeline/train.py"
    kept = code.read_text()
    clone.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{clone.root}/dirty.db"
    try:
        code.write_text(kept + "\n# a change that nobody has committed\n")
        clone("dvc", "repro")
        assert "dirty: src/finsight/pipeline/train.py" in clone("finsight", "lineage", "1")
        said = clone("finsight", "reproduce", "1", ok=False)
        assert "version 1 can't be reproduced: it was made from a dirty tree: src/finsight/pipeline/train.py differed" in said
        clone("git", "commit", "-qam", "a change")
        clone("dvc", "repro")
        assert ", clean" in clone("finsight", "lineage", "1")
        clone("finsight", "verify", "1")
    finally:
        clone.env.pop("MLFLOW_TRACKING_URI", None)
        clone("git", "reset", "-q", "--hard", "HEAD~1")
        clone("git", "checkout", "-q", ".")
        clone("dvc", "checkout", "-q", "--force")


def test_a_wrong_secret_is_said(storage: Clone) -> None:
    wrong = Clone(storage.root, {**storage.env, "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"})
    local = storage.root / ".dvc/config.local"
    kept = local.read_text()
    try:
        local.write_text("\n".join(line for line in kept.splitlines() if "access_key" not in line) + "\n")
        output = wrong("finsight", "push", ok=False)
        assert "Traceback" not in output
        assert re.search(r"error: remote minio at http://\S+: it refuses the key \(Forbidden\); set it with `dvc remote modify", output)
        assert len(output.strip().splitlines()) == 1
        assert "nothing" not in output.replace("nothing was", "")
    finally:
        local.write_text(kept)


@pytest.mark.long
def test_a_corpus_comes_in_and_is_used(clone: Clone, tmp_path: Path) -> None:
    rows = [{"headline": row["text"], "mood": row["label"]} for row in starter_rows(160)]
    source = write_csv(tmp_path / "mine.csv", rows)
    try:
        output = clone("finsight", "corpus", "add", "mine", str(source))
        assert "data/external/mine.dvc is staged in git: commit it" in output
        assert "text: headline   # columns here: headline, mood" in output
        assert "A  data/external/mine.dvc" in clone("git", "status", "--porcelain")
        again = clone("finsight", "corpus", "add", "mine", str(source), ok=False)
        assert "error: data/external/mine: is there already" in again
        corpus = {"path": "data/external/mine", "format": "csv", "text": "headline", "label": "mood", "license": "CC0-1.0"}
        Project(clone.root, Path()).set(corpora__mine=corpus)
        clone("git", "add", "-A")
        clone("git", "commit", "-qm", "a corpus")
        clone("dvc", "exp", "run", "--temp", "-n", "mine", "-S", "ingest.corpora=[mine]")
        diff = json.loads(clone("dvc", "metrics", "diff", "--json", "HEAD", "mine"))
        assert diff["reports/metrics.json"]["n"] == {"old": 48, "new": 32, "diff": -16}
    finally:
        clone("git", "reset", "-q", "--hard", "HEAD")


def test_a_corpus_is_downloaded_and_its_digest_checked(clone: Clone, tmp_path: Path) -> None:
    import hashlib
    import http.server
    import threading
    from functools import partial

    write_csv(tmp_path / "served/rows.csv", starter_rows(16))
    digest = hashlib.sha256((tmp_path / "served/rows.csv").read_bytes()).hexdigest()
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(tmp_path / "served")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        assert "127.0.0.1: not a public address" in clone("finsight", "corpus", "add", "gone", f"{url}/none.csv", ok=False)
        trusting = Clone(clone.root, {**clone.env, "FINSIGHT_ALLOW_PRIVATE_URLS": "1"})
        assert "404" in trusting("finsight", "corpus", "add", "gone", f"{url}/none.csv", ok=False)
        assert "expected 000" in trusting("finsight", "corpus", "add", "bad", f"{url}/rows.csv", "--sha256", "0" * 64, ok=False)
        assert not (clone.root / "data/external/bad").exists()
        trusting("finsight", "corpus", "add", "good", f"{url}/rows.csv", "--sha256", digest)
        assert (clone.root / "data/external/good/rows.csv").is_file()
    finally:
        server.shutdown()
        server.server_close()
        clone("git", "reset", "-q", "--hard")
