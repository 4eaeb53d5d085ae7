"""How work grows: rows a second and peak memory, by size.

`score` and `prepare` put the local engine beside Ray on one machine, by workers; `stream` a training's rows read from shards
beside rows that are held in memory; `sizes` is the arithmetic of more rows than were tried. `--json FILE` writes rows of
{name, peer, ours, theirs, unit, ratio}; a ratio over 1 is in our favour.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import psutil
from ruamel.yaml import YAML

import scale_sizes
import scale_stream
from data import OURS, REPO, child, headlines, project

PEER = "ray"
EVERY = 0.2  # seconds between two looks at the memory
FILE_ROWS = 250_000


def memory(pid: int) -> float:
    """MiB that a process and all below it hold now; what they share counts once (proportional set size)."""
    total = 0
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0.0
    for process in processes:
        try:
            about = process.memory_full_info()
            total += getattr(about, "pss", about.uss)
        except (psutil.Error, OSError):
            pass  # it has ended since
    return total / 2**20


def watched(command: Sequence[str], cores: int) -> tuple[float, float]:
    """Seconds and peak MiB of a command and all that it starts, on so many cores."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    started, peak = time.perf_counter(), 0.0
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, allowed)
    ) as child:
        while child.poll() is None:
            peak = max(peak, memory(child.pid))
            time.sleep(EVERY)
        seconds = time.perf_counter() - started
        assert child.stderr is not None
        if child.returncode:
            raise click.ClickException(f"{' '.join(command)}: {child.stderr.read().strip().splitlines()[-1:]}")
    return seconds, peak


def row(name: str, ours: float, theirs: float, unit: str) -> dict[str, Any]:
    better = ours / theirs if unit == "rows/s" else theirs / ours
    return {"name": name, "peer": PEER, "ours": ours, "theirs": theirs, "unit": unit, "ratio": better}


def show(rows: Iterable[dict[str, Any]], path: Path | None) -> None:
    click.echo(f"\n{'':<48}{'ours':>9}{'theirs':>9}  {'unit':<7}{'ratio':>6}  peer")
    for one in (rows := list(rows)):
        click.echo(f"{one['name']:<48}{one['ours']:>9.0f}{one['theirs']:>9.0f}  {one['unit']:<7}{one['ratio']:>6.2f}  {one['peer']}")
    if path:
        path.write_text(json.dumps(rows, indent=2) + "\n")


def data_set(folder: Path, n: int) -> None:
    """n headlines in files of Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    texts = [text for text, _ in headlines(n)]
    for number, start in enumerate(range(0, n, FILE_ROWS)):
        part = texts[start : start + FILE_ROWS]
        pq.write_table(pa.table({"id": range(start, start + len(part)), "text": part}), folder / f"{number:04d}.parquet")


@click.group(help=__doc__)
def main() -> None: ...


main.add_command(scale_stream.stream)
main.add_command(scale_sizes.sizes)


@main.command()
@click.option("--rows", "sizes", type=int, multiple=True, default=(10_000, 100_000), show_default=True, help="May be repeated.")
@click.option("--workers", "counts", type=int, multiple=True, default=(1, 2), show_default=True, help="May be repeated.")
@click.option("--bundle", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path("models/bundle"), show_default=True)
@click.option("--graph", default="onnx-fp32", show_default=True, help="Format of the bundle.")
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def score(sizes: tuple[int, ...], counts: tuple[int, ...], bundle: Path, graph: str, json_path: Path | None) -> None:
    """`finsight score` of a folder of Parquet: from the start of the command to its end, on as many cores as workers.

    `local` is one process with all these cores, `processes` is `--workers N`, `ray` starts a cluster of its own. The files that they write
    must be the same, byte by byte.
    """
    rows = []
    click.echo(f"{'rows':>9}{'workers':>9}  {'engine':<11}{'seconds':>9}{'rows/s':>9}{'peak MiB':>10}")
    for n in sorted(set(sizes)):
        for workers in counts:
            with tempfile.TemporaryDirectory(prefix="bench-scale-") as temporary:
                source, found = Path(temporary) / "in", {}
                data_set(source, n)
                engines = {"local": [], "processes": ["--workers", str(workers)], "ray": ["--workers", str(workers), "--engine", "ray"]}
                if workers == 1:
                    del engines["processes"]
                for engine, options in engines.items():
                    command = [sys.executable, "-m", "finsight.cli", "score", str(source), f"{temporary}/{engine}"]
                    found[engine] = watched([*command, "--bundle", str(bundle), "--graph", graph, *options], workers)
                    seconds, mib = found[engine]
                    click.echo(f"{n:>9}{workers:>9}  {engine:<11}{seconds:>9.1f}{n / seconds:>9.0f}{mib:>10.0f}")
                    for path in Path(temporary, "local").glob("part-*"):
                        if path.read_bytes() != Path(temporary, engine, path.name).read_bytes():
                            raise click.ClickException(f"{engine}: {path.name} differs from the local engine's")
            name = f"score, {n} rows, {workers} worker{'s' if workers > 1 else ''}"
            rows.append(row(name, n / found["local"][0], n / found["ray"][0], "rows/s"))
            rows.append(row(f"{name}, peak memory", found["local"][1], found["ray"][1], "MiB"))
    show(rows, json_path)


@main.command()
@click.option("--rows", "sizes", type=int, multiple=True, default=(10_000, 100_000, 1_000_000), show_default=True, help="May be repeated.")
@click.option("--workers", "counts", type=int, multiple=True, default=(1, 2), show_default=True, help="May be repeated.")
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def prepare(sizes: tuple[int, ...], counts: tuple[int, ...], json_path: Path | None) -> None:
    """The stage `prepare` with an empty token cache: from the start of the command to its end, on as many cores as workers.

    `local` is one process with all these cores, `processes` is `prepare.workers: N`, `ray` starts a cluster of its own. What they write is
    compared, byte by byte.
    """
    from finsight import bootstrap

    backbone = bootstrap.backbone(bootstrap.load_params(), "minilm").folder
    rows = []
    click.echo(f"{'rows':>9}{'workers':>9}  {'engine':<11}{'seconds':>9}{'rows/s':>9}{'peak MiB':>10}")
    for n in sorted(set(sizes)):
        with tempfile.TemporaryDirectory(prefix="bench-scale-") as temporary:
            folder = Path(temporary)
            project(folder, n)
            (folder / "cache").mkdir()
            (folder / "cache/backbones").symlink_to(backbone.parent)
            child(OURS, folder, "ingest")
            written = set()
            for workers in counts:
                engines = {"local": ("local", None), "processes": ("local", workers), "ray": ("ray", workers)}
                if workers == 1:
                    del engines["processes"]
                found = {}
                for name, (engine, processes) in engines.items():
                    found[name] = prepared(folder, engine, processes, workers)
                    written.add(digest(folder))
                    seconds, mib = found[name]
                    click.echo(f"{n:>9}{workers:>9}  {name:<11}{seconds:>9.1f}{n / seconds:>9.0f}{mib:>10.0f}")
                    if len(written) > 1:
                        raise click.ClickException(f"{name}: what was written differs from what the local engine writes")
                name = f"prepare, {n} rows, {workers} worker{'s' if workers > 1 else ''}"
                rows.append(row(name, n / found["local"][0], n / found["ray"][0], "rows/s"))
                rows.append(row(f"{name}, peak memory", found["local"][1], found["ray"][1], "MiB"))
    show(rows, json_path)


def prepared(folder: Path, engine: str, processes: int | None, cores: int) -> tuple[float, float]:
    """Seconds and peak MiB of the stage in a folder with its tables."""
    yaml = YAML()
    params = yaml.load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["prepare"].update({"engine": engine, "workers": processes})
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    shutil.rmtree(folder / "cache/tokens", ignore_errors=True)
    files = {"--corpus": "corpus.parquet", "--unlabelled": "unlabelled.parquet", "--prepared": "prepared", "--report": "prepare.json"}
    options = [str(folder / word) if word in files.values() else word for pair in files.items() for word in pair]
    set_up = ["env", "-u", "RAY_ADDRESS", "-C", str(folder), f"FINSIGHT_CACHE={folder / 'cache'}"]
    command = [*set_up, sys.executable, str(REPO / "stages/prepare.py"), *options, "--lengths", str(folder / "lengths.csv")]
    return watched(command, cores)


def digest(folder: Path) -> str:
    """Of all that the stage wrote."""
    files = [*sorted((folder / "prepared").rglob("*")), folder / "prepare.json", folder / "lengths.csv"]
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files if path.is_file())).hexdigest()


if __name__ == "__main__":
    main()
