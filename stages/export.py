"""Export the checkpoint as a bundle of ONNX graphs, compare each with the checkpoint, and refuse what differs."""

from pathlib import Path

import click

from finsight.command import PATH, edge


@click.command(help=__doc__)
@click.option("--checkpoint", type=PATH, required=True, help="Folder of the fine-tuned model.")
@click.option("--test", type=PATH, required=True, help="Parquet file of the test rows.")
@click.option("--metrics", type=PATH, required=True, help="JSON file of the checkpoint's metrics.")
@click.option("--prepare", "prepare_report", type=PATH, required=True, help="JSON file of prepare, which names the backbone.")
@click.option("--bundle", type=PATH, required=True, help="Folder to write: graphs, tokenizer, bundle.json.")
@click.option("--report", type=PATH, required=True, help="JSON file to write: differences, sizes, speeds.")
@edge
def main(checkpoint: Path, test: Path, metrics: Path, prepare_report: Path, bundle: Path, report: Path) -> None:
    from finsight import bootstrap
    from finsight.pipeline.export import export

    params = bootstrap.load_params()
    reference = bootstrap.checkpoint_classifier(checkpoint, params)
    licenses = {name: params.corpora[name].license for name in params.ingest.corpora}
    found = export(
        checkpoint,
        reference,
        bootstrap.bundle_classifier,
        test,
        params.export,
        params.prepare.max_length,
        licenses,
        params.polarity,
        prepare_report,
        metrics,
        bundle,
        report,
    )
    for name, measured in found["formats"].items():
        click.echo(f"{name}: differs by {measured['max_abs_diff']:.1e} at most, {measured['label_flip_rate']:.2%} of the labels flip")


if __name__ == "__main__":
    main()
