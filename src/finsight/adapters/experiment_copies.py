"""An experiment of DVC's in a clone of its own for a while, with the cache that all share.

`dvc exp run --temp` shares git's stash and DVC's lock with every other: of ten at once nine refuse, or with `--wait-for-lock` one takes
up another's (docs/adr/0020-sweeps.md). In a clone there is nothing to wait for, and the user's own files are not touched.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from finsight.adapters import dvc, git
from finsight.errors import FinsightError, UnreachableError


@dataclass(frozen=True, slots=True)
class ExperimentCopy:
    """Where one experiment is run.

    :param root: the clone that it is for.
    :param folder: of the copy, below ``.dvc/tmp`` of ``root``: the project's root is the owner of that (finsight.settings).
    :param name: of the experiment.
    """

    root: Path
    folder: Path
    name: str

    def command(self, revision: str, overrides: Sequence[str], targets: Sequence[str]) -> list[str]:
        """What makes the copy and runs the experiment in it; see :meth:`run`."""
        options = [word for override in overrides for word in ("-S", override)]
        words = [str(self.root), str(self.folder), self.name, revision, *options, *targets]
        return [sys.executable, "-m", "finsight.cli", "run-experiment", "--", *words]

    def run(self, revision: str, options: Sequence[str]) -> NoReturn:
        """Make the copy, anew if there is one, and go on as the experiment's process in it.

        :param revision: commit that it begins with.
        :param options: of ``dvc exp run``: overrides, and stages to run up to.
        :raises FinsightError: when the folder is none for copies.
        :raises UnreachableError: when it can't be made.
        """
        if not self.folder.resolve().is_relative_to((self.root / ".dvc/tmp").resolve()):
            raise FinsightError(f"{self.folder}: not below .dvc/tmp of {self.root}, where copies are made and removed")
        self.clear()
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            inside = git.borrow(self.root, revision, self.folder)
            dvc.share_cache(self.root, inside)
        except FinsightError as error:
            raise UnreachableError(f"no copy for the experiment: {error}") from None
        os.chdir(inside)
        os.execv(sys.executable, [sys.executable, "-m", "dvc", "exp", "run", "-n", self.name, *options])  # noqa: S606 - no shell is wanted

    def brought(self) -> bool:
        """Take the experiment over; whether there is one."""
        return git.bring(self.root, self.folder, self.name)

    def clear(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self.folder, ignore_errors=True)
