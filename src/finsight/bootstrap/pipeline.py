"""What the stages of the pipeline work with: parameters, readers, backbones, classifiers, tracker and registry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finsight.params import file
from finsight.params.file import Params, flatten
from finsight.settings import load_settings

if TYPE_CHECKING:
    from finsight.params.corpora import AnyCorpus
    from finsight.params.train import TrainParams
    from finsight.pipeline.export import Runtimes
    from finsight.pipeline.row_groups import Run
    from finsight.pipeline.tracking import Tracked
    from finsight.ports import Backbone, Classifier, CorpusReader, ExperimentTracker, ModelRegistry
    from finsight.shard_ports import FileStore


def load_params() -> Params:
    """params.yaml, checked as a whole before any stage works."""
    from finsight.adapters.backbones import check_backbone

    params = file.load_params()
    check_backbone(params.train.backbone, params.backbones)
    if params.train.teacher:
        check_backbone(params.train.teacher, params.backbones, "train.teacher")
    return params


def recipe(params: Params) -> TrainParams:
    """``train``, with the launch of this machine: FINSIGHT_LAUNCH changes single keys of it.

    :raises ParamsError: when the variable names no key of ``train.launch``, or a value that can't be.
    """
    said = load_settings().launch
    return file.on_this_machine(params.train, dict(part.strip().partition("=")[::2] for part in said.split(","))) if said else params.train


def reader(name: str, corpus: AnyCorpus) -> CorpusReader:
    """A reader for one corpus, by its format."""
    from finsight.adapters.fiqa_corpus import FiqaReader
    from finsight.adapters.phrasebank_corpus import PhraseBankReader
    from finsight.adapters.table_corpus import TableReader
    from finsight.params.corpora import FiqaCorpus, PhraseBankCorpus

    match corpus:
        case PhraseBankCorpus():
            return PhraseBankReader(name, corpus)
        case FiqaCorpus():
            return FiqaReader(name, corpus)
        case _:
            return TableReader(name, corpus)


def readers(params: Params, names: Sequence[str]) -> dict[str, CorpusReader]:
    """A reader for each of the named corpora."""
    return {name: reader(name, params.corpora[name]) for name in names}


def backbone(params: Params, name: str | None = None) -> Backbone:
    """The backbone that ``train.backbone`` (or ``name``) names, verified."""
    from finsight.adapters.backbones import fetch_backbone

    settings = load_settings()
    return fetch_backbone(name or params.train.backbone, params.backbones, settings.cache, settings.s3_endpoint)


def licences(params: Params) -> dict[str, str]:
    """The licence of whatever a model learns from beside its backbone: corpora (also those of texts that are only read), and a teacher."""
    read = params.ingest.unlabelled if params.train.teacher or params.train.adapt.epochs else []
    found = {f"corpus {name}": params.corpora[name].license for name in (*params.ingest.corpora, *read)}
    if name := params.train.teacher:
        known = params.backbones.get(name)
        found["teacher"] = known.license if known else "unknown"
    return found


def teacher(params: Params) -> Backbone | None:
    """The backbone that ``train.teacher`` names, verified; None where there is no teacher."""
    return backbone(params, params.train.teacher) if params.train.teacher else None


def student(params: Params) -> Backbone:
    """The backbone of ``train.backbone``, as one that has seen what its teacher has: it learns from that too."""
    found = backbone(params)
    master = teacher(params)
    return replace(found, trained_on=tuple(sorted({*found.trained_on, *master.trained_on}))) if master else found


def shards(params: Params) -> FileStore | None:
    """The place that ``train.stream.shards`` names; None where it names none."""
    return file_store(params.train.stream.shards) if params.train.stream.shards else None


def file_store(address: str) -> FileStore:
    """The files of a folder of this machine, or below an ``s3://bucket/prefix``."""
    from finsight.adapters.local_files import LocalFiles
    from finsight.adapters.s3_files import S3Files

    return S3Files(address, load_settings().s3_endpoint) if address.startswith("s3://") else LocalFiles(Path(address).resolve())


def token_cache() -> Path:
    """Where token ids are kept by content."""
    return load_settings().cache / "tokens"


@contextmanager
def row_workers(params: Params) -> Iterator[Run]:
    """Who compares and tokenises row groups, as long as the block runs."""
    from finsight.bootstrap.pools import worker_pool
    from finsight.pipeline.row_groups import in_threads

    wanted = params.prepare
    if wanted.engine == "local" and wanted.workers is None:
        yield in_threads
        return
    with worker_pool(wanted.engine, workers=wanted.workers) as pool:
        yield pool.run


def scratch() -> Path:
    """Where a killed training leaves what it goes on from."""
    return load_settings().cache / "training"


def tracker(params: Params) -> ExperimentTracker:
    """MLflow, at the address of the settings."""
    from finsight.adapters.mlflow_tracker import MlflowTracker

    return MlflowTracker(load_settings().tracking_uri(), params.register_.experiment)


def registry(params: Params) -> ModelRegistry:
    """MLflow's model registry, at the address of the settings."""
    from finsight.adapters.mlflow_registry import MlflowRegistry

    return MlflowRegistry(load_settings().tracking_uri(), params.register_.model)


def tracked(params: Params) -> Tracked:
    """An observer that follows a training run in the tracker, survives its outage, and tells whoever follows the command."""
    import click

    from finsight.adapters.live import TrackedLive

    def warn(message: str) -> None:
        click.secho(f"warning: {message}", fg="yellow", err=True)

    return TrackedLive(lambda: tracker(params), "train", flatten(params), warn)


def checkpoint_classifier(checkpoint: Path, params: Params) -> Classifier:
    """A checkpoint in fp32, on the device of ``train.device``."""
    from finsight.adapters.torch_classifier import TorchClassifier

    return TorchClassifier(checkpoint, params.prepare.max_length, params.train.device)


def bundle_classifier(bundle: Path, graph: str | None = None) -> Classifier:
    """One format of a bundle; by default the one that finsight.runtime chooses."""
    from finsight.runtime import classifier

    return classifier(bundle, graph)


def runtimes() -> Runtimes:
    """How export runs each format of a bundle."""
    from finsight.adapters import cold_start
    from finsight.adapters.bundle_classifier import BundleClassifier, runs_here
    from finsight.pipeline.export import Runtimes

    return Runtimes(BundleClassifier, runs_here, cold_start.measure)
