"""The MLflow model folder around a bundle: the same answers, the same bytes, nothing pickled."""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import pytest

import finsight
from conftest import REPO, Project
from finsight.bundle import bundle_digest, read_bundle
from finsight.errors import ArtifactError
from servers import free_port, wait_for

TEXTS = ["Profit rose to EUR 13.1 mn.", "Sales fell.", "", "The company has 12 offices.", "📈 " * 300]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")

UNPICKLED = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}


@pytest.fixture(scope="module")
def packaged(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from finsight.adapters.pyfunc import package

    target = tmp_path_factory.mktemp("pyfunc") / "model"
    elsewhere = shutil.copytree(finished.root / "models/bundle", tmp_path_factory.mktemp("source") / "of another name")
    package(elsewhere, target)
    return target


def test_the_bundle_lies_in_it_byte_by_byte(packaged: Path, finished: Project) -> None:
    assert bundle_digest(packaged / "artifacts/bundle") == bundle_digest(finished.root / "models/bundle")
    assert finsight.load(packaged / "artifacts/bundle").predict(TEXTS)


def test_no_file_is_a_pickle(packaged: Path) -> None:
    files = [path for path in packaged.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"MLmodel", "pyfunc_model.py", "requirements.txt", "input_example.json", "bundle.json"}
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".pyc", ".joblib", ".pt")]
    # A pickle of protocol 2 or later begins with 0x80 and its protocol.
    assert not [path for path in files if path.read_bytes()[:1] == b"\x80"]


def test_it_says_nothing_of_the_machine_it_was_made_on(packaged: Path) -> None:
    assert "/" not in (packaged / "MLmodel").read_text().replace("artifacts/bundle", "")


def test_the_wheel_for_gpus_is_pinned_where_it_is_the_one(packaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finsight.adapters import pyfunc

    monkeypatch.setattr(pyfunc, "installed", lambda: ("onnxruntime-gpu", "1.31.1"))
    needed = list(pyfunc._needed(read_bundle(packaged / "artifacts/bundle")))
    assert [line for line in needed if line.startswith("onnxruntime")] == ["onnxruntime-gpu==1.31.1"]


def test_what_it_needs_is_pinned_and_small(packaged: Path) -> None:
    from importlib.metadata import version

    names = ("numpy", "onnxruntime", "tokenizers", "pandas", "mlflow")
    assert (packaged / "requirements.txt").read_text().split() == [f"{name}=={version(name)}" for name in names]


LOAD = """
import json, sys
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
texts = json.loads(sys.argv[2])
answer = model.predict(pd.DataFrame({"text": texts}, index=range(10, 10 + len(texts))))
assert list(answer.index) == list(range(10, 10 + len(texts)))
listed = model.unwrap_python_model().predict(None, texts)
assert listed.to_dict("list") == answer.to_dict("list")
import finsight
heavy = sorted({"torch", "transformers", "pydantic_settings", "dvc", "openvino"} & set(sys.modules))
print(json.dumps({"answer": answer.to_dict("records"), "columns": list(answer), "code": finsight.__file__, "heavy": heavy}))
"""


def loaded(packaged: Path, folder: Path) -> dict[str, object]:
    """What a fresh process says that has nothing of this repository on its path but the model."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | UNPICKLED
    # -P and a foreign working folder: an installed finsight of this environment must lose against the model's own code.
    command = [sys.executable, "-P", "-c", LOAD, str(packaged), json.dumps(TEXTS)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "warning" not in done.stderr.lower(), done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_it_answers_as_the_bundle_does_and_loads_no_pickle(packaged: Path, finished: Project, tmp_path: Path) -> None:
    got = loaded(packaged, tmp_path)
    model = finsight.load(finished.root / "models/bundle")
    assert got["columns"] == ["label", "score", "sure", *(f"prob_{label}" for label in model.labels)]
    wanted = [
        {"label": p.label, "score": p.score, "sure": p.sure} | {f"prob_{k}": v for k, v in p.probabilities.items()}
        for p in model.predict(TEXTS)
    ]
    assert got["answer"] == wanted
    assert Path(str(got["code"])).is_relative_to(packaged / "code")
    assert got["heavy"] == []


def test_a_registered_one_loads_by_its_alias_and_gives_the_bundle_back(
    packaged: Path, finished: Project, mlflow_server: str, tmp_path: Path
) -> None:
    from finsight.adapters.mlflow_registry import MlflowRegistry
    from finsight.adapters.mlflow_tracker import MlflowTracker

    tracker, registry = MlflowTracker(mlflow_server, "pyfunc"), MlflowRegistry(mlflow_server, "pyfunc")
    run = tracker.start("train", {})
    tracker.log_files(run, list(packaged.iterdir()), "model")
    version = registry.create(run, "model", bundle_digest(finished.root / "models/bundle"), {})
    registry.set_alias("champion", version.number)
    code = (
        "import mlflow, pandas as pd; model = mlflow.pyfunc.load_model('models:/pyfunc@champion'); "
        "print(*model.predict(pd.DataFrame({'text': ['Profit rose.', 'Sales fell.']}))['label'])"
    )
    environment = os.environ | UNPICKLED | {"MLFLOW_TRACKING_URI": mlflow_server}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    wanted = finsight.load(finished.root / "models/bundle").predict(["Profit rose.", "Sales fell."])
    assert done.stdout.split() == [p.label for p in wanted]
    (tmp_path / "bundle").mkdir()
    tracker.fetch(run, "model/artifacts/bundle", tmp_path / "bundle")
    assert bundle_digest(tmp_path / "bundle") == version.bundle_digest


def test_packaging_says_nothing_and_asks_for_nothing(finished: Project, tmp_path: Path) -> None:
    """A fresh process, a proxy that is not there, warnings as errors: no word, no request, and no torch."""
    code = (
        "import sys; from pathlib import Path; from finsight.environment import quiet; quiet(); "
        "from finsight.adapters.pyfunc import package; "
        "package(Path(sys.argv[1]), Path(sys.argv[2])); print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO / "src"), "HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", code, str(finished.root / "models/bundle"), str(tmp_path / "model")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_damaged_bundle_is_not_packaged(finished: Project, tmp_path: Path) -> None:
    from finsight.adapters.pyfunc import package

    bundle = shutil.copytree(finished.root / "models/bundle", tmp_path / "bundle")
    with (bundle / "tokenizer.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: SHA-256 is"):
        package(bundle, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def ask(port: int, content: object) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_mlflow_serves_it(packaged: Path, finished: Project, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(packaged), "--env-manager", "local", "-p", str(port)]
    # `mlflow models serve` looks for uvicorn on the path.
    environment = os.environ | UNPICKLED | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--workers", "1"], cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", process)
        got = ask(port, {"dataframe_split": {"columns": ["text"], "data": [[text] for text in TEXTS]}})
        wanted = finsight.load(finished.root / "models/bundle").predict(TEXTS)
        assert [row["label"] for row in got["predictions"]] == [p.label for p in wanted]
        assert [row["score"] for row in got["predictions"]] == [p.score for p in wanted]
        alone = ask(port, {"dataframe_records": [{"text": TEXTS[0]}]})["predictions"]
        assert [row["score"] for row in alone] == [pytest.approx(wanted[0].score, abs=1e-6)]
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(port, {"dataframe_split": {"columns": ["headline"], "data": [["x"]]}})
        assert refused.value.code == 400
    finally:
        process.terminate()
        process.wait(30)


def test_a_table_without_texts_is_refused(packaged: Path) -> None:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc

        model = mlflow.pyfunc.load_model(str(packaged))
        assert len(model.predict(pd.DataFrame({"text": ["x"], "another": [1]}))) == 1
        with pytest.raises(mlflow.exceptions.MlflowException, match="missing inputs"):
            model.predict(pd.DataFrame({"headline": ["x"]}))
