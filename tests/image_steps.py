"""Dockerfiles, read, and their steps taken on this machine: for tests where there is no engine."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from conftest import REPO


@dataclass
class Stage:
    """One stage of a Dockerfile: its base, and its instructions, each with what follows it."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def stages(path: Path) -> dict[str, Stage]:
    """A Dockerfile's stages by name, in its order."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, Stage] = {}
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = found[name] = Stage(name, base)
        elif word:
            stage.steps.append((word, rest.strip()))
    return found


def sent(name: str) -> bool:
    """Whether .dockerignore lets a path of the repository reach the engine."""
    kept = True
    for line in (REPO / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            if fnmatch(name, pattern) or name.startswith(f"{pattern}/") or (pattern.startswith(f"{name}/") and line.startswith("!")):
                kept = line.startswith("!")
    return kept


@dataclass
class Bare:
    """A bare machine below a folder, which stands for the image's root: what the steps name as ``/opt`` lies at ``root/opt``.

    All stages share it, so that a copy from an earlier stage is in place already. Steps that install the distribution's packages, or make
    users, are left out; so are the owners of files.

    :param python: what the base image would bring.
    """

    root: Path
    python: str
    environment: dict[str, str] = field(default_factory=dict)
    cwd: Path = Path("/")
    configured: dict[str, list[str]] = field(default_factory=dict)
    _made: dict[str, dict[str, str]] = field(default_factory=dict)

    def here(self, text: str) -> str:
        """A command, or a value, with its absolute paths below the root."""
        return re.sub(r"(?<![\w./:-])/(?=(opt|src|work|bundle|tmp|var)\b)", f"{self.root}/", text)

    def build(self, path: Path, target: str) -> None:
        """Take all steps that lead to a target, and have not been taken; its environment is that of the image then."""
        (self.root / "bin").mkdir(exist_ok=True)
        for name in ("python", "python3"):
            (self.root / "bin" / name).write_text(f'#!/bin/sh\nexec {self.python} "$@"\n')
            (self.root / "bin" / name).chmod(0o755)
        self._take(stages(path), target)

    def _take(self, known: dict[str, Stage], name: str) -> None:
        stage = known[name]
        sources = [rest.split()[0].removeprefix("--from=") for word, rest in stage.steps if word == "COPY" and "--from=" in rest]
        for other in (stage.base, *sources):
            if other in known and other not in self._made:
                self._take(known, other)
        self.environment = dict(self._made.get(stage.base, {"PATH": f"{self.root}/bin:{os.environ['PATH']}"}))
        for word, rest in stage.steps:
            self._step(word, rest)
        self._made[name] = self.environment

    def _step(self, word: str, rest: str) -> None:
        match word:
            case "WORKDIR":
                self.cwd = Path(self.here(rest))
                self.cwd.mkdir(parents=True, exist_ok=True)
            case "RUN" if "apt-get" in rest or "useradd" in rest:
                pass  # what is left out
            case "RUN":
                environment = {**self.environment, "HOME": str(self.root)}
                environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_", "HTTP"))}
                subprocess.run(["sh", "-euc", self.here(rest)], cwd=self.cwd, env=environment, check=True)
            case "COPY" if rest.startswith("--from="):
                assert Path(self.here(rest.split()[-1])).exists(), rest
            case "COPY":
                *names, target = rest.split()
                for name in names:
                    assert sent(name), f"{name}: .dockerignore keeps it back"
                    whole = (REPO / name).is_dir()
                    place = self.cwd / target / ("" if whole or not target.endswith("/") else Path(name).name)
                    if whole:
                        shutil.copytree(REPO / name, place, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"), dirs_exist_ok=True)
                    else:
                        shutil.copy(REPO / name, place)
            case "ENV":
                before = self.environment["PATH"]
                self.environment |= {name: self.here(value).replace("$PATH", before) for name, value in re.findall(r"(\w+)=(\S+)", rest)}
            case "ENTRYPOINT" | "CMD":
                self.configured[word] = [self.here(one) for one in json.loads(rest)]
            case "HEALTHCHECK":
                self.configured[word] = [self.here(one) for one in json.loads(rest.partition("CMD ")[2])]
            case "USER" | "EXPOSE" | "STOPSIGNAL" | "ARG" | "LABEL":
                self.configured[word] = rest.split()
            case _:
                raise AssertionError(f"{word}: no step that is known here")
