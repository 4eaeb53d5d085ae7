"""Scoring speed: the exported bundle beside `transformers.pipeline` on the checkpoint, one run, one host, tokenising included.

Peer: transformers-pipeline (fp32, batch 32, as its documentation shows it). Texts: the prepared test rows, four times over.
`--json FILE` writes rows of {name, peer, ours, theirs, unit, ratio}; a ratio over 1 is in our favour.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import click

from finsight.environment import quiet

PEER = "transformers-pipeline"
ROUNDS = 3  # alternating; the best of each counts, since the machines are shared


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(name: str, texts: list[str], ours: Callable[[list[str]], Any], peer: Callable[[list[str]], Any]) -> list[dict[str, Any]]:
    """Two rows: all texts at once, and one text at a time."""
    ours(texts[:64])
    peer(texts[:64])
    rounds = [(timed(lambda: ours(texts)), timed(lambda: peer(texts))) for _ in range(ROUNDS)]
    singles = [(timed(lambda t=t: ours([t])), timed(lambda t=t: peer([t]))) for t in texts[:100]]
    rates = [len(texts) / min(seconds) for seconds in zip(*rounds, strict=True)]
    medians = [1000 * median(seconds) for seconds in zip(*singles, strict=True)]
    kinds = (("all texts", rates, "texts/s", rates[0] / rates[1]), ("one text, p50", medians, "ms", medians[1] / medians[0]))
    return [
        {"name": f"{name}, {what}", "peer": PEER, "ours": pair[0], "theirs": pair[1], "unit": unit, "ratio": ratio}
        for what, pair, unit, ratio in kinds
    ]


@click.command(help=__doc__)
@click.option("--checkpoint", type=click.Path(path_type=Path, exists=True), default=Path("models/checkpoint"))
@click.option("--bundle", type=click.Path(path_type=Path, exists=True), default=Path("models/bundle"))
@click.option("--test", type=click.Path(path_type=Path, exists=True), default=Path("data/prepared/test.parquet"))
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(checkpoint: Path, bundle: Path, test: Path, json_path: Path | None) -> None:
    quiet()
    import pyarrow.parquet as pq
    from finsight.adapters.onnx_classifier import OnnxClassifier
    from transformers import pipeline
    from transformers.utils import logging

    from finsight.bundle import read_bundle

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    texts = pq.read_table(test, columns=["text"])["text"].to_pylist() * 4
    pipe = pipeline("text-classification", model=str(checkpoint), device=-1)
    rows = []
    for graph in read_bundle(bundle).graphs:
        rows += compare(graph, texts, OnnxClassifier(bundle, graph).logits, lambda t: pipe(t, batch_size=32, truncation=True))
    click.echo(f"{'':<26}{'ours':>10}{'peer':>10}  unit      ratio   ({len(texts)} texts, peer: {PEER})")
    for row in rows:
        click.echo(f"{row['name']:<26}{row['ours']:>10.1f}{row['theirs']:>10.1f}  {row['unit']:<8}{row['ratio']:>7.2f}")
    if json_path:
        json_path.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
