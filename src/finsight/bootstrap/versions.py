"""Versions of the registry: as sides of a comparison, as bundles to predict with, as what storage has to keep."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsight.bootstrap.pipeline import load_params, registry, tracker
from finsight.bootstrap.signing import signer
from finsight.domain.aliases import ALIAS
from finsight.errors import DataError
from finsight.params.file import Params
from finsight.settings import load_settings, project_root

if TYPE_CHECKING:
    from finsight.adapters.garbage import Registered, Unneeded
    from finsight.pipeline.compare import Side
    from finsight.pipeline.models import Judge
    from finsight.ports import ModelVersion

MODEL_URI = "models:/"


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


def version_side(params: Params, version: ModelVersion) -> Side:
    """A model version with the reports that its run keeps."""
    from finsight.pipeline.compare import read_side
    from finsight.pipeline.run_record import INPUTS_ARTIFACT, REPORTS_ARTIFACT

    with tempfile.TemporaryDirectory() as made:
        folder, store = Path(made), tracker(params)
        for artifact in (REPORTS_ARTIFACT, INPUTS_ARTIFACT):
            store.fetch(version.run, artifact, folder)
        return read_side(f"{params.register_.model} version {version.number}", folder, folder / "dvc.lock")


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
    if str(bundle).startswith(MODEL_URI):
        return version_folder(*named_version(str(bundle)))
    _check_signature(bundle)
    return bundle


def named_version(uri: str) -> tuple[Params, ModelVersion]:
    """What ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` names now, and the parameters with that registry's name.

    :raises DataError: when there is none.
    """
    model, name = _named_version(uri)
    params = load_params()
    params = params.model_copy(update={"register_": params.register_.model_copy(update={"model": model})})
    return params, model_version(params, name)


def version_folder(params: Params, version: ModelVersion) -> Path:
    """The folder of a version's bundle, in the cache; what FINSIGHT_REQUIRE_SIGNATURE asks of it is checked.

    :raises ArtifactError: when it is not what was registered, or its signature not what is asked.
    """
    bundle = _kept(params, version)
    _check_signature(bundle)
    return bundle


def _check_signature(bundle: Path) -> None:
    from finsight.pipeline.provenance import beside, require

    settings = load_settings()
    if settings.require_signature != "off":
        release = settings.require_signature == "release"
        require(bundle, beside(bundle), signer(signs=False, development=not release), release)


def _kept(params: Params, version: ModelVersion) -> Path:
    """A version's bundle in the cache; fetched where it is not there, not whole, or was stated anew since."""
    from finsight.bundle import bundle_digest
    from finsight.files import cached_folder, sha256
    from finsight.pipeline.models import check_digest, download
    from finsight.pipeline.provenance import PROVENANCE, STATEMENT
    from finsight.pipeline.run_record import STATEMENT_TAG

    kept = load_settings().cache / "models" / check_digest(version)
    statement = kept / PROVENANCE / STATEMENT
    told = version.tags.get(STATEMENT_TAG)  # one of before there was provenance has none
    current = told is None or (statement.is_file() and sha256(statement) == told)
    if not (current and kept.is_dir() and bundle_digest(kept / "bundle") == version.bundle_digest):
        with cached_folder(kept) as made:
            download(tracker(params), version, made)
            shutil.rmtree(kept, ignore_errors=True)
    return kept / "bundle"


def _named_version(uri: str) -> tuple[str, str]:
    """Model and version, or alias, of a registry URI."""
    found = re.fullmatch(rf"models:/([\w .-]+)(?:@({ALIAS})|/(\d+))", uri)
    if found is None:
        raise DataError(f"{uri}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    return found[1], found[2] or found[3]


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

    :raises DataError: when something is to be removed and the registry is empty, since most likely it is another that counts; or when
        registrations wait.
    """
    from finsight.adapters.garbage import collect
    from finsight.adapters.outbox import OUTBOX, FileOutbox

    params = load_params()
    versions = registered(params)
    if remove and (waiting := FileOutbox(project_root() / OUTBOX).names()):
        raise DataError(f"{OUTBOX}: {len(waiting)} registrations wait, and what they need can't be known; `finsight registry flush` first")
    if (remote or remove) and not versions:
        raise DataError(
            f"the registry at {load_settings().tracking_uri()} has no version of {params.register_.model}; "
            "set MLFLOW_TRACKING_URI to the one whose versions have their files there"
        )
    return len(versions), collect(versions, remote, remove)
