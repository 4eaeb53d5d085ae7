"""How work grows with the number of rows: rows per second, and the most memory that a process of its own holds.

`stream` is an epoch of batches that are read from shards while it goes on (`train.stream`), without a model, which would be the same
both times: rows are read, shuffled, put into batches and padded. Beside it stand the same rows held in memory and planned beforehand, as a
training does with what fits. Rows are random token ids, 16 to 32 a row. What a process holds before it sees a row is shown as `start`.
`--json FILE` writes rows of {name, peer, ours, theirs, unit, ratio}; a ratio over 1 is in our favour.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from finsight.params.train import TrainParams

PATH = click.Path(path_type=Path)
GROUP = 32_768  # rows of a row group, as ingest writes them
LABELS = ["negative", "neutral", "positive"]
DIGEST = "0" * 64  # of the backbone that the rows are said to be made for
FLAT = "stream, {} rows, peak memory"


@click.group(help=__doc__)
def main() -> None:
    pass


def peak() -> float:
    """The most MiB that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_prepared(folder: Path, n: int) -> None:
    """What training reads of a prepared folder, with random tokens for n rows."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    from finsight.files import write_json
    from finsight.pipeline.prepare import TOKEN_IDS

    rng = np.random.default_rng(0)
    for split, rows in (("train", n), ("validation", 100)):
        schema = pa.schema([("label_id", pa.int16()), ("agreement", pa.int16())])
        arrow = pa.ipc.new_file(str(folder / f"{split}.arrow"), TOKEN_IDS)
        with pq.ParquetWriter(folder / f"{split}.parquet", schema) as labels, arrow as tokens:
            for start in range(0, rows, GROUP):
                size = min(GROUP, rows - start)
                offsets = np.r_[0, np.cumsum(rng.integers(16, 33, size))].astype(np.int32)
                ids = pa.ListArray.from_arrays(offsets, rng.integers(1, 30_000, offsets[-1], dtype=np.int32))
                tokens.write_table(pa.table([ids], schema=TOKEN_IDS))
                known = [pa.array(rng.integers(0, 3, size), pa.int16()), pa.nulls(size, pa.int16())]
                labels.write_table(pa.table(known, schema=schema))
    words = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1}, "[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder / "tokenizer")
    write_json(folder / "backbone.json", {"name": "none", "sha256": DIGEST, "license": "none", "max_length": 32})


def recipe() -> TrainParams:
    """The recipe of params.yaml, for one epoch."""
    from finsight.params.file import load_params

    return load_params().train.model_copy(update={"epochs": 1})


@main.command("epoch", hidden=True)
@click.argument("prepared", type=PATH)
@click.argument("shards", type=PATH, required=False)
def epoch(prepared: Path, shards: Path | None) -> None:
    """One epoch of batches, of shards or of rows that are held; prints rows per second and memory as JSON."""
    import psutil

    from finsight.adapters.local_files import LocalFiles
    from finsight.modeling.batching import collate
    from finsight.modeling.epochs import BEGIN
    from finsight.modeling.stream import order
    from finsight.pipeline.training_data import read_data, training_data
    from finsight.ports import Backbone

    start, begun = psutil.Process().memory_info().rss / 2**20, time.perf_counter()
    backbone = Backbone("none", prepared, DIGEST, "none")
    data = training_data(prepared, LABELS, recipe(), backbone, LocalFiles(shards)) if shards else read_data(prepared, LABELS, recipe())
    rows = 0
    for step in order(data, recipe(), 1, lambda lengths: lengths).steps(0, BEGIN):
        for batch in step.batches:
            collate([batch.data.train.ids[row] for row in batch.rows], data.pad_id)
            rows += len(batch.rows)
    seconds = time.perf_counter() - begun
    click.echo(json.dumps({"rows": rows, "rows_per_second": rows / seconds, "start": start, "peak": peak()}))


@main.command("make", hidden=True)
@click.argument("prepared", type=PATH)
@click.argument("shards", type=PATH)
@click.argument("rows", type=int)
def make(prepared: Path, shards: Path, rows: int) -> None:
    """A prepared folder, and its training rows as shards; prints memory as JSON."""
    from finsight.adapters.local_files import LocalFiles
    from finsight.pipeline.token_shards import write_shards

    prepared.mkdir()
    make_prepared(prepared, rows)
    write_shards(prepared, LABELS, LocalFiles(shards), 1_000_000)
    click.echo(json.dumps({"peak": peak()}))


def apart(command: str, *arguments: object) -> dict[str, float]:
    """What a command prints that runs in a process of its own. Its peak starts from what this one holds: nothing heavy is imported here."""
    done = subprocess.run([sys.executable, __file__, command, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@main.command()
@click.option("--rows", "sizes", type=int, multiple=True, default=(100_000, 1_000_000), show_default=True, help="May be repeated.")
@click.option("--held", type=int, default=1_000_000, show_default=True, help="The most rows that are held in memory, too.")
@click.option("--json", "json_path", type=PATH)
def stream(sizes: tuple[int, ...], held: int, json_path: Path | None) -> None:
    """Training rows read from shards, beside the same rows held in memory."""
    out: list[dict[str, Any]] = []
    first: tuple[int, float] | None = None
    click.echo(f"{'rows':>10}  {'way':<8}{'rows/s':>10}{'start MiB':>11}{'peak MiB':>10}")
    for n in sorted(set(sizes)):
        with tempfile.TemporaryDirectory(prefix="bench-stream-") as temporary:
            prepared, shards = Path(temporary) / "prepared", Path(temporary) / "shards"
            apart("make", prepared, shards, n)
            found = {"stream": apart("epoch", prepared, shards), **({"held": apart("epoch", prepared)} if n <= held else {})}
        for way, of in found.items():
            click.echo(f"{n:>10}  {way:<8}{of['rows_per_second']:>10.0f}{of['start']:>11.0f}{of['peak']:>10.0f}")
        ours = found["stream"]
        if theirs := found.get("held"):
            rates = ours["rows_per_second"], theirs["rows_per_second"]
            out.append(_row(f"stream, {n} rows", "held in memory", *rates, "rows/s", rates[0] / rates[1]))
            out.append(_row(FLAT.format(n), "held in memory", ours["peak"], theirs["peak"], "MiB", theirs["peak"] / ours["peak"]))
        if first:
            out.append(_row(FLAT.format(n), f"flat from {first[0]}", ours["peak"], first[1], "MiB", first[1] / ours["peak"]))
        first = first or (n, ours["peak"])
    if json_path:
        json_path.write_text(json.dumps(out, indent=2) + "\n")


def _row(*cells: Any) -> dict[str, Any]:
    return dict(zip(("name", "peer", "ours", "theirs", "unit", "ratio"), cells, strict=True))


if __name__ == "__main__":
    main()
