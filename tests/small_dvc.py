"""A small repository of DVC's: quick stages, a remote named ``there``, the real commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from servers import S3_KEY, S3_SECRET

PUSH, PULL = ("finsight", "push", "-r", "there"), ("finsight", "pull", "-r", "there")

# Two stages: the first writes a folder and a report that git keeps, the second reads one file of the folder.
# (A parameter must not be called `size`: DVC leaves that name out of the key of its run cache.)
STAGES = """stages:
  make:
    cmd: sh make.sh
    params: [length]
    deps: [make.sh]
    outs:
      - made
      - report.txt:
          cache: false
  use:
    cmd: cp made/part used && echo used >> ran
    deps: [made/part]
    outs: [used]
  always:
    cmd: cp used always
    always_changed: true
    deps: [used]
    outs: [always]
"""
MAKE = """mkdir -p made && echo made >> ran
size=$(sed -n 's/length: //p' params.yaml)
for name in part other last; do
  python -c "import random; random.seed('$name$size'); open('made/$name', 'wb').write(random.randbytes($size))"
done
echo "$size" > report.txt
"""


@dataclass
class Small:
    """A small repository of DVC's with a remote ``there``."""

    root: Path

    def __call__(self, *command: str, ok: bool = True, **env: str) -> str:
        mine = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
        done = subprocess.run(
            command,
            cwd=self.root,
            env={k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "DVC_"))} | mine | env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert (done.returncode == 0) == ok, f"{command} ended with {done.returncode}:\n{done.stdout[-4000:]}"
        return done.stdout

    def fails(self, *command: str, **env: str) -> str:
        """The one line that a command ends with."""
        said = self(*command, ok=False, **env)
        lines = said.strip().splitlines()
        assert len(lines) == 1, said
        assert lines[0].startswith("error: ")
        return lines[0]

    def set(self, **settings: str) -> None:
        for name, value in settings.items():
            self("dvc", "remote", "modify", "-q", "--local", "there", name, value)

    def ran(self) -> list[str]:
        ran = self.root / "ran"
        return ran.read_text().split() if ran.exists() else []

    def second(self, name: str = "second") -> Small:
        """Another clone, with the same remote."""
        other = Small(self.root.parent / name)
        self("git", "clone", "-q", str(self.root), str(other.root))
        shutil.copy(self.root / ".dvc/config.local", other.root / ".dvc")
        return other


def small(root: Path, endpoint: str, size: int = 1000) -> Small:
    repo = Small(root)
    root.mkdir()
    (root / "dvc.yaml").write_text(STAGES)
    (root / "make.sh").write_text(MAKE)
    (root / "params.yaml").write_text(f"length: {size}\n")
    for command in ("git init -q -b main", "git config user.name t", "git config user.email t@example.org", "dvc init -q"):
        repo(*command.split())
    (root / ".dvc/config").write_text("['remote \"there\"']\n    url = s3://data/dvc\n    verify = true\n")
    repo.set(endpointurl=endpoint, access_key_id=S3_KEY, secret_access_key=S3_SECRET)
    (root / ".gitignore").write_text("/ran\n/made\n/used\n/always\n")
    repo("dvc", "repro", "-q")
    repo("git", "add", "-A")
    repo("git", "commit", "-qm", "made")
    return repo


@pytest.fixture
def repo(tmp_path: Path, s3: tuple[str, Path]) -> Small:
    """A small repository whose remote ``there`` is an empty bucket of the live server."""
    shutil.rmtree(s3[1] / "data", ignore_errors=True)
    (s3[1] / "data").mkdir()
    time.sleep(0.2)  # the server looks at the folder anew
    return small(tmp_path / "first", s3[0])
