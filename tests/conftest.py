"""What many tests share: a tiny random backbone, a small corpus, a project folder to run stages in."""

from __future__ import annotations

import csv
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from finsight.environment import quiet

pytest_plugins = ["servers", "small_dvc", "released", "issuers", "browsers"]
# The models here are tiny: a second thread costs more than it brings, and servers run beside them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPO = Path(__file__).resolve().parents[1]
LABELS = ["negative", "neutral", "positive"]
quiet()


@cache
def shipped_params() -> str:
    """params.yaml as committed, so that tests don't depend on what `dvc exp run` left in the working tree; the working tree's own while
    its schema is being changed."""
    from finsight.errors import ParamsError
    from finsight.params.file import load_params

    committed = subprocess.run(["git", "show", "HEAD:params.yaml"], cwd=REPO, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text(committed)
        try:
            load_params(path)
        except ParamsError:
            return (REPO / "params.yaml").read_text()
    return committed


def starter_rows(n: int) -> list[dict[str, str]]:
    """n rows, the first of each starter file, so that every label and style occurs."""
    rows: list[dict[str, str]] = []
    files = sorted((REPO / "data/starter").glob("*.csv"))
    for path in files:
        with path.open(encoding="utf-8", newline="") as file:
            rows += list(csv.DictReader(file))[: -(-n // len(files))]
    return rows[:n]


def write_csv(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _lets_go(item: pytest.Item | None) -> bool:
    marks = item.iter_markers("filterwarnings") if item else ()
    return any("ResourceWarning" in str(words) for mark in marks for words in mark.args)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Have what a library leaves open found in the test that lets it, or in the next that does, and not in one that comes later."""
    yield
    if _lets_go(item) and not _lets_go(nextitem):
        gc.collect()  # a third of a second, with all that is loaded


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 0.2 M parameters with a word-piece tokenizer of the starter corpus: real files, no download."""
    import torch
    from tokenizers import BertWordPieceTokenizer, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("backbone") / "tiny"
    words = BertWordPieceTokenizer(lowercase=True)
    words.train_from_iterator([row["text"] for row in starter_rows(2400)], vocab_size=2000, show_progress=False)
    cls, sep = words.token_to_id("[CLS]"), words.token_to_id("[SEP]")
    words._tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    special = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words._tokenizer, **special)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **shape)).save_pretrained(folder)
    return folder


@dataclass
class Project:
    """A folder with its own params.yaml and data, in which the repository's stages run."""

    root: Path
    backbone: Path
    env: dict[str, str] = field(default_factory=dict)

    def set(self, **changes: Any) -> None:
        """Change params by dotted key, dots written as ``__``."""
        yaml = YAML()
        path = self.root / "params.yaml"
        content = yaml.load(path.read_text())
        for key, value in changes.items():
            *parents, last = key.split("__")
            section = content
            for name in parents:
                section = section.setdefault(name, {})
            section[last] = value
        with path.open("w") as file:
            yaml.dump(content, file)

    def command(self, stage: str) -> list[str]:
        """The stage's command line, as dvc.yaml has it."""
        stages = YAML(typ="safe").load((REPO / "dvc.yaml").read_text())["stages"]
        return [sys.executable, *(str(REPO / "stages" / f"{stage}.py"), *stages[stage]["cmd"].split()[2:])]

    def start(self, stage: str, **kwargs: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, **self.env}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.command(stage), cwd=self.root, env=environment, text=True, **{**pipes, **kwargs})

    def run(self, *stages: str) -> None:
        """Run stages that must succeed."""
        for stage in stages:
            with self.start(stage) as process:
                out, err = process.communicate()
            assert process.returncode == 0, f"{stage}: {out[-2000:]}{err[-2000:]}"

    def fail(self, stage: str) -> str:
        """Run a stage that must fail; return its one line."""
        with self.start(stage) as process:
            out, err = process.communicate()
        assert process.returncode in (1, 3), f"{stage} ended with {process.returncode}: {out[-2000:]}{err[-2000:]}"
        assert "Traceback" not in err, err
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, err
        return errors[0]

    def cli(self, *arguments: str, ok: bool = True) -> str:
        """Run the `finsight` command; what it printed, or its one line of error."""
        command = [sys.executable, "-m", "finsight.cli", *arguments]
        done = subprocess.run(command, cwd=self.root, env={**os.environ, **self.env}, text=True, capture_output=True)
        assert (done.returncode == 0) == ok, f"{arguments} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        if ok:
            return done.stdout
        assert "Traceback" not in done.stderr, done.stderr
        (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        return error

    def json(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.root / "reports" / name).read_text())
        return content


STAGES = ("ingest", "validate", "prepare", "train", "evaluate", "export", "report", "register")
# A random model is never sure of anything: int8 moves its argmax freely. The real limits are tested on the real backbone.
LOOSE_INT8 = {
    "fp32": {"max_abs_diff": 1e-4, "label_flip_rate": 0.0, "macro_f1_loss": 0.005},
    "reduced": {"max_abs_diff": 0.5, "label_flip_rate": 0.6, "macro_f1_loss": 1.0},
    "macro_f1_rows": 500,
}


@pytest.fixture(scope="session")
def make_project(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Project]:
    """A fresh project on 240 starter rows and the tiny backbone, one epoch."""

    def make(name: str) -> Project:
        root = tmp_path_factory.mktemp(name)
        (root / "params.yaml").write_text(shipped_params())
        shutil.copy(REPO / "dvc.yaml", root)
        shutil.copytree(REPO / "data/behaviour", root / "data/behaviour")
        write_csv(root / "data/starter/rows.csv", starter_rows(240))
        project = Project(
            root, tiny_backbone, {"FINSIGHT_CACHE": str(root / "cache"), "MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db"}
        )
        tiny = {"train__backbone": str(tiny_backbone), "train__epochs": 1, "train__lr": 0.01, "train__threads": 1}
        project.set(**tiny, export__gates=LOOSE_INT8)
        return project

    return make


@pytest.fixture(scope="session")
def finished(make_project: Callable[[str], Project]) -> Project:
    """A project in which every stage has run, each leaving its metrics in ``metrics_of``; tests read it and change nothing."""
    project = make_project("finished")
    replace(project, env={**project.env, "FINSIGHT_METRICS_DIR": str(metrics_of(project))}).run(*STAGES)
    return project


def metrics_of(project: Project) -> Path:
    """Where the stages of :func:`finished` left their metrics: not in the project, which others copy."""
    return project.root.with_name(f"{project.root.name}-metrics")


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Project], Project]:
    """A private copy of a project, to be changed."""

    def copy(project: Project) -> Project:
        root = tmp_path / "project"
        shutil.copytree(project.root, root)
        env = {**project.env, "FINSIGHT_CACHE": str(root / "cache"), "MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db"}
        return Project(root, project.backbone, env)

    return copy


def at_hand(variable: str, beside: str, what: str) -> Path:
    """A folder of real data: the one that a variable names, or the one beside the project; the test is skipped where there is none."""
    folder = Path(os.environ.get(variable, REPO.parent / "shared/data" / beside))
    if not folder.is_dir():
        pytest.skip(f"{what} not at hand: set {variable} to the folder of its files")
    return folder


@pytest.fixture(scope="session")
def phrasebank() -> Path:
    """The official PhraseBank files."""
    return at_hand("FINSIGHT_PHRASEBANK", "phrasebank", "the Financial PhraseBank's official files are")


@pytest.fixture(scope="session")
def twitter() -> Path:
    """Twitter financial news: sent_train.csv and sent_valid.csv."""
    return at_hand("FINSIGHT_TWITTER", "twitter-financial-news", "Twitter financial news (sent_train.csv, sent_valid.csv) is")


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
