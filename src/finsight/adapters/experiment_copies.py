"""An experiment of DVC's in a clone of its own for a while, with the cache that all share.

`dvc exp run --temp` shares git's stash and DVC's lock with every other: of ten at once nine refuse, or with `--wait-for-lock` one takes
up another's (docs/adr/0020-sweeps.md). In a clone there is nothing to wait for, and the user's own files are not touched.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finsight.adapters import dvc, git

DVC = (sys.executable, "-m", "dvc")


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
        """Make the copy, anew if there is one; the command that runs the experiment in it.

        :param revision: commit that it begins with.
        :param overrides: as ``-S`` takes them.
        :param targets: stages to run up to; all where there are none.
        :raises FinsightError: when git refuses.
        """
        self.clear()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        inside = git.borrow(self.root, revision, self.folder)
        dvc.share_cache(self.root, inside)
        options = [word for override in overrides for word in ("-S", override)]
        fill = shlex.join([*DVC, "checkout", "-q", "--force", "--allow-missing"])
        run = shlex.join([*DVC, "exp", "run", "-n", self.name, *options, *targets])
        return ["sh", "-c", f"cd {shlex.quote(str(inside))} && {fill} && exec {run}"]

    def brought(self) -> bool:
        """Take the experiment over; whether there is one."""
        return git.bring(self.root, self.folder, self.name)

    def clear(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self.folder, ignore_errors=True)
