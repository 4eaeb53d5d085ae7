"""What the use cases ask of the outside world. Adapters stand in finsight.adapters; bootstrap chooses among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from finsight.domain.records import Example, Rejection


@dataclass(frozen=True, slots=True)
class Backbone:
    """A pretrained encoder on disk.

    :param name: what ``train.backbone`` calls it.
    :param digest: SHA-256 of its weights.
    :param trained_on: labelled corpora that it is known to have seen, as the literature calls them.
    """

    name: str
    folder: Path
    digest: str
    license: str
    trained_on: tuple[str, ...] = ()

    def about(self) -> dict[str, str]:
        """What reports and bundles say of it."""
        return {"name": self.name, "sha256": self.digest, "license": self.license}


class CorpusReader(Protocol):
    """Reads one labelled corpus."""

    def read(self) -> Iterator[Example | Rejection]:
        """Each row in the order of the files: an example, or the reason why it is none.

        :raises DataError: when a file is missing, in another encoding or not of the format.
        """
        ...

    def facts(self) -> Mapping[str, Any]:
        """What reading found out beside the rows, for the report: ``encodings`` by file. Known once read."""
        ...


class Classifier(Protocol):
    """Scores texts. Torch and ONNX Runtime adapters pass one contract suite, which is the export parity test too."""

    @property
    def labels(self) -> Sequence[str]:
        """Label names in the order of the logits."""
        ...

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Logits (n, k), rows in the order of ``texts``; (0, k) for none."""
        ...


class ExperimentTracker(Protocol):
    """Keeps runs: parameters, metrics by step, tags, files."""

    def find(self, tags: Mapping[str, str]) -> str | None:
        """The newest finished run that carries all these tags."""
        ...

    def start(self, name: str, params: Mapping[str, str], watched: bool = False, parent: str = "") -> str:
        """Open a run and return its id.

        :param parent: run that it is a part of.
        :param watched: whether the use of processor, memory, disk, network and GPU is logged until it ends.
        :raises UnreachableError: when the tracker does not answer; so do all methods.
        """
        ...

    def log_metrics(self, run: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Add a point to each named metric."""
        ...

    def log_files(self, run: str, paths: Sequence[Path], folder: str) -> None:
        """Upload files, and folders with all they hold, below ``folder`` of the run's artifacts."""
        ...

    def fetch(self, run: str, folder: str, into: Path) -> None:
        """Download what lies in ``folder`` of the run's artifacts to the folder ``into``.

        :raises ArtifactError: when the run has nothing there.
        """
        ...

    def finish(self, run: str, tags: Mapping[str, str], failed: bool = False) -> None:
        """Tag the run and close it."""
        ...


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version in the registry, the bundle it holds, the run it came from.

    :param created: when it was made, in ISO 8601, UTC.
    """

    number: int
    bundle_digest: str
    run: str
    aliases: frozenset[str]
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    created: str = ""


class ModelRegistry(Protocol):
    """Keeps versions of one named model, the aliases that point to them, and an audit line for each change.

    Every method raises :class:`finsight.errors.UnreachableError` when the registry does not answer.
    """

    def versions(self) -> list[ModelVersion]:
        """Every version, oldest first."""
        ...

    def create(self, run: str, artifact: str, bundle_digest: str, tags: Mapping[str, str], description: str = "") -> ModelVersion:
        """A version of the bundle that lies within ``artifact`` among the run's artifacts.

        Of several processes that ask for one bundle at the same time all get the same version.

        :raises ParamsError: when the description is longer than the registry keeps.
        """
        ...

    def set_alias(self, alias: str, version: int) -> None:
        """Let an alias point to a version, and to no other."""
        ...

    def tag(self, version: int, tags: Mapping[str, str]) -> None:
        """Add tags to a version, or change them."""
        ...

    def delete(self, version: int) -> None:
        """Remove a version for good; its run stays."""
        ...

    def record(self, line: Mapping[str, str]) -> None:
        """Append a line to the audit log that the registry keeps beside the model.

        :raises ParamsError: when it is longer than the registry keeps.
        :param line: its ``when`` (ISO 8601 with microseconds, UTC) is what the log is sorted by.
        """
        ...

    def audit(self) -> list[Mapping[str, str]]:
        """The audit log, oldest first."""
        ...


class Signer(Protocol):
    """Signs with one key, and checks what was signed with any of those that it trusts."""

    @property
    def has_key(self) -> bool:
        """Whether it can sign; one that can't only checks."""
        ...

    @property
    def public(self) -> bytes:
        """The public half of its key, in PEM."""
        ...

    @property
    def key_id(self) -> str:
        """SHA-256 of ``public``."""
        ...

    @property
    def development(self) -> bool:
        """Whether its key was made on this machine because nobody gave one."""
        ...

    def sign(self, target: Path, signature: Path) -> None:
        """Sign a file, or a folder with all that it holds."""
        ...

    def check(self, target: Path, signature: Path, also: bytes = b"") -> str:
        """The id of the key that a signature was made with.

        :param also: a public key in PEM that is taken too: enough to see that nothing was changed, not to say who made it.
        :raises ArtifactError: when there is none, its key isn't trusted, or ``target`` is not what was signed.
        """
        ...


class Outbox(Protocol):
    """Keeps what could not be sent, on this machine, across restarts."""

    def put(self, name: str, files: Iterable[tuple[str, Path]], facts: Mapping[str, Any]) -> None:
        """Keep copies of files, by the names they shall have, and what there is to say about them. A name is kept once, as put last."""
        ...

    def names(self) -> list[str]:
        """What waits, in the order in which it was put."""
        ...

    def opened(self, name: str) -> AbstractContextManager[tuple[Path, dict[str, Any]]]:
        """The files in a folder that is there as long as the block runs, and the facts.

        :raises ArtifactError: when it can't be read.
        """
        ...

    def remove(self, name: str) -> None:
        """Forget it: it was sent."""
        ...
