"""`finsight score` by size: seconds and peak memory of the whole command on CSV files of N rows, each in a process of its own.

There is no peer. Time beyond the start (that of one row, the best of three) stands beside growth in proportion from the smallest size on,
and peak memory beside the smallest size's: ratios near 1 or over it say that time is linear and memory flat. Rows are those of
bench/data.py. The smallest size has to take well longer than the start for this to say anything. A million rows take hours with a real
model on two cores; how memory grows shows as well with `--bundle` of a tiny one.
`--json FILE` writes rows of {name, peer, ours, theirs, unit, ratio}; a ratio over 1 is in our favour.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from data import headlines


def measure(n: int, bundle: Path, graph: str | None) -> tuple[float, float]:
    """Seconds and peak MiB of `finsight score` on n rows."""
    with tempfile.TemporaryDirectory(prefix="bench-score-") as temporary:
        source, target = Path(temporary) / "rows.csv", Path(temporary) / "scored.parquet"
        with source.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows(headlines(n))
        command = [sys.executable, "-m", "finsight.cli", "score", str(source), str(target), "--bundle", str(bundle)]
        command += ["--graph", graph] if graph else []
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        # A child's peak starts from what its parent held at the fork: nothing heavy may be imported here.
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise click.ClickException(f"{' '.join(command)}: ended with {child.returncode}")
    return seconds, usage.ru_maxrss / 1024


def compare(sizes: list[int], found: dict[int, tuple[float, float]]) -> list[dict[str, Any]]:
    """Rows: each size beside the smallest."""
    least, rows = sizes[0], []
    first_seconds, first_mib = found[least]
    for n in sizes[1:]:
        (seconds, mib), linear = found[n], first_seconds * n / least
        rows.append((f"finsight score, {n} rows", f"linear from {least}", seconds, linear, "s", linear / seconds))
        rows.append((f"finsight score, {n} rows, peak memory", f"flat from {least}", mib, first_mib, "MiB", first_mib / mib))
    return [dict(zip(("name", "peer", "ours", "theirs", "unit", "ratio"), row, strict=True)) for row in rows]


@click.command(help=__doc__)
@click.option("--rows", "sizes", type=int, multiple=True, default=(1_000, 10_000), show_default=True, help="May be repeated.")
@click.option("--bundle", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path("models/bundle"), show_default=True)
@click.option("--graph", help="Format of the bundle; the one that predicts here by default.")
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(sizes: tuple[int, ...], bundle: Path, graph: str | None, json_path: Path | None) -> None:
    started, held = min(measure(1, bundle, graph) for _ in range(3))
    click.echo(f"{'rows':>9}{'seconds':>10}{'rows/s':>9}{'peak MiB':>10}")
    click.echo(f"{'start':>9}{started:>10.1f}{'':>9}{held:>10.0f}")
    found: dict[int, tuple[float, float]] = {}
    for n in sorted(set(sizes)):
        seconds, mib = measure(n, bundle, graph)
        found[n] = seconds - started, mib
        click.echo(f"{n:>9}{found[n][0]:>10.1f}{n / found[n][0]:>9.0f}{mib:>10.0f}")
    click.echo(f"\n{'':<42}{'ours':>9}{'theirs':>9}  {'unit':<5}{'ratio':>6}  peer")
    rows = compare(sorted(found), found)
    for row in rows:
        click.echo(f"{row['name']:<42}{row['ours']:>9.1f}{row['theirs']:>9.1f}  {row['unit']:<5}{row['ratio']:>6.2f}  {row['peer']}")
    if json_path:
        json_path.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
