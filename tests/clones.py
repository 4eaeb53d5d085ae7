"""Clones of the tree as it stands, for tests that run the real `dvc` in one."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from conftest import REPO, shipped_params

BIN = Path(sys.executable).parent
EXTERNAL_README = "data/external/README.md"  # corpora that a developer has brought in stay behind


@dataclass
class Clone:
    root: Path
    env: dict[str, str]

    def __call__(self, *command: str, ok: bool = True) -> str:
        """Run a command in the clone; what it printed."""
        done = subprocess.run(command, cwd=self.root, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert (done.returncode == 0) == ok, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}"
        return done.stdout

    def ran(self, output: str) -> list[str]:
        return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def environment(root: Path) -> dict[str, str]:
    # The environment is found on the PATH, as where a container brings it; `.venv` beside the clone is the other way.
    mine = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FINSIGHT_CACHE": str(root / ".cache"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "HOME": str(root.parent),
    }
    who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in (("NAME", "t"), ("EMAIL", "t@example.org"))}
    return {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_", "AWS_"))} | mine | who


def with_real_backbone(clone: Clone) -> Clone:
    """The clone with the backbone that `make setup` has fetched, and with all processors, since it is not tiny."""
    clone.env["FINSIGHT_CACHE"] = os.environ.get("FINSIGHT_CACHE") or str(Path.home() / ".cache/finsight")
    clone.env.pop("OMP_NUM_THREADS", None)
    return clone


def copy_tree(root: Path, leave_out: tuple[str, ...] = ()) -> Clone:
    """What git knows of the tree, uncommitted changes included, in a repository of its own with nothing committed yet."""
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=REPO, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        kept = name == EXTERNAL_README or not name.startswith(("data/external/", *leave_out))
        if kept and (REPO / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, root / name)
    (root / "dvc.lock").unlink(missing_ok=True)
    (root / "params.yaml").write_text(shipped_params())
    run = Clone(root, environment(root))
    run("git", "init", "-q", "-b", "main")
    return run
