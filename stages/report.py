"""Write the report for people and the model card, from the other stages' reports."""

from pathlib import Path

import click

from finsight.command import PATH, edge


@click.command(help=__doc__)
@click.option("--reports", type=PATH, required=True, help="Folder of the stages' reports.")
@click.option("--bundle", type=PATH, required=True, help="Folder of the exported bundle.")
@click.option("--page", type=PATH, required=True, help="HTML file to write.")
@click.option("--card", type=PATH, required=True, help="Markdown file to write: the model card.")
@edge
def main(reports: Path, bundle: Path, page: Path, card: Path) -> None:
    from finsight import bootstrap
    from finsight.pipeline.report import report

    params = bootstrap.load_params()
    report(reports, bundle, params.register_.model, bootstrap.flatten(params), page, card)
    click.echo(f"{page}: open it in a browser")


if __name__ == "__main__":
    main()
