"""Export the checkpoint as a bundle of ONNX graphs, compare each with the checkpoint, and refuse what differs."""

from pathlib import Path

import click

from finsight.command import PATH, edge


@click.command(help=__doc__)
@click.option("--checkpoint", type=PATH, required=True, help="Folder of the fine-tuned model.")
@click.option("--train", type=PATH, required=True, help="Parquet file of the training rows, on which int8 measures what layers get.")
@click.option("--validation", type=PATH, required=True, help="Parquet file of the validation rows, whose tokens count as used.")
@click.option("--test", type=PATH, required=True, help="Parquet file of the test rows.")
@click.option("--metrics", "metrics_report", type=PATH, required=True, help="JSON file of the checkpoint's metrics.")
@click.option("--prepare", "prepare_report", type=PATH, required=True, help="JSON file of prepare, which names the backbone.")
@click.option("--bundle", type=PATH, required=True, help="Folder to write: graphs, tokenizer, bundle.json.")
@click.option("--torchscript", type=PATH, required=True, help="Folder to write: the TorchScript program, where it is wanted.")
@click.option("--torch-export", type=PATH, required=True, help="Folder to write: the torch.export program, where it is wanted.")
@click.option("--report", type=PATH, required=True, help="JSON file to write: differences, sizes, speeds.")
@edge
def main(report: Path, bundle: Path, torchscript: Path, torch_export: Path, **sources: Path) -> None:
    from finsight import bootstrap
    from finsight.pipeline.export import Sources, export

    params = bootstrap.load_params()
    read = Sources(**sources)
    licenses = bootstrap.licences(params)
    facts = {"max_length": params.prepare.max_length, "polarity": params.polarity, "licenses": licenses}
    checkpoint = bootstrap.checkpoint_classifier(read.checkpoint, params)
    programs = {"torchscript": torchscript, "torch-export": torch_export}
    found = export(read, checkpoint, bootstrap.runtimes(), params.export, facts, bundle, programs, report)
    for name, measured in found["formats"].items():
        click.echo(f"{name}: differs by {measured['max_abs_diff']:.1e} at most, {measured['label_flip_rate']:.2%} of the labels flip")
    for name, why in found["left_out"].items():
        click.secho(f"{name}: left out of the bundle, since {why}", fg="yellow", err=True)
    for name, why in found["not_run"].items():
        click.secho(f"{name}: not run, since {why}", fg="yellow", err=True)
    for name, why in found["not_started"].items():
        click.secho(f"{name}: cold start and memory not measured, since {why}", fg="yellow", err=True)


if __name__ == "__main__":
    main()
