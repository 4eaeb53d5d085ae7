"""Prepare by size and by who does it: rows/s and peak memory, here with a thread a core, by 1 and 2 processes, and by a Ray cluster.

Each run is `stages/run prepare` with an empty token cache, in processes of its own, the start of Python and of Ray included; a cluster is
one on this machine with as many cores as workers. Peak memory is the largest sum over the command and all that it started, pages that they
share counted once. Rows are those of bench/data.py. The peer is Ray: a ratio over 1 says that here is faster, or takes less memory.
`--json FILE` writes rows of {name, peer, ours, theirs, unit, ratio}.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import psutil
from ruamel.yaml import YAML

from data import OURS, REPO, child, project

THREADS = ("local", None)
WAYS: tuple[tuple[str, int | None], ...] = (THREADS, ("local", 1), ("local", 2), ("ray", 1), ("ray", 2))
Found = dict[tuple[str, int | None], tuple[float, float]]


def prepare(folder: Path, engine: str, workers: int | None) -> tuple[float, float, str]:
    """Seconds and peak MiB of the stage, and the digest of what it wrote."""
    yaml = YAML()
    params = yaml.load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["prepare"] |= {"engine": engine, "workers": workers}
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    shutil.rmtree(folder / "cache/tokens", ignore_errors=True)
    names = ("--corpus", "corpus.parquet"), ("--unlabelled", "unlabelled.parquet"), ("--prepared", "prepared")
    names += ("--report", "prepare.json"), ("--lengths", "lengths.csv")
    command = [sys.executable, str(REPO / "stages/prepare.py"), *(word for pair in names for word in pair)]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {"FINSIGHT_CACHE": str(folder / "cache")}
    started, peak = time.perf_counter(), 0
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, held(psutil.Process(process.pid)))
            time.sleep(0.2)
    if process.returncode:
        raise click.ClickException(f"prepare with {engine}: ended with {process.returncode}")
    seconds = time.perf_counter() - started
    written = [*sorted((folder / "prepared").rglob("*")), folder / "prepare.json", folder / "lengths.csv"]
    digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in written if path.is_file()))
    return seconds, peak / 2**20, digest.hexdigest()


def held(process: psutil.Process) -> int:
    """Bytes that a process and all below it hold."""
    total = 0
    for one in [process, *below(process)]:
        try:
            total += one.memory_full_info().pss
        except (psutil.Error, OSError):  # it has ended
            continue
    return total


def below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def measure(n: int, backbone: Path) -> Found:
    """Seconds and peak MiB of each way; all have to write the same."""
    with tempfile.TemporaryDirectory(prefix="bench-prepare-") as temporary:
        folder = Path(temporary)
        project(folder, n)
        (folder / "cache").mkdir()
        (folder / "cache/backbones").symlink_to(backbone.parent)
        child(OURS, folder, "ingest")
        found, digests = {}, set()
        for way in WAYS:
            *measured, digest = prepare(folder, *way)
            found[way], digests = tuple(measured), digests | {digest}
            told = "a thread a core" if way == THREADS else f"{way[1]} workers"
            click.echo(f"{n:>9}  {way[0]:<6}{told:<16}{found[way][0]:>9.1f}{n / found[way][0]:>10.0f}{found[way][1]:>10.0f}")
    if len(digests) > 1:
        raise click.ClickException(f"{n} rows: what was written differs")
    return found


def compare(n: int, found: Found) -> list[dict[str, Any]]:
    """The default, and as many processes here, beside Ray."""
    rows = []
    for ours, theirs in ((THREADS, ("ray", 2)), (("local", 1), ("ray", 1)), (("local", 2), ("ray", 2))):
        told = "threads" if ours == THREADS else f"{ours[1]} workers"
        for i, unit in enumerate(("s", "MiB")):
            pair = found[ours][i], found[theirs][i]
            name = f"prepare, {n} rows, {told}" + (", peak memory" if unit == "MiB" else "")
            keys = ("name", "peer", "ours", "theirs", "unit", "ratio")
            rows.append(dict(zip(keys, (name, f"ray, {theirs[1]} workers", *pair, unit, pair[1] / pair[0]), strict=True)))
    return rows


@click.command(help=__doc__)
@click.option("--rows", "sizes", type=int, multiple=True, default=(10_000, 100_000, 1_000_000), show_default=True, help="May be repeated.")
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(sizes: tuple[int, ...], json_path: Path | None) -> None:
    from finsight import bootstrap

    backbone = bootstrap.backbone(bootstrap.load_params(), "minilm").folder
    click.echo(f"{'rows':>9}  {'who':<22}{'seconds':>9}{'rows/s':>10}{'peak MiB':>10}")
    rows = [row for n in sorted(set(sizes)) for row in compare(n, measure(n, backbone))]
    click.echo(f"\n{'':<44}{'ours':>9}{'theirs':>9}  {'unit':<5}{'ratio':>6}  peer")
    for row in rows:
        click.echo(f"{row['name']:<44}{row['ours']:>9.1f}{row['theirs']:>9.1f}  {row['unit']:<5}{row['ratio']:>6.2f}  {row['peer']}")
    if json_path:
        json_path.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
