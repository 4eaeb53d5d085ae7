"""Commands that make and use models."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from finsight.cli.profiling import PROFILE, profiled
from finsight.command import PATH, edge, stop_signal
from finsight.errors import DataError, ParamsError

BUNDLE = Path("models/bundle")
BUNDLE_OPTION = click.option(
    "--bundle",
    type=PATH,
    default=BUNDLE,
    show_default=True,
    help="A folder, or models:/NAME@ALIAS or models:/NAME/VERSION in the registry.",
)
_MEASURING = "measuring once which format is the fastest on this host …"
_LARGE = 2**20  # bytes of a file that takes longer to score than it takes to measure the formats
_BAR = 40  # characters of a word that carries all of the probability


@click.command()
@click.option("--trials", type=click.IntRange(1), help="Trials in all, those of an earlier call among them; tune.trials by default.")
@click.option("--study", type=PATH, default=Path("tune.db"), show_default=True, help="SQLite file that keeps the search.")
@click.option("--prepared", type=PATH, default=Path("data/prepared"), show_default=True)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Trials at once, each in a process with its share of the cores, and a GPU to itself where there are any.",
)
@edge
def tune(trials: int | None, study: Path, prepared: Path, workers: int) -> None:
    """Search for better train parameters on validation (tune in params.yaml); stop and go on as you like."""
    from finsight import bootstrap

    with stop_signal() as stop:
        best = bootstrap.tune(prepared, study, trials, stop, workers)
    click.secho(f"best of the trials: number {best.number}, validation macro-F1 {best.value:.4f}", bold=True)
    click.echo(f"dvc exp run {best.options()}")


@click.command()
@click.argument("texts", nargs=-1)
@BUNDLE_OPTION
@click.option("--graph", help="Format of the bundle to use; the fastest that is known here by default.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@edge
def predict(texts: tuple[str, ...], bundle: Path, graph: str | None, as_json: bool) -> None:
    """Label TEXTS, or the lines of standard input, with an exported bundle."""
    from finsight import load

    wanted = _given(texts)
    model = load(bundle, graph)
    if not as_json:
        click.secho(f"{'label':<12}{''.join(f'{label:>12}' for label in model.labels)}{'score':>8}  text", bold=True)
    for text, found in zip(wanted, model.predict(wanted), strict=True):
        if as_json:
            probabilities = {label: round(p, 6) for label, p in found.probabilities.items()}
            rest = {"score": None if found.score is None else round(found.score, 6), "sure": found.sure}
            click.echo(json.dumps({"text": text, "label": found.label, "probabilities": probabilities, **rest}, ensure_ascii=False))
        else:
            score = "–" if found.score is None else f"{found.score:+.3f}"
            click.echo(f"{found.label:<12}{''.join(f'{p:12.3f}' for p in found.probabilities.values())}{score:>8}  {text}")


@click.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--text", default="text", show_default=True, help="Column of the texts.")
@BUNDLE_OPTION
@click.option("--graph", help="Format of the bundle to use; the fastest that is known here by default.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Who scores a data set.")
@click.option("--address", help="Of a Ray cluster: HOST:PORT or auto; RAY_ADDRESS, else one of this command's own by default.")
@click.option("--workers", type=click.IntRange(1), help="Processes at once; this one with all its cores, or one a core or GPU of Ray.")
@edge
def score(
    source: str, target: str, text: str, bundle: Path, graph: str | None, engine: str, address: str | None, workers: int | None
) -> None:
    """Score the texts of IN (.csv, .tsv, .jsonl, .parquet), of any size, to OUT (.csv, .jsonl, .parquet); a killed run goes on.

    Or those of a data set: IN a folder or s3://BUCKET/PREFIX of Parquet files, or one such file, and OUT another folder or prefix.
    """
    from finsight import located, runtime
    from finsight.adapters.progress import row_bars
    from finsight.bundle import bundle_digest
    from finsight.pipeline.score import score

    if address and engine != "ray":
        raise ParamsError("--address: is that of a Ray cluster; give --engine ray, too")
    if data_set := engine == "ray" or workers is not None or _is_place(source) or _is_place(target):
        large = True
    else:
        large = Path(source).is_file() and Path(source).stat().st_size > _LARGE
    folder = located(bundle)
    if large:
        graph = runtime.settled(folder, graph, lambda: click.secho(_MEASURING, fg="cyan", err=True))
    with row_bars() as progress:
        if data_set:
            from finsight.bootstrap.score_set import score_set

            scored = score_set(source, target, text, bundle, str(graph), engine, address, workers, progress)
        else:
            model = runtime.model(folder, graph)
            scored = score(Path(source), Path(target), text, model, f"{bundle_digest(folder)} {model.format}", progress)
    gone_on = f", {scored.before} of them by an earlier run" if scored.before else ""
    click.echo(f"{target}: {scored.rows} rows{gone_on}")
    if scored.without_text:
        click.secho(f"{scored.without_text} rows have no text, and no prediction", fg="yellow", err=True)


def _is_place(name: str) -> bool:
    """Whether files lie below it, rather than that it is one."""
    return name.startswith("s3://") or name.endswith("/") or Path(name).is_dir()


@click.command()
@click.argument("texts", nargs=-1)
@click.option("--label", help="Label to explain; the most probable one by default.")
@BUNDLE_OPTION
@click.option("--graph", help="Format of the bundle to use; the fastest that is known here by default.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@edge
def explain(texts: tuple[str, ...], label: str | None, bundle: Path, graph: str | None, as_json: bool) -> None:
    """Show what each word of TEXTS, or of the lines of standard input, does for the label: what its probability loses without it."""
    from finsight import load
    from finsight.pipeline.explain import explain

    wanted = _given(texts)
    model = load(bundle, graph)
    labels = model.labels
    if label is not None and label not in labels:
        raise DataError(f"--label: {label!r} is none of the model's labels, {', '.join(labels)}")
    number = None if label is None else labels.index(label)
    found = explain(model.probabilities, wanted, number)
    for text, about in zip(wanted, found, strict=True):
        if as_json:
            words = [[word.text, round(word.effect, 6)] for word in about.words]
            content = {"text": text, "label": labels[about.label], "probability": round(about.probability, 6), "words": words}
            click.echo(json.dumps(content, ensure_ascii=False))
            continue
        click.secho(f"{labels[about.label]} {about.probability:.3f}  {text}", bold=True)
        width = max((len(word.text) for word in about.words), default=0)
        for word in about.words:
            bar = "█" * round(abs(word.effect) * _BAR)
            click.echo(f"  {word.text:<{width}} {word.effect:+.3f} {click.style(bar, fg='green' if word.effect > 0 else 'red')}")


def _given(texts: Sequence[str]) -> list[str]:
    """The texts of the command line, or else of standard input, a line each.

    :raises DataError: when they are not UTF-8.
    """
    try:
        wanted = list(texts) or [line.rstrip("\n") for line in sys.stdin if line.strip()]
        "".join(wanted).encode()  # what is not UTF-8 on a command line arrives as lone surrogates
    except UnicodeError:
        raise DataError("the texts are not UTF-8; convert them, for example with iconv") from None
    return wanted


@click.command()
@click.argument("bundle", type=PATH, default=BUNDLE)
@edge
def fastest(bundle: Path) -> None:
    """Measure which format of BUNDLE is the fastest on this host, and predict with it from now on (FINSIGHT_FORMAT pins another)."""
    from finsight import located, runtime

    bundle = located(bundle)
    found = runtime.measure(bundle)
    runtime.keep(bundle, found)
    for name, rate in sorted(found.rates.items(), key=lambda item: -item[1]):
        click.secho(f"{name:<18}{rate:>10,.0f} texts/s", bold=name == found.format)
    for name, why in found.refused.items():
        click.secho(f"{name}: not used here, since against the reference {why}", fg="yellow", err=True)


@click.command()
@BUNDLE_OPTION
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8080, show_default=True)
@click.option("--cache/--no-cache", default=True, show_default=True, help="Whether results are kept.")
@click.option("--worker/--no-worker", default=True, show_default=True, help="Run jobs here too, where FINSIGHT_REDIS_URL is unset.")
@PROFILE
@edge
def serve(bundle: Path, host: str, port: int, cache: bool, worker: bool, profile: Path | None) -> None:
    """Answer predictions over REST from an exported bundle; one that an alias names (models:/finsight@champion) is followed. Run the
    pipeline's jobs.
    """
    from finsight.service.serving import run

    with profiled(profile):
        run(bundle, host, port, cache, worker)
