"""Registering, with all that is said and signed of a model; checking that, and making a model again."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsight.bootstrap.pipeline import load_params, registry, tracker
from finsight.bootstrap.signing import signer
from finsight.bootstrap.versions import model_version, version_side
from finsight.domain.aliases import ALIAS
from finsight.errors import DataError
from finsight.params.file import Params, flatten
from finsight.settings import load_settings, project_root

if TYPE_CHECKING:
    from finsight.pipeline.evidence import Evidence
    from finsight.pipeline.reproduction import Reproduction
    from finsight.pipeline.run_record import Desk, Facts
    from finsight.ports import ModelVersion


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
    return re.fullmatch(rf"\d+|{ALIAS}", what) is not None and not Path(what).exists()


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
