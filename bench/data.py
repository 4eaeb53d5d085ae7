"""Data stages from 10^4 to 10^6 rows: seconds and peak memory of each, and ingest + prepare beside `datasets`.

Peer: datasets-map, `load_dataset("csv", …).map(tokenize, batched=True)` at its defaults with an empty cache, the same tokenizer and
length. Ours reads the same CSV file, checks each row, hashes, finds near-duplicates, splits and tokenises, with an empty token cache.
Each is timed inside a process of its own, after its imports; peak memory is the process's, imports included. The peer runs at the largest
size: at 10^4 rows both take a second, most of it for loading the tokenizer. Rows are headlines made of pieces of the starter corpus with
invented names and figures; one in fifty is a wire copy of another.
`--json FILE` writes rows of {name, peer, ours, theirs, unit, ratio}; a ratio over 1 is in our favour.
"""

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

REPO = Path(__file__).resolve().parents[1]
PEER = "datasets-map"
ALLOWED_MIB = 2e9 / 2**20
STAGES = ("ingest", "validate", "prepare")

# Run in a process of its own: imports first, then the clock.
OURS = """
import json, resource, sys, time
from pathlib import Path
import pandas  # pyarrow would import it with its first array
from finsight import bootstrap
stage = sys.argv[1]
params = bootstrap.load_params()
raw, report = Path("corpus.parquet"), Path(f"{stage}.json")
if stage == "ingest":
    from finsight.pipeline.ingest import ingest
    readers = bootstrap.readers(params, params.ingest.corpora)
    work = lambda: ingest(readers, params.labels, params.ingest, params.corpora, Path("corrections.csv"), raw,
                          Path("quarantine.parquet"), report, {}, Path("unlabelled.parquet"))
elif stage == "validate":
    from finsight.pipeline.validate import validate
    work = lambda: validate(raw, Path("validated.json"), params.labels, params.validate_, report=report, docs=Path("docs"),
                            profile=Path("profile.json"), suspects=Path("suspects.csv"),
                            corrections=Path("corrections.csv"))
else:
    from finsight.pipeline.prepare import prepare
    backbone, cache = bootstrap.backbone(params), bootstrap.token_cache()
    texts, lengths = Path("unlabelled.parquet"), Path("lengths.csv")
    work = lambda: prepare(raw, texts, params.labels, {}, params.prepare, backbone, cache, Path("prepared"), report, lengths)
started = time.perf_counter()
work()
print(json.dumps({"seconds": time.perf_counter() - started, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""
THEIRS = """
import json, resource, sys, time
from datasets import load_dataset
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
def tokenize(batch):
    return tokenizer(batch["text"], truncation=True, max_length=128)
started = time.perf_counter()
rows = load_dataset("csv", data_files=sys.argv[2], cache_dir="hf", split="train").map(tokenize, batched=True)
print(json.dumps({"seconds": time.perf_counter() - started, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def headlines(n: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Texts and labels: the head of one starter text, the middle of another, the tail of a third, with invented names and figures."""
    rng = random.Random(seed)
    rows = [row for path in sorted((REPO / "data/starter").glob("*.csv")) for row in csv.DictReader(path.open(encoding="utf-8"))]
    syllables = [a + b for a in "bcdfghklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "is", "on")]
    names = ["".join(rng.choice(syllables) for _ in range(3)).title() for _ in range(20_000)]
    split = [row["text"].split() for row in rows]
    heads, middles = [words[:4] for words in split], [words[4:8] for words in split]
    tails = [(words[-4:], row["label"]) for words, row in zip(split, rows, strict=True)]
    kept: list[tuple[str, str]] = []
    for _ in range(n):
        if kept and rng.random() < 0.02:
            text, label = rng.choice(kept)
            yield f"{text} {rng.randrange(100)} %", label
            continue
        tail, label = rng.choice(tails)
        words = [rng.choice(names), *rng.choice(heads), *rng.choice(middles), *tail]
        text = " ".join(str(rng.randrange(1000)) if word.isdigit() else word for word in words)
        if len(kept) < 10_000:
            kept.append((text, label))
        yield text, label


def project(folder: Path, n: int) -> None:
    """A params.yaml and a corpus of n rows in ``folder``."""
    (folder / "data/external/wire").mkdir(parents=True)
    with (folder / "data/external/wire/rows.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(headlines(n))
    yaml = YAML()
    params = yaml.load((REPO / "params.yaml").read_text(encoding="utf-8"))
    params["corpora"] = {"wire": {"path": "data/external/wire", "format": "csv", "license": "CC0-1.0"}}
    params["ingest"]["corpora"] = ["wire"]
    params["prepare"]["split"] = YAML(typ="safe").load(
        "{method: stratified, own: true, validation: 0.1, test: 0.2, folds: 10, fold: 0, held_out: [], seed: 42}"
    )
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    (folder / "corrections.csv").write_text("hash,label,id,text\n")


def child(code: str, folder: Path, *arguments: str) -> dict[str, float]:
    """Seconds and peak MiB that a script reports of itself."""
    environment = os.environ | {"FINSIGHT_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"{' '.join(arguments)}: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(n: int, backbone: Path, peer: bool) -> dict[str, dict[str, float]]:
    """Seconds and peak MiB of our stages on n rows, and the peer's seconds."""
    with tempfile.TemporaryDirectory(prefix="bench-data-") as temporary:
        folder = Path(temporary)
        project(folder, n)
        (folder / "cache").mkdir()
        (folder / "cache/backbones").symlink_to(backbone.parent)
        theirs = child(THEIRS, folder, str(backbone), "data/external/wire/rows.csv")["seconds"] if peer else 0.0
        ours = {stage: child(OURS, folder, stage) for stage in STAGES}
    return {
        "both": {"seconds": ours["ingest"]["seconds"] + ours["prepare"]["seconds"], "mib": 0.0},
        **ours,
        PEER: {"seconds": theirs or 0.0},
    }


def compare(n: int, found: dict[str, dict[str, float]], least: int, first: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Rows for n: against the peer, against growth in proportion from the smallest size on, and against the memory that is allowed."""
    pairs = []
    if theirs := found[PEER]["seconds"]:
        pairs.append((f"ingest + prepare, {n} rows", PEER, found["ingest"]["seconds"] + found["prepare"]["seconds"], theirs, "s"))
    for stage in STAGES:
        if n > least:
            linear = first[stage]["seconds"] * n / least
            pairs.append((f"{stage}, {n} rows", f"linear from {least}", found[stage]["seconds"], linear, "s"))
        pairs.append((f"{stage}, {n} rows, peak memory", "2 GB", found[stage]["mib"], ALLOWED_MIB, "MiB"))
    keys = ("name", "peer", "ours", "theirs", "unit")
    return [{**dict(zip(keys, pair, strict=True)), "ratio": pair[3] / pair[2]} for pair in pairs]


@click.command(help=__doc__)
@click.option("--rows", "sizes", type=int, multiple=True, default=(10_000, 100_000, 1_000_000), show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(sizes: tuple[int, ...], json_path: Path | None) -> None:
    from finsight import bootstrap

    backbone = bootstrap.backbone(bootstrap.load_params(), "minilm").folder
    click.echo(f"{'':<40}{'ours':>9}{'theirs':>9}  {'unit':<5}{'ratio':>6}  peer")
    rows: list[dict[str, Any]] = []
    first: dict[str, dict[str, float]] = {}
    for n in sorted(sizes):
        found = measure(n, backbone, peer=n == max(sizes))
        first = first or found
        for row in compare(n, found, min(sizes), first):
            click.echo(f"{row['name']:<40}{row['ours']:>9.1f}{row['theirs']:>9.1f}  {row['unit']:<5}{row['ratio']:>6.2f}  {row['peer']}")
            rows.append(row)
    if json_path:
        json_path.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
