"""The state of a running training, from which a killed one goes on. Scratch: tensors and JSON in one safetensors file."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from finsight.files import atomic_file, full_disk_is_oserror

_NOTES = "finsight"
DAYS = 30


def sweep(folder: Path) -> None:
    """Remove what nobody has gone on from for a month."""
    for path in folder.glob("*.safetensors*") if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            if time.time() - path.stat().st_mtime > DAYS * 86_400:
                path.unlink()


class Keeper:
    """Keeps the newest state of one run.

    :param path: file of the state; its name carries a digest of what the run was started with, so that another run never goes on
        from it.
    :param every: seconds between two states.
    """

    def __init__(self, path: Path, every: float) -> None:
        self._path, self._every = path, every
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Whether the newest state is older than it should be."""
        return time.monotonic() - self._saved >= self._every

    def save(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Replace the state; a kill in the middle leaves the one before."""
        # Named by the process: two experiments may train the same teacher at once.
        own = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with atomic_file(own) as partial, full_disk_is_oserror():
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial, {_NOTES: json.dumps(notes)})
        own.replace(self._path)
        self._saved = time.monotonic()

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The state, or None where there is none that can be read."""
        try:
            os.utime(self._path)  # it is in use: another month
            with safe_open(self._path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()[_NOTES])  # noqa: SIM118
        except (FileNotFoundError, SafetensorError, KeyError, TypeError):
            return None

    def clear(self) -> None:
        """The run has ended well."""
        self._path.unlink(missing_ok=True)
