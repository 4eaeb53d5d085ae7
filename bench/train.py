"""Training speed beside `transformers.Trainer`: the same model, the same sentences, one run; on the CPU about as many rows a step.

Peers: trainer-defaults (its defaults, batch 32) and trainer-tuned (grouped by length, and bf16 where that is faster on this host). Both
pad each batch to its longest row. Ours: the shipped recipe and what makes it faster; a lever that changes what is learned stands with the
macro-F1 that it leaves, on test rows, and counts only if that is no worse than the peer's. `--json FILE` writes those that count as rows of
{name, peer, ours, theirs, unit, ratio}; a ratio over 1 is in our favour.

`--device cuda` trains a BERT-base with random weights on sentences of PhraseBank's lengths at 16,384 and 4,096 tokens a step, and prints
the share of the chip's own bf16 matrix rate that the steps reach.
"""

import json
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from finsight import bootstrap
from finsight.domain.metrics import confusion_matrix, macro_f1
from finsight.environment import quiet
from finsight.modeling.backbone import load_model
from finsight.modeling.batching import Data, Rows
from finsight.modeling.device import Hardware, deterministic, resolve_precision
from finsight.modeling.inference import predict
from finsight.modeling.training import Progress, fit
from finsight.params.train import TrainParams
from finsight.pipeline.fitting import fresh, validation_metrics
from finsight.pipeline.ingest import ingest
from finsight.pipeline.prepare import prepare
from finsight.pipeline.tables import read_rows
from finsight.pipeline.training_data import read_data

BATCH = 32
EPOCHS = 4  # on a GPU; our first one sets up, and records
PEERS = 4_000  # sentences that a peer learns from on a GPU: its rate does not depend on their number
VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "embeddings frozen": {"frozen_layers": 1},
    "no dropout": {"dropout": 0.0},
    "4 of 7 levels frozen, no dropout": {"frozen_layers": 4, "dropout": 0.0},
    "5 of 7 levels frozen, no dropout": {"frozen_layers": 5, "dropout": 0.0},
}


@contextmanager
def prepared(corpora: list[str]) -> Iterator[Path]:
    """The corpora, ingested and prepared as params.yaml says, in a folder of their own."""
    params = bootstrap.load_params()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus, texts, report = folder / "corpus.parquet", folder / "unlabelled.parquet", folder / "report.json"
        readers = bootstrap.readers(params, corpora)
        corrections = Path("data/corrections.csv")
        ingest(readers, params.labels, params.ingest, params.corpora, corrections, corpus, folder / "quarantine.parquet", report, {}, texts)
        backbone, cache = bootstrap.backbone(params), bootstrap.token_cache()
        prepare(corpus, texts, params.labels, {}, params.prepare, backbone, cache, folder / "prepared", report, folder / "lengths.csv")
        yield folder / "prepared"


class Clock:
    """An observer: seconds spent in steps, not in validation; of all epochs and of the last one."""

    def __init__(self) -> None:
        self.seconds, self.last, self._epoch, self._since = 0.0, 0.0, 1, time.perf_counter()

    def __call__(self, progress: Progress) -> None:
        """Stop the clock at a step, and start it again."""
        now = time.perf_counter()
        if not progress.metrics:
            self.seconds += now - self._since
            self.last = (self.last if progress.epoch == self._epoch else 0.0) + now - self._since
            self._epoch = progress.epoch
        self._since = now


def f1(logits: np.ndarray, rows: Rows, k: int) -> float:
    return float(macro_f1(confusion_matrix(rows.labels, logits.argmax(axis=1), k)))


def ours(data: Data, test: Rows, recipe: TrainParams, labels: list[str], backbone: Path, hardware: Hardware) -> tuple[float, float]:
    """Sentences a second, and macro-F1 on the test rows."""
    with deterministic(recipe.seed, recipe.threads):
        model = fresh(backbone, labels, recipe, hardware.device)
        clock = Clock()
        fit(model, data, recipe, hardware, lambda found, actual: validation_metrics(found, actual, len(labels)), [clock])
        return recipe.epochs * len(data.train) / clock.seconds, f1(predict(model, test.ids, data.pad_id, 4096, hardware), test, len(labels))


def theirs(data: Data, test: Rows, labels: list[str], backbone: Path, epochs: int, seed: int, **tuned: Any) -> tuple[float, float]:
    """The same of `transformers.Trainer`."""
    from transformers import Trainer, TrainingArguments

    rows = [{"input_ids": ids, "labels": int(label)} for ids, label in zip(data.train.ids, data.train.labels, strict=True)]

    def padded(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in batch)
        ids = torch.full((len(batch), longest), data.pad_id)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(batch):
            ids[i, : len(row["input_ids"])], mask[i, : len(row["input_ids"])] = torch.from_numpy(row["input_ids"].copy()), 1
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([row["labels"] for row in batch])}

    with tempfile.TemporaryDirectory() as folder, deterministic(seed, strict=False):
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=epochs,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
            seed=seed,
            dataloader_pin_memory=False,
            **tuned,
        )
        model = load_model(backbone, labels, "sdpa", new_head=True)
        trainer = Trainer(model, arguments, data_collator=padded, train_dataset=rows)
        seconds = trainer.train().metrics["train_runtime"]
        return epochs * len(rows) / seconds, f1(predict(model, test.ids, data.pad_id, 4096, Hardware(model.device)), test, len(labels))


def on_cpu(corpora: list[str], epochs: int) -> list[dict[str, Any]]:
    """All ways on the CPU, ours and theirs in turn; the table is printed."""
    params = bootstrap.load_params()
    recipe = params.train.model_copy(update={"epochs": epochs})
    device = torch.device("cpu")
    with prepared(corpora) as folder:
        data, (test, _) = read_data(folder, params.labels, recipe), read_rows(folder / "test.parquet")
    backbone = bootstrap.backbone(params).folder
    dtype = resolve_precision("auto", device, bootstrap.scratch())
    bf16 = dtype == torch.bfloat16
    click.echo(f"{len(data.train)} sentences of {', '.join(corpora)}, {epochs} epochs, {recipe.threads} threads, {dtype}")
    torch.set_num_threads(recipe.threads)
    grouped = {"bf16": bf16, "train_sampling_strategy": "group_by_length"}
    peers = {
        "trainer-defaults": theirs(data, test, params.labels, backbone, epochs, recipe.seed),
        "trainer-tuned": theirs(data, test, params.labels, backbone, epochs, recipe.seed, **grouped),
    }
    for peer, (rate, score) in peers.items():
        click.echo(f"{peer:<36}{rate:>8.1f}/s  macro-F1 {score:.3f}")
    rows = []
    for name, changes in VARIANTS.items():
        rate, score = ours(data, test, recipe.model_copy(update=changes), params.labels, backbone, Hardware(device, dtype))
        ratios = "  ".join(f"{rate / theirs:5.2f}x {peer}{'' if score >= their else ' (worse)'}" for peer, (theirs, their) in peers.items())
        click.echo(f"{name:<36}{rate:>8.1f}/s  macro-F1 {score:.3f}  {ratios}")
        rows += [
            {"name": name, "peer": peer, "ours": rate, "theirs": theirs, "unit": "sentences/s", "ratio": rate / theirs, "macro_f1": score}
            for peer, (theirs, their) in peers.items()
            if score >= their
        ]
    return rows


def matrix_rate(device: torch.device, dtype: torch.dtype, n: int = 8192) -> float:
    """FLOP/s of a large matrix product on this device: what a share of the chip is measured against."""
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        started = now(device)
        a @ b
        best = min(best, now(device) - started)
    return 2 * n**3 / best


def now(device: torch.device) -> float:
    """The time when the device has done all it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def flops(config: Any, lengths: np.ndarray) -> float:
    """FLOP of a training step over rows without padding: forward, and twice that backward; matrix products alone.

    :source: Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1, with attention by its real lengths.
    """
    d, wide, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    products = 2 * layers * (4 * d * d + 2 * d * wide) * lengths.sum()
    attention = 4 * layers * d * (lengths.astype(np.float64) ** 2).sum()
    return 3 * float(products + attention)


KINDS = {
    "matrix products": "gemm|nvjet|cutlass|cublas|splitK|s16816|sm90_xmma",
    "attention": "fmha|flash|attention|attn",
    "optimiser and average": "multi_tensor|adam|lerp|foreach",
    "norms and softmax": "layer_norm|LayerNorm|GammaBeta|softmax|Softmax",
    "dropout": "dropout|philox|distribution",
    "copies and casts": "copy|Memcpy|Memset|cat|transpose",
    "embeddings": "embedding|index|scatter|gather|radix|Sort|scan",
}


def breakdown(events: Any) -> dict[str, float]:
    """Milliseconds of the device by kind of kernel, of a profiler's events."""
    found = dict.fromkeys([*KINDS, "other (activations, sums)"], 0.0)
    for event in events:
        if event.device_type == torch.autograd.DeviceType.CUDA and event.device_time:
            kind = next((name for name, words in KINDS.items() if re.search(words, event.name)), "other (activations, sums)")
            found[kind] += event.device_time / 1e3
    return found


def on_device(device: torch.device, budgets: list[int], config: Any, rows: int) -> list[dict[str, Any]]:
    """A random model on random sentences of PhraseBank's lengths: sentences a second beside the peers, and the share of the chip."""
    from transformers import AutoModelForSequenceClassification

    labels = ["negative", "neutral", "positive"]
    recipe = bootstrap.load_params().train.model_copy(update={"epochs": EPOCHS, "determinism": "fast", "ema": 0.99})
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(3.25, 0.45, rows)), 5, 128).astype(int)  # PhraseBank in word pieces: median 26, mean 29
    ids = [rng.integers(1000, config.vocab_size, n).astype(np.int32) for n in lengths]
    labelled = Rows(ids, rng.integers(0, 3, rows))
    data = Data(
        labelled, np.eye(3, dtype=np.float32)[labelled.labels], np.ones(rows, dtype=np.float32), Rows(ids[:64], labelled.labels[:64]), 0
    )
    hardware = Hardware(device, torch.bfloat16)
    rate = matrix_rate(device, torch.bfloat16, 8192 if device.type == "cuda" else 512)
    click.echo(f"{torch.cuda.get_device_name() if device.type == 'cuda' else 'cpu'}: {rate / 1e12:.1f} TFLOP/s in bf16 by itself")
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
        few = replace(data, train=Rows(ids[:PEERS], labelled.labels[:PEERS]))
        theirs(few, data.validation, labels, folder, 1, 0)  # what a first run sets up is nobody's
        peers = {
            "trainer-defaults": theirs(few, data.validation, labels, folder, 1, 0)[0],
            "trainer-tuned": theirs(few, data.validation, labels, folder, 1, 0, bf16=True, train_sampling_strategy="group_by_length")[0],
        }
        for budget in budgets:
            model = load_model(folder, labels, "sdpa", new_head=True).to(device)
            clock = Clock()
            fit(model, data, recipe.model_copy(update={"batch_tokens": budget}), hardware, lambda *_: {"macro_f1": 0.0}, [clock])
            ours = EPOCHS * rows / clock.seconds
            share, steady = (flops(config, lengths) / seconds / rate for seconds in (clock.seconds / EPOCHS, clock.last))
            click.echo(
                f"{budget:>7} tokens a step: {ours:9.1f} sentences/s, {share:.1%} of the chip's bf16 matrix rate; "
                f"{rows / clock.last:.1f}/s and {steady:.1%} in the last epoch"
            )
            if device.type == "cuda":
                with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
                    started = now(device)
                    fit(
                        model, data, recipe.model_copy(update={"batch_tokens": budget, "epochs": 2}), hardware, lambda *_: {"macro_f1": 0.0}
                    )
                    wall = 1e3 * (now(device) - started)
                kinds = breakdown(profiler.events())
                click.echo(f"{'':>10}the device is busy for {sum(kinds.values()) / wall:.0%} of a profiled run, validation included:")
                for kind, ms in sorted(kinds.items(), key=lambda item: -item[1]):
                    click.echo(f"{'':>10}{kind:<28}{ms / sum(kinds.values()):6.1%}")
            for peer, rate_ in peers.items():
                click.echo(f"{'':>10}{ours / rate_:.2f}x {peer} ({rate_:.1f}/s)")
                same = {"name": f"{budget} tokens a step", "peer": peer, "ours": ours, "theirs": rate_, "unit": "sentences/s"}
                found.append(same | {"ratio": ours / rate_, "share_of_matrix_rate": share, "last_epoch": steady})
    return found


@click.command(help=__doc__)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--corpus", "corpora", multiple=True, default=("starter",), show_default=True, help="Name under corpora; may be repeated.")
@click.option("--epochs", default=3, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(device: str, corpora: tuple[str, ...], epochs: int, json_path: Path | None) -> None:
    quiet()
    if device == "cuda":
        from transformers import BertConfig

        rows = on_device(torch.device("cuda"), [16_384, 4_096], BertConfig(num_labels=3), 20_000)
    else:
        rows = on_cpu(list(corpora), epochs)
    if json_path:
        json_path.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
