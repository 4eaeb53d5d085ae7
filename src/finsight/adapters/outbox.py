"""The outbox: one file for each thing that waits, readable by its owner alone, encrypted with age where a key is given."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pyrage

from finsight.adapters.sealing import identity
from finsight.errors import ArtifactError, ParamsError
from finsight.files import atomic_file, json_text

OUTBOX = Path(".outbox")
_FACTS = "facts.json"
_PLAIN, _ENCRYPTED = ".tar", ".tar.age"
_OPEN = "open-"


class FileOutbox:
    """See :class:`finsight.ports.Outbox`.

    :param folder: made at the first use, with mode 700.
    :param key: an age identity (``AGE-SECRET-KEY-1…``); without one nothing is encrypted.
    :raises ParamsError: when the key is none.
    """

    def __init__(self, folder: Path, key: str | None = None) -> None:
        self._folder = folder
        self._identity = identity(key) if key else None

    def put(self, name: str, files: Iterable[tuple[str, Path]], facts: Mapping[str, Any]) -> None:
        """See :class:`finsight.ports.Outbox`."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self._folder / (name + (_ENCRYPTED if self._identity else _PLAIN))
        with atomic_file(target) as partial:
            partial.touch(mode=0o600)
            with partial.open("wb") as out:
                if self._identity:
                    with tempfile.TemporaryFile(dir=self._folder) as plain:  # has no name, and is gone when it is closed
                        _pack(plain, files, facts)
                        plain.seek(0)
                        pyrage.encrypt_io(plain, out, [self._identity.to_public()])
                else:
                    _pack(out, files, facts)
        if other := next((path for path in self._paths(name) if path != target), None):
            other.unlink()

    def names(self) -> list[str]:
        """See :class:`finsight.ports.Outbox`."""
        found = [path for path in self._folder.glob("*.tar*") if path.name.endswith((_PLAIN, _ENCRYPTED))]
        # Another process may send and remove one at this moment.
        times = {path: path.stat().st_mtime_ns for path in found if path.exists()}
        return list(dict.fromkeys(_stem(path) for path in sorted(times, key=lambda path: (times[path], path.name))))

    @contextmanager
    def opened(self, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """See :class:`finsight.ports.Outbox`."""
        path = next(iter(self._paths(name)), None)
        if path is None:
            raise ArtifactError(f"{self._folder / name}: nothing of that name waits; another process may have sent it")
        with self._desk() as made:
            try:
                with self._plain(path) as plain, tarfile.open(fileobj=plain) as tar:
                    tar.extractall(made, filter="data")
                facts = json.loads((made / _FACTS).read_text(encoding="utf-8"))
            except (tarfile.TarError, pyrage.DecryptError, ValueError, OSError) as error:
                if isinstance(error, OSError) and error.errno and not isinstance(error, FileNotFoundError):
                    raise  # the disk's, not the file's; what age finds wrong on the way is an OSError without a number
                raise ArtifactError(
                    f"{path}: can't be read ({type(error).__name__}); give the FINSIGHT_ENCRYPTION_KEY that it was written with, or remove "
                    "it and run `dvc repro register` where the model was made"
                ) from None
            yield made, facts

    def remove(self, name: str) -> None:
        """See :class:`finsight.ports.Outbox`."""
        for path in self._paths(name):
            path.unlink(missing_ok=True)

    @contextmanager
    def _desk(self) -> Iterator[Path]:
        """A folder to open something in, which lies there in clear; those that killed processes have left are removed."""
        with ExitStack() as ends:
            with _locked(self._folder):  # nobody takes a new one for one that was left
                for left in self._folder.glob(f"{_OPEN}*"):
                    with suppress(BlockingIOError, FileNotFoundError), _locked(left, fcntl.LOCK_NB):
                        shutil.rmtree(left)
                made = ends.enter_context(tempfile.TemporaryDirectory(dir=self._folder, prefix=_OPEN, ignore_cleanup_errors=True))
                ends.enter_context(_locked(Path(made)))
            yield Path(made)

    def _paths(self, name: str) -> list[Path]:
        return [path for suffix in (_PLAIN, _ENCRYPTED) if (path := self._folder / (name + suffix)).exists()]

    @contextmanager
    def _plain(self, path: Path) -> Iterator[IO[bytes]]:
        with path.open("rb") as file:
            if not path.name.endswith(_ENCRYPTED):
                yield file
                return
            if self._identity is None:
                raise ParamsError(f"{path}: it is encrypted; set FINSIGHT_ENCRYPTION_KEY to the key that it was written with")
            with tempfile.TemporaryFile(dir=self._folder) as plain:
                pyrage.decrypt_io(file, plain, [self._identity])
                plain.seek(0)
                yield plain


@contextmanager
def _locked(folder: Path, options: int = 0) -> Iterator[None]:
    """Hold a lock on a folder; it ends with the process at the latest."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | options)
        yield
    finally:
        os.close(descriptor)


def _pack(out: IO[bytes], files: Iterable[tuple[str, Path]], facts: Mapping[str, Any]) -> None:
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, path in files:
            tar.add(path, name, recursive=False)
        content = json_text(facts).encode()
        about = tarfile.TarInfo(_FACTS)
        about.size = len(content)
        tar.addfile(about, io.BytesIO(content))


def _stem(path: Path) -> str:
    return path.name.removesuffix(".age").removesuffix(_PLAIN)
