"""What each way to a smaller bundle costs: its size, speed and accuracy beside the bundle of the same recipe without it.

Each row of ROWS is an experiment, `dvc exp run --temp -S … export`, over params.yaml and data as they are in the working tree; its bundle
is taken with `dvc get`, and the experiment is removed. All bundles then score the test rows in turns, in one run on one host; the best
round of each counts. The fitted model is the same for all rows, and is trained once.

    python bench/smaller.py                                                                              # the corpora of params.yaml
    python bench/smaller.py -S 'ingest.corpora=[phrasebank]' -S corpora.phrasebank.split=finbert         # another one, added before

`--json FILE` writes rows of {name, peer, ours, theirs, unit, ratio}, the peer being the bundle without the switch; a ratio over 1 is in
favour of the switch.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq
from dvc.api import DVCFileSystem
from numpy.typing import NDArray

from finsight.adapters.bundle_classifier import BundleClassifier, on_gpu, runs_here
from finsight.bundle import read_bundle
from finsight.domain.metrics import accuracy, confusion_matrix, macro_f1
from finsight.environment import quiet

PLAIN = "nothing"
# A trimmed vocabulary spells new words in pieces, which the limits of fp32 would not let pass: here its cost is what is asked.
ANY = [f"export.gates.{kind}.{limit}=1" for kind in ("fp32", "reduced") for limit in ("max_abs_diff", "label_flip_rate", "macro_f1_loss")]
ROWS: dict[str, list[str]] = {
    PLAIN: [],
    "2 layers dropped": ["train.prune.layers=2"],
    "half the heads": ["train.prune.heads=0.5"],
    "half the feed-forward width": ["train.prune.feed_forward=0.5"],
    "half the weights zero": ["train.prune.magnitude=0.5"],
    "vocabulary of the corpora": ["export.vocabulary=corpora"],
    "2 layers, half the width, vocabulary": ["train.prune.layers=2", "train.prune.feed_forward=0.5", "export.vocabulary=corpora"],
}
EXPERIMENT = f"bench-smaller-{os.getpid()}"


@dataclass
class Made:
    """A row's bundle.

    :param rates: format → texts a second, the best round's.
    :param labels: format → label index of each test row.
    """

    folder: Path
    validation: float
    rates: dict[str, float] = field(default_factory=dict)
    labels: dict[str, NDArray[np.int64]] = field(default_factory=dict)


def make(name: str, settings: list[str], folder: Path) -> Made:
    """Run a row's experiment and fetch what came of it into ``folder``."""
    click.secho(f"== {name}", bold=True, err=True)
    chosen = [option for setting in settings + ANY + ROWS[name] for option in ("-S", setting)]
    dvc("exp", "run", "--temp", "-n", EXPERIMENT, *chosen, "export")
    try:
        kept = DVCFileSystem(rev=EXPERIMENT)
        for output in ("models/bundle", "data/prepared/test.parquet"):
            kept.get(output, str(folder / Path(output).name), recursive=True)
        report = json.loads(kept.read_text("reports/train.json"))
    finally:
        dvc("exp", "remove", EXPERIMENT)
    return Made(folder / "bundle", report["validation_macro_f1"])


def dvc(*arguments: str) -> None:
    if subprocess.run([sys.executable, "-m", "dvc", *arguments], stdout=sys.stderr).returncode:
        raise click.ClickException(f"dvc {' '.join(arguments)}: failed, see above")


def measure(made: dict[str, Made], texts: list[str], rounds: int) -> None:
    """All formats of all bundles take turns with all texts."""
    opened = [
        (its, name, BundleClassifier(its.folder, name))
        for its in made.values()
        for name in read_bundle(its.folder).graphs
        if runs_here(name) and not on_gpu(name)
    ]
    for _, _, classifier in opened:
        classifier.logits(texts[:32])  # the first call plans memory
    for _ in range(rounds):
        for its, name, classifier in opened:
            started = time.perf_counter()
            its.labels[name] = classifier.logits(texts).argmax(axis=1)
            its.rates[name] = max(its.rates.get(name, 0.0), len(texts) / (time.perf_counter() - started))


def report(made: dict[str, Made], actual: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Print the table; rows against the bundle without a switch."""
    click.echo(f"{'':<50}{'MB':>7}{'texts/s':>9}{'ratio':>7}{'accuracy':>10}{'macro-F1':>10}{'val. F1':>9}{'other labels':>14}")
    rows = []
    plain = made[PLAIN]
    for format_ in plain.rates:
        for name, its in made.items():
            manifest = read_bundle(its.folder)
            matrix = confusion_matrix(actual, its.labels[format_], len(manifest.labels))
            size, base = ((of.folder / read_bundle(of.folder).graphs[format_]).stat().st_size / 1e6 for of in (its, plain))
            ratio, other = its.rates[format_] / plain.rates[format_], (its.labels[format_] != plain.labels[format_]).mean()
            click.echo(
                f"{format_:<12}{name:<38}{size:>7.1f}{its.rates[format_]:>9.0f}{ratio:>7.2f}{accuracy(matrix):>10.3f}{macro_f1(matrix):>10.3f}"
                f"{its.validation:>9.3f}{other:>14.1%}"
            )
            if name != PLAIN:
                what = f"{format_}, {name}"
                rows.append((f"{what}, speed", PLAIN, its.rates[format_], plain.rates[format_], "texts/s", ratio))
                rows.append((f"{what}, size", PLAIN, size, base, "MB", base / size))
    return [dict(zip(("name", "peer", "ours", "theirs", "unit", "ratio"), row, strict=True)) for row in rows]


@click.command(help=__doc__)
@click.option("-S", "settings", multiple=True, help="As of `dvc exp run`; for all rows.")
@click.option("--row", "rows", multiple=True, type=click.Choice([*ROWS][1:]), help="May be repeated; all by default.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(settings: tuple[str, ...], rows: tuple[str, ...], rounds: int, json_path: Path | None) -> None:
    quiet()
    with tempfile.TemporaryDirectory(prefix="bench-smaller-") as temporary:
        made = {}
        for number, name in enumerate([PLAIN, *(rows or [*ROWS][1:])]):
            folder = Path(temporary) / str(number)
            folder.mkdir()
            made[name] = make(name, list(settings), folder)
        test = pq.read_table(made[PLAIN].folder.parent / "test.parquet", columns=["text", "label_id"])
        measure(made, test["text"].to_pylist(), rounds)
        found = report(made, test["label_id"].to_numpy().astype(np.int64))
    if json_path:
        json_path.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
