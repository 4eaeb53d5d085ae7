"""The arithmetic of 10⁸ and 10⁹ rows, from what was measured: hours, cost, files, requests, memory, and where each ends.

Rates come from the files that `--json` of the other commands wrote; bytes from headlines written here as `finsight score` writes them.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from data import headlines

SAMPLE = 65_536  # rows whose bytes are looked at: those of one part
WRITES, READS = 3_500, 5_500  # requests a second that S3 takes below one prefix, by its documentation
PIECE, TOKENS = 8_192, 24  # rows that a streaming training asks for at once, and tokens a row


def bytes_a_row() -> tuple[float, float]:
    """Of Parquet that is read, and of Parquet that is written."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    def size(table: pa.Table) -> float:
        sink = io.BytesIO()
        pq.write_table(table, sink)
        return len(sink.getvalue()) / SAMPLE

    rng = np.random.default_rng(0)
    table = pa.table({"id": range(SAMPLE), "text": [text for text, _ in headlines(SAMPLE)]})
    probs = rng.dirichlet([0.3, 0.3, 0.3], SAMPLE).astype(np.float32)
    labels = ["negative", "neutral", "positive"]
    added = {"predicted": np.array(labels)[probs.argmax(axis=1)]} | {f"prob_{name}": probs[:, i] for i, name in enumerate(labels)}
    written = table
    for name, values in (added | {"score": (probs[:, 2] - probs[:, 0]).astype(np.float32)}).items():
        written = written.append_column(name, pa.array(values))
    return size(table), size(written)


def manifest_bytes() -> float:
    """Of the entry of a part in the list of a data set's parts."""
    from finsight.pipeline.score_parts import Part

    part = Part("part-00000000.parquet", "headlines/2026-11-28/00000.parquet", 10**8, 10**18, 10**6, SAMPLE)
    return len(json.dumps(asdict(part), indent=2))


def measured(paths: Sequence[Path], begins: str, ends: str) -> list[tuple[int, float]]:
    """Rows and our value, by rows, of what was measured under names that begin and end so."""
    rows = [row for path in paths for row in json.loads(path.read_text()) if row["name"].startswith(begins) and row["name"].endswith(ends)]
    if not rows:
        files = ", ".join(map(str, paths))
        raise click.UsageError(f"no '{begins}…{ends}' in {files}; run that part of bench/scale.py with --json first")
    return sorted((int(row["name"].split(", ")[1].split()[0]), row["ours"]) for row in rows)


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--rows", "sizes", type=int, multiple=True, default=(10**8, 10**9), show_default=True, help="May be repeated.")
@click.option("--cores", default=256, show_default=True, help="Of the cluster that scores.")
@click.option("--core-hour", default=0.05, show_default=True, help="Price of a core for an hour, in any currency.")
@click.option("--gpu-hour", default=4.0, show_default=True, help="Price of a GPU for an hour.")
@click.option("--train-core", type=float, required=True, help="Rows a second that a core learns from (bench/train.py).")
@click.option("--train-gpu", type=float, required=True, help="Rows a second that a GPU learns from (bench/train.py --device cuda).")
def sizes(
    results: tuple[Path, ...], sizes: tuple[int, ...], cores: int, core_hour: float, gpu_hour: float, train_core: float, train_gpu: float
) -> None:
    """What 10⁸ and 10⁹ rows take, from RESULTS of the other commands (--json)."""
    scored, rate = measured(results, "score, ", " 2 workers")[-1]
    _, streamed = measured(results, "stream, ", " rows")[-1]
    (few, less), *_, (many, more) = measured(results, "prepare, ", "2 workers, peak memory")
    a_row = (more - less) * 2**20 / (many - few)
    given, written = bytes_a_row()
    a_core = rate / 2
    click.echo(f"score: {a_core:.0f} rows/s a core, of {scored} rows; {given:.0f} bytes a row are read and {written:.0f} written")
    click.echo(f"prepare: {a_row:.0f} bytes a row on the machine that drives, of {few} to {many} rows")
    click.echo(f"train: {streamed:.0f} rows/s are read from shards; a core learns from {train_core:g} a second, a GPU from {train_gpu:g}")
    table: dict[str, list[float]] = {
        "score: core-hours": [n / a_core / 3600 for n in sizes],
        f"score: hours on {cores} cores": [n / a_core / cores / 3600 for n in sizes],
        f"score: cost at {core_hour} a core-hour": [n / a_core / 3600 * core_hour for n in sizes],
        "score: parts of 65,536 rows": [-(-n // SAMPLE) for n in sizes],
        "score: Parquet in and out, GB": [n * (given + written) / 1e9 for n in sizes],
        "score: list of parts, MB": [-(-n // SAMPLE) * manifest_bytes() / 1e6 for n in sizes],
        f"score: S3 writes a second on {cores} cores (of {WRITES})": [a_core * cores / SAMPLE] * len(sizes),
        "prepare: memory of the driving machine, GB": [n * a_row / 1e9 for n in sizes],
        "train: core-hours an epoch": [n / train_core / 3600 for n in sizes],
        "train: hours an epoch, one GPU": [n / train_gpu / 3600 for n in sizes],
        "train: hours an epoch, eight GPUs, each as fast": [n / train_gpu / 8 / 3600 for n in sizes],
        f"train: cost of an epoch at {gpu_hour} a GPU-hour": [n / train_gpu / 3600 * gpu_hour for n in sizes],
        "train: shards of a million rows": [-(-n // 10**6) for n in sizes],
        "train: tokens to read, GB before compression": [n * TOKENS * 4 / 1e9 for n in sizes],
        "train: requests an epoch": [-(-n // PIECE) for n in sizes],
        f"train: S3 reads a second, eight GPUs (of {READS})": [train_gpu * 8 / PIECE] * len(sizes),
        "train: list of pieces, MB": [-(-n // PIECE) * 40 / 1e6 for n in sizes],
    }
    click.echo(f"\n{'rows':<56}" + "".join(f"{n:>16,}" for n in sizes))
    for name, values in table.items():
        click.echo(f"{name:<56}" + "".join(f"{value:>16,.{0 if value >= 100 else 2}f}" for value in values))
