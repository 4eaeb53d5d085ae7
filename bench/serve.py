"""The service under load: `finsight serve` beside other ways to serve the same model, one run, client and service on the same cores.

\b
Peers:
  fastapi-pipeline  a plain FastAPI route around `transformers.pipeline` of the checkpoint in fp32, on uvicorn
  mlflow-serve      `mlflow models serve --env-manager local` of the checkpoint in MLflow's own transformers flavor
  mlflow-serve-bundle   the same of our bundle as it is registered: MLflow's server around the graph that we serve
  in-process        the bundle's classifier without a service: all texts at once, and one by one

Each request has one text, and all texts are distinct; our cache of results is off (`--no-cache`). 64 clients ask by `wrk` where it is
installed, else by a client in Python; the cores that it takes are shown. Services take turns, one at a time, `--rounds` times; the
medians count. The latency at 30 % of capacity is of requests at random times; those of `--soak` come by the client in Python.

`--soak SECONDS` asks at twice the capacity instead, and SIGTERM comes while requests do: shown are answers by status, memory, exit code.

`--json FILE` writes rows of {name, peer, ours, theirs, unit, ratio}; a ratio over 1 is in our favour. In-process is not to be beaten:
there the wanted ratios are 0.5 or more.
"""

import json
import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import click

from finsight.environment import quiet
from peers import services

PIPELINE, MLFLOW, MLFLOW_BUNDLE, IN_PROCESS = "fastapi-pipeline", "mlflow-serve", "mlflow-serve-bundle", "in-process"
PEERS = [PIPELINE, MLFLOW, MLFLOW_BUNDLE]
CLIENTS = 64
DISTINCT = 50_000
LIGHT = 0.3  # of capacity
SINGLES = 100
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def distinct(test: Path) -> list[str]:
    """The test rows again and again, each time with another number at its end."""
    import pyarrow.parquet as pq

    rows = list(dict.fromkeys(pq.read_table(test, columns=["text"])["text"].to_pylist()))
    random.Random(0).shuffle(rows)
    return [f"{rows[i % len(rows)]} ({i})" for i in range(DISTINCT)]


def in_process(bundle: Path, texts: list[str], seconds: float) -> tuple[float, float]:
    """Texts a second, and the median of milliseconds for one."""
    from finsight import runtime

    model = runtime.model(bundle)
    model.predict(texts[:CLIENTS])
    singles = []
    for text in texts[: SINGLES + 1]:
        began = time.perf_counter()
        model.predict([text])
        singles.append(1000 * (time.perf_counter() - began))
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        done += len(model.predict(texts[done : done + 256]))
    return done / (time.perf_counter() - began), median(singles[1:])


def compare(checkpoint: Path, bundle: Path, texts: list[str], names: tuple[str, ...], seconds: float, rounds: int) -> list[dict[str, Any]]:
    from finsight.bundle import read_bundle

    longest = read_bundle(bundle).max_length
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("finsight", *names)}
    alone: list[tuple[float, float]] = []
    light: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as work:
        ways = {
            "finsight": lambda: services.ours(bundle, texts, Path(work)),
            PIPELINE: lambda: services.fastapi_pipeline(checkpoint, longest, texts, Path(work)),
            MLFLOW: lambda: services.mlflow_serve(checkpoint, longest, texts, Path(work)),
            MLFLOW_BUNDLE: lambda: services.mlflow_serve_bundle(bundle, texts, Path(work)),
        }
        for number in range(1, rounds + 1):
            alone.append(in_process(bundle, texts, seconds))
            click.echo(f"round {number}: {IN_PROCESS} {alone[-1][0]:.0f} texts/s, one text {alone[-1][1]:.1f} ms")
            for name, its in found.items():
                with ways[name]() as service:
                    service.load(2, CLIENTS)  # warm
                    its.append(service.load(seconds, CLIENTS))
                    said = its[-1]
                    click.echo(
                        f"  {name}: {said['rate']:.0f} answers/s, p50 {said['p50']:.0f} ms, p99 {said['p99']:.0f} ms, "
                        f"client {said['cores']:.2f} cores, {said['statuses']}"
                    )
                    if name == "finsight":
                        light.append(service.load(seconds, CLIENTS, LIGHT * said["rate"]))
                        click.echo(f"  {name} at {LIGHT:.0%}: p50 {light[-1]['p50']:.1f} ms, p99 {light[-1]['p99']:.1f} ms")
    return rows(found, alone, light)


def rows(found: dict[str, list[dict[str, Any]]], alone: list[tuple[float, float]], light: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def middle(name: str, what: str) -> float:
        return median(one[what] for one in found[name])

    made = []
    for peer in (name for name in found if name != "finsight"):
        ours, theirs = middle("finsight", "rate"), middle(peer, "rate")
        made.append((f"{CLIENTS} clients, throughput", peer, ours, theirs, "answers/s", ours / theirs))
        ours, theirs = middle("finsight", "p99"), middle(peer, "p99")
        made.append((f"{CLIENTS} clients, p99", peer, ours, theirs, "ms", theirs / ours))
    cores = len(os.sched_getaffinity(0))
    left = median(rate for rate, _ in alone) * (1 - middle("finsight", "cores") / cores)
    ours = middle("finsight", "rate")
    made.append(("share of the rate left beside the client", IN_PROCESS, ours, left, "texts/s", ours / left))
    ours, theirs = median(one["p50"] for one in light), median(single for _, single in alone)
    made.append((f"p50 at {LIGHT:.0%} of capacity", IN_PROCESS, ours, theirs, "ms", theirs / ours))
    return [dict(zip(("name", "peer", "ours", "theirs", "unit", "ratio"), row, strict=True)) for row in made]


def memory(pid: int) -> float:
    """Resident, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def soak(bundle: Path, texts: list[str], seconds: float) -> list[dict[str, Any]]:
    """Twice the capacity, then SIGTERM under load."""
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as work, services.ours(bundle, texts, Path(work)) as service:
        capacity = service.load(5, CLIENTS)["rate"]
        taken: list[float] = []
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(1):
                taken.append(memory(service.process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        found = service.load(seconds, CLIENTS, 2 * capacity, piled=True)
        ended.set()
        watcher.join()
        quarter = max(1, len(taken) // 4)
        early, late = median(taken[quarter : 2 * quarter]), median(taken[-quarter:])
        click.echo(
            f"{2 * capacity:.0f} requests/s for {seconds:.0f} s: {found['statuses']}, p50 {found['p50']:.0f} ms, p99 {found['p99']:.0f} ms"
        )
        threading.Timer(2, service.process.send_signal, (signal.SIGTERM,)).start()
        drained = service.load(6, 8, capacity / 2, piled=True)
        code = service.process.wait(60)
        click.echo(f"memory {early:.0f} MB in the second quarter, {late:.0f} MB in the last")
        click.echo(f"SIGTERM under load: {drained['statuses']} (closed: there was no service any more), exit {code}")
    bad = sum(count for status, count in found["statuses"].items() if status not in ("200", "429", "503"))
    bad += drained["statuses"].get("lost", 0)
    if bad or code:
        raise click.ClickException(f"{bad} requests were neither answered nor refused with 429 or 503; exit code {code}")
    return [
        {
            "name": "memory under twice the capacity",
            "peer": "itself before",
            "ours": late,
            "theirs": early,
            "unit": "MB",
            "ratio": early / late,
        }
    ]


@click.command(help=__doc__)
@click.option("--checkpoint", type=FOLDER, default=Path("models/checkpoint"), show_default=True)
@click.option("--bundle", type=FOLDER, default=Path("models/bundle"), show_default=True)
@click.option("--test", type=FILE, default=Path("data/prepared/test.parquet"), show_default=True)
@click.option("--peer", "names", type=click.Choice(PEERS), multiple=True, default=PEERS, help="By default all.")
@click.option("--seconds", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--soak", "soaked", type=click.IntRange(min=10), help="Seconds at twice the capacity, in place of the comparison.")
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(
    checkpoint: Path,
    bundle: Path,
    test: Path,
    names: tuple[str, ...],
    seconds: int,
    rounds: int,
    soaked: int | None,
    json_path: Path | None,
) -> None:
    quiet()
    texts = distinct(test)
    made = soak(bundle, texts, soaked) if soaked else compare(checkpoint, bundle, texts, names, seconds, rounds)
    click.echo(f"\n{'':<42}{'ours':>9}{'theirs':>9}  {'unit':<10}{'ratio':>6}  peer")
    for row in made:
        click.echo(f"{row['name']:<42}{row['ours']:>9.1f}{row['theirs']:>9.1f}  {row['unit']:<10}{row['ratio']:>6.2f}  {row['peer']}")
    if json_path:
        json_path.write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()
