"""What `finsight sweep` works with."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from finsight.bootstrap.search import alone, share_of_cores, shared_gpus
from finsight.errors import FinsightError, ParamsError
from finsight.params.overrides import parsed

MEASURE, REPORT = "validation_macro_f1", "reports/train.json"


def run_experiment(root: Path, folder: Path, name: str, revision: str, options: Sequence[str]) -> NoReturn:
    """See :meth:`finsight.adapters.experiment_copies.ExperimentCopy.run`."""
    from finsight.adapters.experiment_copies import ExperimentCopy

    ExperimentCopy(root, folder, name).run(revision, options)


def sweep(overrides: Sequence[str], targets: Sequence[str], workers: int, prefix: str, stop: Callable[[], bool]) -> str:
    """Run an experiment for each combination of values, so many at once, and say how it goes; the name of the best on validation, empty
    where no experiment trained.

    :raises ParamsError: when a combination can't be, or a stage is none, before anything is started.
    :raises GateError: when the tree has changes that are not committed, or lacks a corpus that a combination names.
    :raises FinsightError: when some failed.
    """
    from finsight.adapters import dvc, git
    from finsight.adapters.jobs import check_committed
    from finsight.adapters.progress import StatusLine
    from finsight.adapters.sweep import COPIES, Sweep, Variant, metrics, values, variants
    from finsight.settings import project_root

    if not re.fullmatch(r"\w[\w-]*", prefix):
        raise ParamsError(f"--name: got {prefix!r}, expected letters, digits and hyphens")
    root = project_root()
    text, revision = git.committed(root, "./params.yaml"), git.revision(root)
    wanted = variants(overrides, targets, revision, prefix)
    devices = set()
    for variant in wanted:
        try:
            params = parsed(dvc.with_overrides(text, variant.overrides))
        except ParamsError as error:
            raise ParamsError(f"with {values(variant.overrides)}: {error}") from None
        check_committed(root, params)
        devices.add(params.train.device)
    measured_there = dvc.makes(root, targets, REPORT)
    gpus = shared_gpus("cpu" if devices == {"cpu"} else "auto", workers)
    found: dict[str, float] = {}
    with alone(root / COPIES, "sweep", "start it with more --workers"), StatusLine() as status:

        def ended(variant: Variant) -> None:
            # What else has the report has that of the commit.
            measured = metrics(root, variant.name, REPORT) if measured_there else {}
            if MEASURE in measured:
                found[variant.name] = measured[MEASURE]
            told = f"macro-F1 {measured[MEASURE]:.4f} on validation" if MEASURE in measured else "recorded"
            status.say(f"{variant.name}: {told} with {values(variant.overrides)}")

        for variant in wanted:
            if git.experiment(root, variant.name):
                ended(variant)
        running = Sweep(root, revision, targets, gpus or [""] * workers, share_of_cores(workers, 0), status.say, status.at, stop)
        failed = running.run(wanted, ended)
    if failed:
        name, why = next(iter(failed.items()))
        raise FinsightError(f"{len(failed)} of {len(wanted)} experiments failed, {name} with: {why}; the same command tries them again")
    return max(found, key=found.__getitem__, default="")
