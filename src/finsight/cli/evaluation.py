"""Commands that say how good a model is."""

from __future__ import annotations

import json
from pathlib import Path

import click

from finsight.command import PATH, edge


@click.command()
@click.option("--markdown", is_flag=True, help="A table for a README or a pull request.")
@edge
def summary(markdown: bool) -> None:
    """What the last `dvc repro` made, and what to try next."""
    from finsight.pipeline.summary import UNBEATEN, as_markdown, as_text, read_summary

    found = read_summary(Path("reports"))
    for line in (as_markdown(found) if markdown else as_text(found)).splitlines():
        click.secho(line, fg="red" if UNBEATEN in line else None)


@click.command()
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
        if name != "baselines" and not name.endswith(("_low", "_high")):
            limits = f"   {found[f'{name}_low']:.4f} to {found[f'{name}_high']:.4f}" if f"{name}_low" in found else ""
            click.echo(f"{name:<28}" + (f"{value:>10}" if isinstance(value, int) else f"{value:>10.4f}") + limits)


@click.command()
@click.option(
    "--base", default="HEAD", show_default=True, help="A git revision, an experiment, a model version's number, champion, challenger."
)
@click.option("--new", default="workspace", show_default=True, help="Likewise, or workspace: what lies in reports/.")
@click.option("--format", "form", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True)
@click.option("--output", type=PATH, help="File to write instead of the terminal.")
@click.option("--images", type=PATH, help="Folder to draw into, as PNGs; Markdown then shows them.")
@edge
def compare(base: str, new: str, form: str, output: Path | None, images: Path | None) -> None:
    """Say whether the new model is better, on the same test rows.

    Ends with 3 where a gate of params.yaml fails, and with 4 where all that is lacking is test rows to show that it is better.
    """
    from finsight import bootstrap
    from finsight.errors import GateError, UndecidedError
    from finsight.files import atomic_file
    from finsight.pipeline.compare import compare
    from finsight.pipeline.comparison import FORMATS, draw
    from finsight.pipeline.gating import failures, undecided

    params = bootstrap.load_params()
    first, second = bootstrap.side(params, base), bootstrap.side(params, new)
    found = compare(first, second, params.polarity, params.evaluate)
    found["gates"] = failures(found, second, params.gates)
    if images:
        found["images"] = draw(found, first, second, images)
    text = FORMATS[form](found)
    if output:
        with atomic_file(output) as partial:
            partial.write_text(text, encoding="utf-8")
    else:
        click.echo(text, nl=False)
    if found["gates"]:
        error = UndecidedError if undecided(found, params.gates, found["gates"]) else GateError
        raise error("; ".join(found["gates"]))
