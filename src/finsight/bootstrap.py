"""The only place that chooses adapters: parameters and settings in, ports out. Adapters are imported when they are asked for."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsight.errors import DataError
from finsight.params import file
from finsight.params.file import Params, flatten
from finsight.settings import load_settings, project_root

if TYPE_CHECKING:
    from finsight.adapters.garbage import Registered, Unneeded
    from finsight.modeling.training import Observer
    from finsight.params.corpora import AnyCorpus
    from finsight.params.train import TrainParams
    from finsight.pipeline.compare import Side
    from finsight.pipeline.evidence import Evidence
    from finsight.pipeline.export import Runtimes
    from finsight.pipeline.models import Judge
    from finsight.pipeline.reproduction import Reproduction
    from finsight.pipeline.run_record import Desk, Facts
    from finsight.pipeline.tracking import Tracked
    from finsight.pipeline.tune import Best
    from finsight.ports import Backbone, Classifier, CorpusReader, ExperimentTracker, ModelRegistry, ModelVersion, Signer

__all__ = ["Params", "flatten"]
MODEL_URI = "models:/"


def load_params() -> Params:
    """params.yaml, checked as a whole before any stage works."""
    from finsight.adapters.backbones import check_backbone

    params = file.load_params()
    check_backbone(params.train.backbone, params.backbones)
    if params.train.teacher:
        check_backbone(params.train.teacher, params.backbones, "train.teacher")
    return params


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
    """The licence of whatever a model learns from beside its backbone: corpora, and with a teacher that and the texts that it labels."""
    found = {f"corpus {name}": params.corpora[name].license for name in params.ingest.corpora}
    if name := params.train.teacher:
        known = params.backbones.get(name)
        found |= {f"corpus {text}": params.corpora[text].license for text in params.ingest.unlabelled}
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


def token_cache() -> Path:
    """Where token ids are kept by content."""
    return load_settings().cache / "tokens"


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
    """An observer that follows a training run in the tracker and survives its outage."""
    import click

    from finsight.pipeline.tracking import Tracked

    def warn(message: str) -> None:
        click.secho(f"warning: {message}", fg="yellow", err=True)

    return Tracked(lambda: tracker(params), "train", flatten(params), warn)


def tune(prepared: Path, study: Path, trials: int | None, stop: Callable[[], bool], say: Callable[[str], None]) -> Best:
    """Search for better parameters of ``train``."""
    from finsight.adapters.progress import ProgressBar
    from finsight.pipeline.train import train
    from finsight.pipeline.tune import tune

    params = load_params()
    search = params.tune if trials is None else params.tune.model_copy(update={"trials": trials})
    found, master = backbone(params), teacher(params)

    def one(recipe: TrainParams, folder: Path, observers: Sequence[Observer]) -> dict[str, Any]:
        files = (folder / "checkpoint", folder / "train.json", folder / "curves.csv")
        with ProgressBar() as bar:
            return train(prepared, params.labels, recipe, found, *files, [bar, *observers], scratch=scratch(), teacher=master, stop=stop)

    return tune(prepared, params.labels, params.train, search, found, study, one, lambda: tracker(params), say, stop)


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


def side(params: Params, name: str) -> Side:
    """One model of a comparison with its reports.

    :param name: ``workspace``, the number of a model version, an alias (``champion``, ``challenger``), or what DVC knows: a git revision,
        an experiment.
    :raises DataError: when there is none of that name.
    """
    from finsight.adapters import dvc
    from finsight.pipeline.compare import PREDICTIONS, REPORTS, read_side
    from finsight.pipeline.register import CHALLENGER, CHAMPION

    lock = Path("dvc.lock")
    if name == "workspace":
        return read_side(name, Path("reports"), lock)
    if name.isdigit() or name in (CHAMPION, CHALLENGER):
        return version_side(params, model_version(params, name))
    with tempfile.TemporaryDirectory() as made:
        dvc.fetch(name, [*(f"reports/{kind}.json" for kind in REPORTS), f"reports/{PREDICTIONS}", str(lock)], Path(made))
        return read_side(name, Path(made), Path(made) / lock)


def model_version(params: Params, name: str) -> ModelVersion:
    """A version by its number or an alias.

    :raises DataError: when there is none.
    """
    from finsight.pipeline.models import find

    return find(registry(params).versions(), name)


def judge(params: Params) -> Judge:
    """The gates of params.yaml on two versions, on the rows that neither has learnt from."""
    from finsight.pipeline.compare import compare
    from finsight.pipeline.gating import failures

    def ask(holder: ModelVersion, version: ModelVersion) -> tuple[dict[str, Any], list[str]]:
        old, new = version_side(params, holder), version_side(params, version)
        found = compare(old, new, params.polarity, params.evaluate, unseen=True)
        return found, failures(found, new, params.gates)

    return ask


def bundle_folder(bundle: Path) -> Path:
    """The folder of a bundle: itself, or for ``models:/NAME@ALIAS`` and ``models:/NAME/VERSION`` the registry's, in the cache.

    What FINSIGHT_REQUIRE_SIGNATURE asks of it is checked.

    :raises ArtifactError: when its signature is not what is asked.
    """
    from finsight.pipeline.provenance import beside, require

    settings = load_settings()
    if str(bundle).startswith(MODEL_URI):
        model, name = _named_version(str(bundle))
        params = load_params()
        params = params.model_copy(update={"register_": params.register_.model_copy(update={"model": model})})
        bundle = _kept(params, model_version(params, name))
    if settings.require_signature != "off":
        release = settings.require_signature == "release"
        require(bundle, beside(bundle), signer(signs=False, development=not release), release)
    return bundle


def _kept(params: Params, version: ModelVersion) -> Path:
    """A version's bundle in the cache; fetched where it is not there, not whole, or was stated anew since."""
    from finsight.bundle import bundle_digest
    from finsight.files import atomic_folder, sha256
    from finsight.pipeline.models import check_digest, download
    from finsight.pipeline.provenance import PROVENANCE, STATEMENT
    from finsight.pipeline.run_record import STATEMENT_TAG

    kept = load_settings().cache / "models" / check_digest(version)
    statement = kept / PROVENANCE / STATEMENT
    current = statement.is_file() and sha256(statement) == version.tags.get(STATEMENT_TAG)
    if not (current and bundle_digest(kept / "bundle") == version.bundle_digest):
        with atomic_folder(kept) as made:
            download(tracker(params), version, made)
    return kept / "bundle"


def _named_version(uri: str) -> tuple[str, str]:
    """Model and version, or alias, of a registry URI."""
    found = re.fullmatch(r"models:/([\w .-]+)(?:@([A-Za-z][\w-]*)|/(\d+))", uri)
    if found is None:
        raise DataError(f"{uri}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    return found[1], found[2] or found[3]


def version_side(params: Params, version: ModelVersion) -> Side:
    """A model version with the reports that its run keeps."""
    from finsight.pipeline.compare import read_side
    from finsight.pipeline.run_record import INPUTS_ARTIFACT, REPORTS_ARTIFACT

    with tempfile.TemporaryDirectory() as made:
        folder, store = Path(made), tracker(params)
        for artifact in (REPORTS_ARTIFACT, INPUTS_ARTIFACT):
            store.fetch(version.run, artifact, folder)
        return read_side(f"{params.register_.model} version {version.number}", folder, folder / "dvc.lock")


def registered(params: Params) -> list[Registered]:
    """What each model version needs of DVC's files.

    :raises FinsightError: when the registry does not answer, or the run of a version is gone: nobody knows then what it needs.
    """
    from finsight.adapters.garbage import Registered
    from finsight.pipeline.run_record import INPUTS_ARTIFACT

    found, store = [], tracker(params)
    for version in registry(params).versions():
        with tempfile.TemporaryDirectory() as made:
            store.fetch(version.run, INPUTS_ARTIFACT, Path(made))
            lock = Path(made, "dvc.lock")
            text = lock.read_text(encoding="utf-8") if lock.is_file() else ""  # the stages of such a version ran without DVC
            found.append(Registered(f"version {version.number}", text, version.tags.get("git.commit", "")))
    return found


def unneeded(remote: str | None, remove: bool) -> tuple[int, list[Unneeded]]:
    """How many model versions there are, and what is kept that nobody needs: see :func:`finsight.adapters.garbage.collect`.

    :raises DataError: when a remote is to be cleared and the registry is empty: most likely it is another that counts.
    """
    from finsight.adapters.garbage import collect

    params = load_params()
    versions = registered(params)
    if remote and not versions:
        raise DataError(
            f"the registry at {load_settings().tracking_uri()} has no version of {params.register_.model}; "
            f"set MLFLOW_TRACKING_URI to the one whose versions remote {remote} keeps the files of"
        )
    return len(versions), collect(versions, remote, remove)


def signer(signs: bool = True, development: bool = True) -> Signer:
    """Signs with the key of the settings, or the clone's development key; trusts that and the keys of the settings.

    :param signs: otherwise no development key is made where there is none.
    :param development: whether the clone's development key counts at all.
    """
    from finsight.adapters.signer import ModelSigner, development_key, given_key, trusted_key

    settings = load_settings()
    trusted = [trusted_key(Path(name)) for name in settings.trusted_keys.split(os.pathsep) if name]
    if settings.signing_key:
        password = settings.signing_password.get_secret_value() if settings.signing_password else None
        return ModelSigner(given_key(settings.signing_key.get_secret_value(), password), trusted)
    return ModelSigner(development_key(project_root(), signs) if development else None, trusted)


def desk(params: Params) -> Desk:
    """Whom ``register`` and ``finsight registry flush`` deal with."""
    from finsight.adapters.outbox import OUTBOX, FileOutbox
    from finsight.adapters.pyfunc import package
    from finsight.pipeline.compare import compare, read_side
    from finsight.pipeline.run_record import Desk

    def judge(version: ModelVersion, evidence: Evidence) -> dict[str, Any]:
        ours = read_side("this model", evidence.reports, evidence.inputs / "dvc.lock")
        return compare(version_side(params, version), ours, params.polarity, params.evaluate)

    key = load_settings().encryption_key
    outbox = FileOutbox(project_root() / OUTBOX, key.get_secret_value() if key else None)
    return Desk(lambda: (tracker(params), registry(params)), signer(), outbox, package, judge)


def facts(params: Params) -> Facts:
    """What is known here and now about where a model is made."""
    from finsight.adapters import git
    from finsight.pipeline.audit import now
    from finsight.pipeline.run_record import Facts

    # DVC sets this variable inside `dvc exp run`.
    experiment = os.environ.get("DVC_EXP_NAME")
    return Facts(flatten(params), git.state(Path.cwd()), experiment, git.author(project_root()), now())


def author() -> str:
    """Who changes the registry, for its audit log."""
    from finsight.adapters import git

    return git.author(project_root())


def names_version(what: str) -> bool:
    """Whether a name can be a version's: a number, or an alias; anything else is a path."""
    return re.fullmatch(r"\d+|[A-Za-z][\w-]*", what) is not None and not Path(what).exists()


def verified(bundle: Path) -> dict[str, Any]:
    """The provenance statement beside a bundle, once all digests and signatures hold.

    :raises ArtifactError: when one does not.
    """
    from finsight.pipeline.provenance import beside, verify

    return verify(bundle, beside(bundle), signer(signs=False))


def verified_version(name: str, into: Path) -> tuple[dict[str, Any], int]:
    """Download a version and check it likewise, with its reports and inputs; the statement, and how many of these there are."""
    from finsight.pipeline.models import download
    from finsight.pipeline.provenance import verify_evidence
    from finsight.pipeline.run_record import INPUTS_ARTIFACT, REPORTS_ARTIFACT

    params = load_params()
    version, store = model_version(params, name), tracker(params)
    download(store, version, into)
    for artifact in (REPORTS_ARTIFACT, INPUTS_ARTIFACT):
        (into / artifact).mkdir()
        store.fetch(version.run, artifact, into / artifact)
    content = verified(into / "bundle")
    return content, verify_evidence(content, into)


def statement(what: str) -> dict[str, Any]:
    """The provenance statement beside a bundle, or of a version, unchecked."""
    from finsight.pipeline.provenance import PROVENANCE, beside, read_statement

    if not names_version(what):
        return read_statement(beside(Path(what)))
    params = load_params()
    with tempfile.TemporaryDirectory() as made:
        tracker(params).fetch(model_version(params, what).run, PROVENANCE, Path(made))
        return read_statement(Path(made))


def reproduce(name: str, into: Path | None, say: Callable[[str], None]) -> Reproduction:
    """Make a version again in a clone, and compare.

    :raises ArtifactError: when what the registry has is not what was signed: its revision and parameters are about to be run.
    :raises DataError: when it can't be made again: its tree was dirty, or the revision is not here.
    """
    from finsight.adapters import dvc, git
    from finsight.pipeline.evidence import PARAMS, Evidence
    from finsight.pipeline.provenance import not_reproducible, source
    from finsight.pipeline.reproduction import judge
    from finsight.pipeline.run_record import INPUTS_ARTIFACT, REPORTS_ARTIFACT

    with tempfile.TemporaryDirectory() as made:
        work = Path(made) / "version"
        work.mkdir()
        content, _ = verified_version(name, work)
        if reason := not_reproducible(content):
            raise DataError(f"version {name} can't be reproduced: {reason}; commit first, then train what is to be proven")
        revision, clone = source(content)["revision"], into or Path(made) / "clone"
        say(f"version {name}: revision {revision[:12]} in {clone}, every stage anew")
        git.clone(project_root(), revision, clone)
        shutil.copy2(work / INPUTS_ARTIFACT / PARAMS, clone / PARAMS)
        dvc.make_again(clone, project_root())
        return judge(content, work / REPORTS_ARTIFACT / "metrics.json", Evidence(clone / "models/bundle", clone / "reports", clone))
