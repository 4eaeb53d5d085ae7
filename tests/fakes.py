"""Stand-ins in memory for the tracker and the registry; tests/contracts holds them to what MLflow does."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock

from finsight.errors import ArtifactError, DataError, ParamsError
from finsight.pipeline.tracking import BUNDLE_TAG
from finsight.ports import ModelVersion

LONGEST = 5000


@dataclass
class MemoryRun:
    """What a tracker knows of a run."""

    name: str
    params: dict[str, str]
    parent: str
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    state: str = "RUNNING"


class MemoryTracker:
    """Runs in memory, their files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.runs: dict[str, MemoryRun] = {}

    def find(self, tags: Mapping[str, str]) -> str | None:
        newest_first = reversed(self.runs.items())
        return next((name for name, run in newest_first if run.state == "FINISHED" and tags.items() <= run.tags.items()), None)

    def start(self, name: str, params: Mapping[str, str], watched: bool = False, parent: str = "") -> str:
        made = f"run{len(self.runs) + 1}"
        self.runs[made] = MemoryRun(name, dict(params), parent)
        (self._folder / made).mkdir(parents=True)
        return made

    def log_metrics(self, run: str, metrics: Mapping[str, float], step: int = 0) -> None:
        for name, value in metrics.items():
            self.runs[run].metrics.setdefault(name, []).append((step, value))

    def log_files(self, run: str, paths: Sequence[Path], folder: str) -> None:
        target = self._folder / run / folder
        target.mkdir(parents=True, exist_ok=True)
        for path in paths:
            if path.is_dir():
                shutil.copytree(path, target / path.name, dirs_exist_ok=True)
            else:
                shutil.copy(path, target)

    def fetch(self, run: str, folder: str, into: Path) -> None:
        if run not in self.runs:
            raise ArtifactError(f"run {run}: the tracker has it no more")
        if not (self._folder / run / folder).is_dir():
            raise ArtifactError(f"run {run}: it has no {folder}")
        shutil.copytree(self._folder / run / folder, into, dirs_exist_ok=True)

    def finish(self, run: str, tags: Mapping[str, str], failed: bool = False) -> None:
        self.runs[run].tags.update(tags)
        self.runs[run].state = "FAILED" if failed else "FINISHED"


class MemoryRegistry:
    """Versions, aliases and the audit log in memory; threads may share it."""

    def __init__(self, model: str = "model") -> None:
        self._model = model
        self._lock = RLock()
        self._numbers = itertools.count(1)
        self._versions: dict[int, ModelVersion] = {}
        self._aliases: dict[str, int] = {}
        self._log: list[dict[str, str]] = []

    def versions(self) -> list[ModelVersion]:
        with self._lock:
            return [replace(v, aliases=self._aliases_of(n)) for n, v in sorted(self._versions.items())]

    def _aliases_of(self, number: int) -> frozenset[str]:
        return frozenset(alias for alias, version in self._aliases.items() if version == number)

    def create(self, run: str, artifact: str, bundle_digest: str, tags: Mapping[str, str], description: str = "") -> ModelVersion:
        _check_length("description", description)
        with self._lock:
            if there := next((v for v in self.versions() if v.bundle_digest == bundle_digest), None):
                return there
            number = next(self._numbers)
            created = datetime.now(UTC).isoformat(timespec="milliseconds")
            all_tags = {**tags, BUNDLE_TAG: bundle_digest}
            self._versions[number] = ModelVersion(number, bundle_digest, run, frozenset(), all_tags, description, created)
            return self._versions[number]

    def _existing(self, version: int) -> ModelVersion:
        if version not in self._versions:
            raise DataError(f"version {version} of {self._model}: there is none")
        return self._versions[version]

    def set_alias(self, alias: str, version: int) -> None:
        with self._lock:
            self._aliases[alias] = self._existing(version).number

    def remove_alias(self, alias: str) -> None:
        with self._lock:
            self._aliases.pop(alias, None)

    def tag(self, version: int, tags: Mapping[str, str]) -> None:
        with self._lock:
            found = self._existing(version)
            self._versions[version] = replace(found, tags={**found.tags, **tags})

    def delete(self, version: int) -> None:
        with self._lock:
            del self._versions[self._existing(version).number]
            self._aliases = {alias: number for alias, number in self._aliases.items() if number != version}

    def record(self, line: Mapping[str, str]) -> None:
        _check_length("audit line", json.dumps(dict(line), ensure_ascii=False))
        with self._lock:
            self._log.append(dict(line))

    def audit(self) -> list[Mapping[str, str]]:
        with self._lock:
            return [dict(line) for line in sorted(self._log, key=lambda line: line["when"])]


def _check_length(what: str, text: str) -> None:
    if len(text) > LONGEST:
        raise ParamsError(f"{what}: got {len(text)} characters, the registry keeps {LONGEST}; shorten it")
