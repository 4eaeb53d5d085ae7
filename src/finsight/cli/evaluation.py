"""Commands that say how good a model is."""

from __future__ import annotations

import json
import os
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
@click.option("--slices", is_flag=True, help="Those of reports/slices.json instead, as one JSON object.")
@edge
def metrics(predictions: Path, as_json: bool, slices: bool) -> None:
    """Compute the numbers of reports/metrics.json anew from the predictions: all but calibration, protocol and behaviour."""
    from finsight.params.file import load_params
    from finsight.pipeline.predictions import by_slice, measure, read_predictions

    params = load_params()
    answers = read_predictions(predictions)
    if slices:
        click.echo(json.dumps(by_slice(answers, params.evaluate), indent=2))
        return
    found = measure(answers, params.polarity, params.evaluate)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    with_limits = [name for name in found if {f"{name}_low", f"{name}_high"} <= found.keys()]
    limits_of = {f"{name}_{end}" for name in with_limits for end in ("low", "high")}
    for name, value in found.items():
        if name != "baselines" and name not in limits_of:
            limits = f"   {found[f'{name}_low']:.4f} to {found[f'{name}_high']:.4f}" if name in with_limits else ""
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
        here = (output or Path("x")).resolve().parent  # links are read from where the Markdown lies
        found["images"] = [os.path.relpath(images.resolve() / name, here) for name in draw(found, first, second, images)]
    text = FORMATS[form](found)
    if output:
        with atomic_file(output) as partial:
            partial.write_text(text, encoding="utf-8")
    else:
        click.echo(text, nl=False)
    if found["gates"]:
        error = UndecidedError if undecided(found, params.gates, found["gates"]) else GateError
        raise error("; ".join(found["gates"]))
