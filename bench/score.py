"""Scoring speed: every format of the bundle beside other ways to score with the same model, one run, one host, tokenising included.

\b
Peers, in batches of 32 and cut at the bundle's longest text:
  transformers-pipeline  `transformers.pipeline` on the checkpoint in fp32, as its documentation shows it
  onnxruntime-loop       a plain loop: the bundle's fp32 graph, transformers' tokenizer, batches padded in the order given
  optimum-onnx           optimum's ONNX pipeline on the same graph, with `--optimum E/bin/python`, of an environment of its own:
                         python -m venv E && E/bin/pip install torch==2.13.0 optimum-onnx onnxruntime 'transformers<4.58'

Texts: sentences (the prepared test rows, or PhraseBank's test rows with `--data FOLDER`, shuffled once) and the long mix: three sentences
by themselves, then as many as give a text of a quarter, half, all or twice as many words as the longest text has tokens, and so on. All
ways take turns; the best round of each counts.

`--device cuda` compares the checkpoint in fp16 on a GPU with the pipeline in fp32 there; the bundle's formats are for processors.

`--json FILE` writes rows of {name, peer, ours, theirs, unit, ratio}; a ratio over 1 is in our favour. A format whose macro-F1 on the
sentences is more than 0.3 points below the checkpoint's is shown, and marked, but not written.
"""

import json
import os
import random
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import mean, median
from typing import Any

import click

from finsight.environment import quiet
from peers import scorers

SINGLES = 50  # texts that are scored one by one in a round
AT_MOST = 1000  # sentences
TOLERATED = 0.3  # points of macro-F1
CHECKPOINT, LOOP, OPTIMUM = "transformers-pipeline", "onnxruntime-loop", "optimum-onnx"
FP32, HALF = "onnx-fp32", "torch-fp16"
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@dataclass
class Found:
    """What a way to score did.

    :param seconds: set of texts → the best round's.
    :param labels: set of texts → the label of each.
    :param single: seconds for one text, the best round's median.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    labels: dict[str, list[str]] = field(default_factory=dict)
    single: float = float("inf")


def labelled(test: Path, data: Path | None) -> dict[str, str]:
    """Distinct sentences → their labels, shuffled: a corpus may stand in an order that spares its reader padding."""
    if data:
        from finsight import bootstrap
        from finsight.domain.records import Example
        from finsight.params.corpora import PhraseBankCorpus

        corpus = PhraseBankCorpus(path=str(data), license="CC-BY-NC-SA-3.0", format="phrasebank", split="finbert")
        read = bootstrap.reader("phrasebank", corpus).read()
        rows = [(row.text, row.label) for row in read if isinstance(row, Example) and row.split == "test"]
    else:
        import pyarrow.parquet as pq

        rows = [(row["text"], row["label"]) for row in pq.read_table(test, columns=["text", "label"]).to_pylist()]
    distinct = list(dict(rows).items())
    random.Random(0).shuffle(distinct)
    return dict(distinct[:AT_MOST])


def long_mix(sentences: list[str], max_length: int) -> list[str]:
    """Each sentence once: three by themselves, then a text of several, and so on."""
    wanted = cycle(words for share in (0.25, 0.5, 1, 2) for words in (0, 0, 0, int(share * max_length)))
    left, found = iter(sentences), []
    for text in left:
        words = next(wanted)
        while len(text.split()) < words and (more := next(left, None)):
            text = f"{text} {more}"
        found.append(text)
    return found


def measure(ways: dict[str, scorers.Scorer], texts: dict[str, list[str]], rounds: int) -> dict[str, Found]:
    """All take turns, each with every set of texts, then with texts one by one."""
    found = {name: Found() for name in ways}
    singles = texts["sentences"][:SINGLES]
    for way in ways.values():  # warm
        for some in texts.values():
            way(some[: 2 * scorers.BATCH])
    for _ in range(rounds):
        for name, way in ways.items():
            best = found[name]
            for kind, some in texts.items():
                seconds, best.labels[kind] = way(some)
                best.seconds[kind] = min(best.seconds.get(kind, seconds), seconds)
            best.single = min(best.single, median(way([text])[0] for text in singles))
    return found


def fidelity(found: dict[str, Found], actual: list[str], labels: list[str]) -> dict[str, float]:
    """Points of macro-F1 that each is above the checkpoint; printed, with how often both give a text the same label."""
    import numpy as np

    from finsight.domain.metrics import confusion_matrix, macro_f1

    def f1(given: list[str]) -> float:
        ids = (np.array([labels.index(label) for label in some]) for some in (actual, given))
        return 100 * float(macro_f1(confusion_matrix(*ids, len(labels))))

    reference = found[CHECKPOINT].labels
    points = {name: f1(its.labels["sentences"]) - f1(reference["sentences"]) for name, its in found.items()}
    click.echo(f"{'':<34}{'macro-F1':>10}{'points':>10}  same label as the checkpoint")
    for name, its in found.items():
        same = (f"{kind} {mean(a == b for a, b in zip(its.labels[kind], reference[kind], strict=True)):.1%}" for kind in reference)
        click.echo(f"{name:<34}{f1(its.labels['sentences']):>10.1f}{points[name]:>+10.2f}  {', '.join(same)}")
    return points


def compare(name: str, peer: str, found: dict[str, Found]) -> list[dict[str, Any]]:
    """Rows: each set of texts, and one text at a time."""
    ours, theirs = found[name], found[peer]
    rows = []
    for kind, labels in ours.labels.items():
        mine, its = (len(labels) / way.seconds[kind] for way in (ours, theirs))
        rows.append((f"{name}, {kind}", peer, mine, its, "texts/s", mine / its))
    rows.append((f"{name}, one text, p50", peer, 1000 * ours.single, 1000 * theirs.single, "ms", theirs.single / ours.single))
    return [dict(zip(("name", "peer", "ours", "theirs", "unit", "ratio"), row, strict=True)) for row in rows]


def tokens(definition: Path) -> int:
    """How many there are."""
    from tokenizers import Tokenizer

    return int(Tokenizer.from_file(str(definition)).get_vocab_size())


def run(checkpoint: Path, bundle: Path, texts: dict[str, str], python: Path | None, rounds: int, device: str) -> list[dict[str, Any]]:
    """Every way of ours beside every peer; the tables are printed."""
    from finsight.adapters.bundle_classifier import on_gpu, runs_here
    from finsight.bundle import read_bundle

    manifest = read_bundle(bundle)
    here = [name for name in manifest.graphs if runs_here(name) and not on_gpu(name)] if device == "cpu" else [HALF]
    longest, graph = manifest.max_length, bundle / manifest.graphs.get(FP32, "")
    sets = {"sentences": list(texts), "long mix": long_mix(list(texts), longest)}
    with ExitStack() as stack:
        peers = {CHECKPOINT: scorers.transformers_pipeline(checkpoint, longest, device)}
        # Both feed the checkpoint's tokens to the bundle's graph, which knows others where its vocabulary is trimmed.
        possible = (
            device == "cpu" and FP32 in manifest.graphs and tokens(bundle / manifest.tokenizer) == tokens(checkpoint / "tokenizer.json")
        )
        if possible:
            peers[LOOP] = scorers.onnxruntime_loop(graph, checkpoint, manifest.labels, longest)
            if python:
                peers[OPTIMUM] = stack.enter_context(scorers.optimum_onnx(python, graph, checkpoint, longest))
        for peer in (LOOP, OPTIMUM):
            if peer not in peers and device == "cpu":
                click.echo(f"{peer}: left out, for want of {'--optimum' if possible else f'{FP32} with all tokens in the bundle'}")
        click.echo(f"{len(sets['sentences'])} sentences, {len(sets['long mix'])} texts in the long mix, {os.cpu_count()} processors")
        ours = {name: scorers.half(checkpoint, longest, device) if name == HALF else scorers.ours(bundle, name) for name in here}
        found = measure(peers | ours, sets, rounds)
    points = fidelity(found, list(texts.values()), manifest.labels)
    click.echo(f"\n{'':<34}{'ours':>10}{'theirs':>10}  {'unit':<8}{'ratio':>7}  peer")
    rows = []
    for name in here:
        worse = points[name] < -TOLERATED
        for row in (row for peer in peers for row in compare(name, peer, found)):
            line = f"{row['name']:<34}{row['ours']:>10.1f}{row['theirs']:>10.1f}  {row['unit']:<8}{row['ratio']:>7.2f}  {row['peer']}"
            click.echo(f"{line} (macro-F1 too low)" if worse else line)
            rows += [] if worse else [row]
    return rows


@click.command(help=__doc__)
@click.option("--checkpoint", type=FOLDER, default=Path("models/checkpoint"), show_default=True)
@click.option("--bundle", type=FOLDER, default=Path("models/bundle"), show_default=True)
@click.option("--test", type=FILE, default=Path("data/prepared/test.parquet"), show_default=True)
@click.option("--data", type=FOLDER, help="Folder of PhraseBank's official files, in place of --test.")
@click.option("--optimum", "python", type=FILE, help="Interpreter of an environment with optimum-onnx.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(
    checkpoint: Path, bundle: Path, test: Path, data: Path | None, python: Path | None, device: str, rounds: int, json_path: Path | None
) -> None:
    quiet()
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows = run(checkpoint, bundle, labelled(test, data), python, rounds, device)
    if json_path:
        json_path.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
