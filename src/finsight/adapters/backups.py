"""A backup: one tar file that ends with the digests of what is in it, encrypted with age where a key is given."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pyrage

from finsight.adapters.sealing import identity
from finsight.errors import ArtifactError, ParamsError
from finsight.files import atomic_file, json_text

PLAIN, ENCRYPTED = ".tar", ".tar.age"
_AGE = b"age-encryption.org/"
"""What an encrypted one begins with, whatever it is called by now."""
_MANIFEST = "manifest.json"
_FORMAT = 1


class _Hashing(io.RawIOBase):
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        found = self._file.read(size)
        self.digest.update(found)
        return found


def write(target: Path, files: Iterable[tuple[str, Path | bytes]], key: str | None = None) -> list[str]:
    """Write a backup, whole or not at all, readable by its owner alone; the names of what is in it.

    :param files: names and what stands under them; asked for one after the other. A file that is gone by then is left out.
    :param key: an age identity (``AGE-SECRET-KEY-1…``).
    :raises ParamsError: when the key is none.
    :raises OSError: when the disk is full, or a file became shorter meanwhile.
    """
    who = identity(key) if key else None
    with atomic_file(target) as partial:
        partial.touch(mode=0o600)
        with partial.open("wb") as out:
            if who is None:
                return _pack(out, files)
            with tempfile.TemporaryFile(dir=target.parent) as plain:  # has no name, and is gone when it is closed
                names = _pack(plain, files)
                plain.seek(0)
                pyrage.encrypt_io(plain, out, [who.to_public()])
                return names


def _pack(out: IO[bytes], files: Iterable[tuple[str, Path | bytes]]) -> list[str]:
    digests: dict[str, str] = {}
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, source in files:
            try:
                file = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
            except FileNotFoundError:
                continue
            with file:
                digests[name] = _add(tar, name, file)
        _add(tar, _MANIFEST, io.BytesIO(json_text({"format": _FORMAT, "sha256": digests}).encode()))
    return list(digests)


def _add(tar: tarfile.TarFile, name: str, file: IO[bytes]) -> str:
    about, hashing = tarfile.TarInfo(name), _Hashing(file)
    about.size, about.mode = file.seek(0, io.SEEK_END), 0o600
    if isinstance(file, io.BufferedReader):
        about.mode = os.fstat(file.fileno()).st_mode & 0o777
    file.seek(0)
    tar.addfile(about, hashing)
    return hashing.digest.hexdigest()


class Backup:
    """A backup that was opened, and is what its digests say."""

    def __init__(self, tar: tarfile.TarFile, names: Iterable[str]) -> None:
        self._tar, self.names = tar, list(names)

    def read(self, name: str) -> bytes:
        """What stands under a name."""
        file = self._tar.extractfile(name)
        return file.read() if file else b""

    def unpack(self, folder: str, into: Path) -> None:
        """Write what stands under ``folder/``; the folder itself is not made again.

        :raises ArtifactError: when a name leads out of it.
        """
        for name in self.names:
            if name.startswith(f"{folder}/"):
                member = self._tar.getmember(name)
                try:
                    self._tar.extract(member.replace(name=name.removeprefix(f"{folder}/")), into, filter="data")
                except tarfile.FilterError as error:
                    raise ArtifactError(f"backup: {name!r} can't be unpacked ({type(error).__name__}); it is none of ours") from None


@contextmanager
def opened(path: Path, key: str | None = None) -> Iterator[Backup]:
    """A backup to be read; each digest was compared before.

    :raises ParamsError: when it is encrypted and there is no key, or the key is none.
    :raises ArtifactError: when it is not there, of another key, cut off, damaged, or no backup.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; name one that `finsight backup` wrote")
    with ExitStack() as ends:
        plain = ends.enter_context(_plain(path, key))
        try:
            tar = ends.enter_context(tarfile.open(fileobj=plain, mode="r:"))
            names = _checked(path, tar)
        except (tarfile.TarError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: cut off, damaged, or no backup ({type(error).__name__}); take another one") from None
        yield Backup(tar, names)


def _checked(path: Path, tar: tarfile.TarFile) -> list[str]:
    found: dict[str, str] = {}
    content: Any = None
    for member in tar:
        file = tar.extractfile(member) if member.isreg() else None  # of a link it would be another's content
        if not isinstance(file, io.BufferedReader):
            raise ArtifactError(f"{path}: {member.name!r} is no file; this is none of our backups")
        if member.name == _MANIFEST:
            content = json.loads(file.read())
        else:
            found[member.name] = hashlib.file_digest(file, "sha256").hexdigest()
    if content is None:
        raise ArtifactError(f"{path}: it has no {_MANIFEST}; it is cut off, or no backup")
    if content["format"] != _FORMAT:
        raise ArtifactError(f"{path}: a backup of format {content['format']}, of another version of finsight; restore it with that one")
    if wrong := sorted(name for name in {*found, *content["sha256"]} if found.get(name) != content["sha256"].get(name)):
        raise ArtifactError(f"{path}: {wrong[0]} is not what was written ({len(wrong)} such files); take another backup")
    return list(found)


@contextmanager
def _plain(path: Path, key: str | None) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if not path.name.endswith(ENCRYPTED) and not file.peek(len(_AGE)).startswith(_AGE):
            yield file
            return
        if key is None:
            raise ParamsError(f"{path}: it is encrypted; set FINSIGHT_ENCRYPTION_KEY to the key that it was written with")
        with tempfile.TemporaryFile() as plain:
            try:
                pyrage.decrypt_io(file, plain, [identity(key)])
            except (pyrage.DecryptError, OSError) as error:
                if isinstance(error, OSError) and error.errno:
                    raise  # the disk's; what age finds wrong on the way is an OSError without a number
                raise ArtifactError(f"{path}: can't be decrypted; it is damaged, or of another FINSIGHT_ENCRYPTION_KEY") from None
            plain.seek(0)
            yield plain
