"""Accuracy of the recipes on the Financial PhraseBank (finBERT's split) and Twitter financial news, by seed.

    python bench/accuracy.py phrasebank --data FOLDER                      # the shipped recipe, three seeds
    python bench/accuracy.py phrasebank --data FOLDER --row "+ R-Drop"     # another row of ROWS, --seeds 1 for a first look
    python bench/accuracy.py                                               # the table of what is in bench/results/accuracy.jsonl

Each run is kept with the digest of its recipe, so that a table never mixes recipes, and what was run is not run again. The epoch is chosen
on validation; test rows are looked at once, at the end, and no row of ROWS is chosen by them: the validation macro-F1 stands beside them.
"""

import hashlib
import json
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq

from finsight import bootstrap
from finsight.adapters.progress import ProgressBar
from finsight.adapters.torch_classifier import TorchClassifier
from finsight.domain.metrics import accuracy, confusion_matrix, macro_f1
from finsight.environment import quiet
from finsight.params.corpora import PhraseBankCorpus, TableCorpus
from finsight.params.file import Params
from finsight.params.train import PruneParams, TrainParams
from finsight.pipeline.ingest import ingest
from finsight.pipeline.prepare import prepare
from finsight.pipeline.train import train

RESULTS = Path(__file__).parent / "results/accuracy.jsonl"
TWITTER = {
    "label_map": {"0": "negative", "1": "positive", "2": "neutral"},
    "split_files": {"train": "sent_train.csv", "test": "sent_valid.csv"},
}
OTHER = "what was trained on the other corpus"
BASE = {"backbone": "mpnet", "lr": 3.0e-5, "epochs": 3}
TAUGHT = {"teacher": "mpnet", "epochs": 6}
# Keys that came after the first rows: off, they change no digest.
LATER = ("awp", "swa", "focal")
LONG = {"r_drop": 0.5, "epochs": 10, "batch_tokens": 512, "label_smoothing": 0.0, "weight_decay": 0.05}
HALF = {"seed": 42, "frozen_layers": 7}
# What differs from params.yaml's `train`; `teacher` and `adapt` rows read the other corpus's texts without labels; OTHER trains on it.
ROWS: dict[str, dict[str, Any]] = {
    "shipped": {},
    "last weights, no average": {"ema": 0.0},
    "hard labels": {"soft_labels": False},
    "no layer decay": {"layer_decay": 1.0},
    "no label smoothing": {"label_smoothing": 0.0},
    "class weights": {"class_weights": "balanced"},
    "R-Drop 0.5": {"r_drop": 0.5},
    "FGM 0.5": {"adversarial": 0.5},
    "focal 1": {"focal": 1.0},
    "focal 2": {"focal": 2.0},
    "AWP 0.005": {"awp": 0.005},
    "AWP 0.001": {"awp": 0.001},
    "SWA, last half": {"swa": 0.5},
    "SWA, last half, constant rate": {"swa": 0.5, "schedule": "constant"},
    "6 epochs": {"epochs": 6},
    "batches of 512 tokens": {"batch_tokens": 512},
    "rate 2e-4": {"lr": 2.0e-4},
    "rate 5e-5": {"lr": 5.0e-5},
    "no dropout": {"dropout": 0.0},
    "embeddings frozen": {"frozen_layers": 1},
    "3 of 7 levels frozen": {"frozen_layers": 3},
    "4 of 7 levels frozen": {"frozen_layers": 4},
    "after the other corpus": {"backbone": OTHER},
    "masked-language adaptation": {"adapt": {"epochs": 3}},
    "distilled from mpnet": TAUGHT,
    "distilled from mpnet (7 of 13 levels frozen), 3 variants": TAUGHT | {"distillation": HALF | {"variants": 3}},
    "distilled from 3 mpnets (7 of 13 levels frozen)": TAUGHT | {"distillation": HALF | {"seeds": 3}},
    "distilled from 3 mpnets (7 of 13 levels frozen), 3 variants": TAUGHT | {"distillation": HALF | {"seeds": 3, "variants": 3}},
    "distilled from one mpnet, 8 epochs of 512-token batches": LONG | TAUGHT | {"epochs": 8, "r_drop": 0.0, "distillation": {"seed": 42}},
    "2 of 6 layers dropped": {"prune": {"layers": 2}},
    "half the heads": {"prune": {"heads": 0.5}},
    "half the feed-forward width": {"prune": {"feed_forward": 0.5}},
    "half the weights zero": {"prune": {"magnitude": 0.5}},
    "R-Drop 0.5, 10 epochs of 512-token batches": LONG,
    "R-Drop 0.5, 6 epochs of 512-token batches": LONG | {"epochs": 6},
    "mpnet": BASE,
    "mpnet, R-Drop 0.5, 4 epochs": BASE | {"epochs": 4, "r_drop": 0.5, "layer_decay": 0.95, "label_smoothing": 0.0, "ema": 0.98},
    "mpnet, 7 of 13 levels frozen": BASE | {"frozen_layers": 7},
}


def corpora(which: str, data: Path) -> dict[str, Any]:
    """The block of params.yaml for a corpus; the path is where the benchmark finds it."""
    if which == "phrasebank":
        return {which: PhraseBankCorpus(path=str(data), license="CC-BY-NC-SA-3.0", format="phrasebank", split="finbert")}
    return {which: TableCorpus(path=str(data), license="unknown", format="csv", known_as="twitter-financial-news", **TWITTER)}


def prepared(which: str, data: Path, texts: Path | None, params: Params, folder: Path) -> None:
    """Ingest and prepare the corpus, with the texts of the other one where there is a teacher to label them, or a backbone to read them."""
    known = corpora(which, data)
    other = corpora("twitter" if which == "phrasebank" else "phrasebank", texts) if texts else {}
    raw, unlabelled = folder / "corpus.parquet", folder / "unlabelled.parquet"
    report, lengths = folder / "report.json", folder / "lengths.csv"
    readers, without = ({name: bootstrap.reader(name, corpus) for name, corpus in these.items()} for these in (known, other))
    lenient = params.ingest.model_copy(update={"max_quarantined": 0.01})
    every, quarantine = known | other, folder / "quarantine.parquet"
    ingest(readers, params.labels, lenient, every, folder / "none.csv", raw, quarantine, report, without, unlabelled)
    backbone = bootstrap.backbone(params)
    prepare(raw, unlabelled, params.labels, {}, params.prepare, backbone, bootstrap.token_cache(), folder / "prepared", report, lengths)


def keep(which: str, data: Path, texts: Path | None, name: str, seed: int, folder: Path) -> None:
    """Run a row of ROWS once, into ``folder``, and keep what was measured."""
    folder.mkdir(exist_ok=True)
    found = which_run(which, name, seed, texts) | run(which, data, texts, ROWS[name], seed, folder)
    click.echo(json.dumps(found))
    with RESULTS.open("a") as file:
        file.write(json.dumps(found) + "\n")


def run(which: str, data: Path, texts: Path | None, changes: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Train once, into ``folder``; what was measured on validation and on the test rows."""
    params = bootstrap.load_params()
    if changes.get("backbone") == OTHER:
        if not texts:
            raise click.UsageError("this row trains on the other corpus first: give its folder as --texts")
        keep("twitter" if which == "phrasebank" else "phrasebank", texts, None, "shipped", seed, folder / "first")
        changes = changes | {"backbone": str(folder / "first/checkpoint")}
    params = params.model_copy(update={"train": params.train.model_validate(changed(params, changes) | {"seed": seed})})
    teacher = bootstrap.teacher(params)
    prepared(which, data, texts if teacher or params.train.adapt.epochs else None, params, folder)
    files = (folder / "checkpoint", folder / "train.json", folder / "curves.csv")
    started = time.monotonic()
    with ProgressBar() as bar:
        found = train(
            folder / "prepared",
            params.labels,
            params.train,
            bootstrap.backbone(params),
            *files,
            [bar],
            scratch=bootstrap.scratch(),
            teacher=teacher,
        )
    seconds = time.monotonic() - started
    test = pq.read_table(folder / "prepared/test.parquet", columns=["text", "label_id", "agreement"])
    predicted = TorchClassifier(folder / "checkpoint", params.prepare.max_length).logits(test["text"].to_pylist()).argmax(axis=1)
    actual = test["label_id"].to_numpy().astype(np.int64)
    matrix = confusion_matrix(actual, predicted, len(params.labels))
    full = np.array([agreement == 100 for agreement in test["agreement"].to_pylist()])
    return {
        "n": len(actual),
        "accuracy": float(accuracy(matrix)),
        "macro_f1": float(macro_f1(matrix)),
        "full_agreement": float((predicted == actual)[full].mean()) if full.any() else None,
        "validation_macro_f1": found["validation_macro_f1"],
        "validation_loss": found["validation_loss"],
        "best_epoch": found["best_epoch"],
        "seconds": round(seconds),
        "device": found["device"],
        "precision": found["precision"],
    }


def changed(params: Params, changes: dict[str, Any]) -> dict[str, Any]:
    """The keys of ``train`` with a row's changes, those of its sections key by key."""
    before = params.train.model_dump()
    return before | changes | {section: before[section] | changes.get(section, {}) for section in ("adapt", "distillation", "prune")}


def recipe(changes: dict[str, Any]) -> str:
    """The digest of what a run's outcome depends on in params.yaml."""
    params = bootstrap.load_params()
    unheard = {"seed", "save_every", "launch", "device", "threads", "determinism", "precision", "stream"} | (
        set() if changes.get("teacher") else {"distillation"}
    )
    unheard |= set() if PruneParams.model_validate(changed(params, changes)["prune"]).on else {"prune"}
    unheard |= set() if changed(params, changes)["adapt"]["epochs"] else {"adapt"}
    off = TrainParams.model_fields
    train = {
        key: value
        for key, value in changed(params, changes).items()
        if key not in unheard and not (key in LATER and value == off[key].default)
    }
    prepare = params.prepare.model_dump(exclude={"engine", "workers"})
    return hashlib.sha256(json.dumps([train, prepare], sort_keys=True).encode()).hexdigest()[:24]


def which_run(which: str, name: str, seed: int, texts: Path | None) -> dict[str, Any]:
    """What tells one run from another."""
    changes = ROWS[name]
    read = bool(texts and (changes.get("teacher") or changes.get("adapt") or changes.get("backbone") == OTHER))
    return {"corpus": which, "row": name, "recipe": recipe(changes), "seed": seed, "texts": read}


def kept() -> list[dict[str, Any]]:
    """What was run so far."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def table() -> None:
    """Print the mean over the seeds of each row whose recipe is today's."""
    click.echo(
        f"{'corpus':<12}{'row':<64}{'device':<7}{'seeds':>6}{'accuracy':>16}{'macro-F1':>16}{'full agr.':>11}{'val. F1':>9}{'s a run':>9}"
    )
    for which in ("phrasebank", "twitter"):
        for (name, changes), texts, device in product(ROWS.items(), (False, True), ("cpu", "cuda")):
            key = (which, name, recipe(changes), texts, device)
            found = [r for r in kept() if (r["corpus"], r["row"], r["recipe"], r["texts"], r["device"]) == key]
            if found:
                if texts and ("teacher" in changes or "adapt" in changes):
                    name += ", other corpus's texts"
                spread = {
                    k: f"{mean(v):.3f}" + (f" ± {stdev(v):.3f}" if len(v) > 1 else "")
                    for k in ("accuracy", "macro_f1")
                    if (v := [r[k] for r in found])
                }
                full = [r["full_agreement"] for r in found if r["full_agreement"] is not None]
                click.echo(
                    f"{which:<12}{name:<64}{device:<7}{len(found):>6}{spread['accuracy']:>16}{spread['macro_f1']:>16}"
                    f"{f'{mean(full):.3f}' if full else '-':>11}{mean(r['validation_macro_f1'] for r in found):>9.3f}"
                    f"{mean(r['seconds'] for r in found):>9.0f}"
                )


@click.command(help=__doc__)
@click.argument("corpus", type=click.Choice(["phrasebank", "twitter"]), required=False)
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of the corpus's files.")
@click.option(
    "--texts",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the other corpus, for a teacher to label, or to read.",
)
@click.option("--row", "rows", multiple=True, type=click.Choice(list(ROWS)), default=("shipped",), show_default=True)
@click.option("--seeds", default=3, show_default=True)
def main(corpus: str | None, data: Path | None, texts: Path | None, rows: tuple[str, ...], seeds: int) -> None:
    quiet()
    for name in rows if corpus and data else ():
        for seed in range(42, 42 + seeds):
            if not any(which_run(str(corpus), name, seed, texts).items() <= found.items() for found in kept()):
                with tempfile.TemporaryDirectory() as folder:
                    keep(str(corpus), data, texts, name, seed, Path(folder))
    table()


if __name__ == "__main__":
    main()
