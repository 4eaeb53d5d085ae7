"""The ``finsight`` command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from finsight import __version__
from finsight.command import PATH, edge, stop_signal
from finsight.errors import DataError, ParamsError

BUNDLE = Path("models/bundle")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Build, prove, export, register and serve financial-sentiment models."""


@main.command()
@click.argument("name", required=False)
@edge
def backbone(name: str | None) -> None:
    """Fetch and verify a backbone: NAME, or the one that train.backbone names."""
    from finsight import bootstrap

    found = bootstrap.backbone(bootstrap.load_params(), name)
    click.echo(f"{found.name}: {found.folder}, weights {found.digest[:12]}…, licence {found.license}")


@main.group()
def corpus() -> None:
    """Bring labelled text in."""


@corpus.command("add")
@click.argument("name")
@click.argument("source")
@click.option("--sha256", metavar="HEX", help="Digest that it must have; of several files, of the lines that sha256sum prints for them.")
@click.option("--revision", metavar="COMMIT", help="Commit of a data set of the hub; it needs one.")
@edge
def corpus_add(name: str, source: str, sha256: str | None, revision: str | None) -> None:
    """Bring a corpus to data/external/NAME, put it under DVC, and say how to use it.

    SOURCE is a file, a folder, a pattern, https://…, s3://bucket/key, or a data set of the Hugging Face hub (hf://owner/name).
    """
    from finsight import bootstrap
    from finsight.adapters.external import add_corpus
    from finsight.adapters.proposal import propose
    from finsight.params.file import load_params
    from finsight.settings import load_settings

    try:
        labels = load_params().labels
    except ParamsError as error:
        labels = ["negative", "neutral", "positive"]
        click.secho(f"warning: {error}", fg="yellow", err=True)
    folder, origin = add_corpus(name, source, load_settings(), sha256, revision)
    click.echo(f"{folder} is under DVC, and {folder}.dvc is staged in git: commit it, or `dvc exp run --temp` will not see it.")
    click.echo(f"SHA-256 {origin.sha256}, recorded there" + ("." if sha256 else "; with --sha256 only the very same would be taken."))
    click.echo()
    click.echo(propose(name, folder, labels, origin.source, bootstrap.reader))


@corpus.command("show")
@click.argument("name")
@edge
def corpus_show(name: str) -> None:
    """What a corpus of params.yaml holds, and where it came from."""
    from finsight import bootstrap
    from finsight.adapters.external import origin_of
    from finsight.adapters.proposal import describe
    from finsight.params.file import load_params

    params = load_params()
    if name not in params.corpora:
        known = ", ".join(sorted(params.corpora))
        raise ParamsError(f"{name!r} is not under corpora in params.yaml (there: {known}); bring it in with `finsight corpus add`")
    found = params.corpora[name]
    lines, _ = describe(name, found, bootstrap.reader(name, found))
    click.echo("\n".join([*lines, f"licence     {found.license}"]))
    for key, value in origin_of(found.path).items():
        click.echo(f"{key:<11} {value}")


@corpus.command("approve")
@edge
def corpus_approve() -> None:
    """Make the corpora that last passed `validate` the ones that later versions are compared with."""
    from finsight.pipeline.validated import approve

    target = Path("data/validated.json")
    names = approve(Path("reports/profile.json"), target)
    click.echo(f"{target}: {', '.join(names)} {'is' if len(names) == 1 else 'are'} what later versions are compared with; commit it")


@main.command()
@click.option("--trials", type=click.IntRange(1), help="Trials in all, those of an earlier call among them; tune.trials by default.")
@click.option("--study", type=PATH, default=Path("tune.db"), show_default=True, help="SQLite file that keeps the search.")
@click.option("--prepared", type=PATH, default=Path("data/prepared"), show_default=True)
@edge
def tune(trials: int | None, study: Path, prepared: Path) -> None:
    """Search for better train parameters on validation (tune in params.yaml); stop and go on as you like."""
    from finsight import bootstrap

    with stop_signal() as stop:
        best = bootstrap.tune(prepared, study, trials, stop, click.echo)
    click.secho(f"best of the trials: number {best.number}, validation macro-F1 {best.value:.4f}", bold=True)
    click.echo(f"dvc exp run {best.options()}")


@main.command()
@click.option("--predictions", type=PATH, default=Path("reports/predictions.parquet"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@edge
def metrics(predictions: Path, as_json: bool) -> None:
    """Compute every number of reports/metrics.json anew from the predictions."""
    from finsight.params.file import load_params
    from finsight.pipeline.predictions import measure, read_predictions

    params = load_params()
    found = measure(read_predictions(predictions), params.polarity, params.evaluate)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        if not name.endswith(("_low", "_high")):
            limits = f"   {found[f'{name}_low']:.4f} to {found[f'{name}_high']:.4f}" if f"{name}_low" in found else ""
            click.echo(f"{name:<28}" + (f"{value:>10}" if isinstance(value, int) else f"{value:>10.4f}") + limits)


@main.command()
@click.option(
    "--base", default="HEAD", show_default=True, help="A git revision, an experiment, a model version's number, champion, challenger."
)
@click.option("--new", default="workspace", show_default=True, help="Likewise, or workspace: what lies in reports/.")
@click.option("--format", "form", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True)
@click.option("--output", type=PATH, help="File to write instead of the terminal.")
@edge
def compare(base: str, new: str, form: str, output: Path | None) -> None:
    """Say whether the new model is better, on the same test rows; end with 1 where a gate of params.yaml fails."""
    from finsight import bootstrap
    from finsight.errors import GateError
    from finsight.files import atomic_file
    from finsight.pipeline.compare import compare
    from finsight.pipeline.comparison import FORMATS

    params = bootstrap.load_params()
    found = compare(bootstrap.side(params, base), bootstrap.side(params, new), params.polarity, params.evaluate, params.gates)
    text = FORMATS[form](found)
    if output:
        with atomic_file(output) as partial:
            partial.write_text(text, encoding="utf-8")
    else:
        click.echo(text, nl=False)
    if found["gates"]:
        raise GateError("; ".join(found["gates"]))


@main.command()
@click.argument("texts", nargs=-1)
@click.option("--bundle", type=PATH, default=BUNDLE, show_default=True)
@click.option("--graph", help="Format of the bundle to use; its first by default.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@edge
def predict(texts: tuple[str, ...], bundle: Path, graph: str | None, as_json: bool) -> None:
    """Label TEXTS, or the lines of standard input, with an exported bundle."""
    from finsight import bootstrap
    from finsight.domain.metrics import softmax

    try:
        wanted = list(texts) or [line.rstrip("\n") for line in sys.stdin if line.strip()]
        "".join(wanted).encode()  # what is not UTF-8 on a command line arrives as lone surrogates
    except UnicodeError:
        raise DataError("the texts are not UTF-8; convert them, for example with iconv") from None
    classifier = bootstrap.bundle_classifier(bundle, graph)
    probs = softmax(classifier.logits(wanted))
    labels = list(classifier.labels)
    if not as_json:
        click.secho(f"{'label':<12}{''.join(f'{label:>12}' for label in labels)}  text", bold=True)
    for text, row in zip(wanted, probs, strict=True):
        label = labels[int(row.argmax())]
        if as_json:
            probabilities = {name: round(float(p), 6) for name, p in zip(labels, row, strict=True)}
            click.echo(json.dumps({"text": text, "label": label, "probabilities": probabilities}, ensure_ascii=False))
        else:
            click.echo(f"{label:<12}{''.join(f'{p:12.3f}' for p in row)}  {text}")


@main.command()
@click.argument("bundle", type=PATH, default=BUNDLE)
@edge
def verify(bundle: Path) -> None:
    """Recompute every digest of BUNDLE and say what differs."""
    from finsight.bundle import bundle_digest, read_bundle

    manifest = read_bundle(bundle)
    click.echo(f"{bundle}: {len(manifest.files)} files match bundle.json; bundle digest {bundle_digest(bundle)}")


@main.command()
@click.option("--markdown", is_flag=True, help="A table for a README or a pull request.")
@edge
def summary(markdown: bool) -> None:
    """What the last `dvc repro` made, and what to try next."""
    from finsight.pipeline.summary import as_markdown, as_text, read_summary

    found = read_summary(Path("reports"))
    click.echo(as_markdown(found) if markdown else as_text(found))


@main.command()
@click.option("--address", default="127.0.0.1:9000", show_default=True)
@click.option("--root", type=PATH, default=Path(".storage/s3"), show_default=True, help="Folder whose subfolders are the buckets.")
@edge
def storage(address: str, root: Path) -> None:
    """Run a real S3 server on loopback, for development: the `minio` remote of .dvc/config."""
    from finsight.adapters.storage import serve_s3

    serve_s3(root, address)


@main.command()
@click.option("-r", "--remote", default="minio", show_default=True)
@edge
def push(remote: str) -> None:
    """Send data and models to a DVC remote."""
    from finsight.adapters.storage import transfer

    transfer("push", remote)


@main.command()
@click.option("-r", "--remote", default="minio", show_default=True)
@edge
def pull(remote: str) -> None:
    """Fetch data and models from a DVC remote."""
    from finsight.adapters.storage import transfer

    transfer("pull", remote)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True)
@edge
def mlflow(host: str, port: int) -> None:
    """Show runs and models in the browser: MLflow's own pages over the tracking database of this clone."""
    import subprocess

    from finsight.settings import Settings

    uri = Settings().tracking_uri()
    if uri.startswith("http"):
        raise ParamsError(f"MLFLOW_TRACKING_URI names a server: open {uri} in the browser")
    click.echo(f"MLflow on http://{host}:{port} (no login: keep it on this machine), Ctrl-C stops it")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", host, "--port", str(port)]
    sys.exit(subprocess.run(command).returncode)


@main.command()
@click.option("--bundle", type=PATH, default=BUNDLE, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8080, show_default=True)
@edge
def serve(bundle: Path, host: str, port: int) -> None:
    """Answer predictions over REST from an exported bundle."""
    from finsight.service.app import run

    run(bundle, host, port)


if __name__ == "__main__":
    main()
