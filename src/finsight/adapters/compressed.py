"""Compressed files as streams that end in an error where they are cut off, damaged or expand out of all proportion."""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import zstandard

from finsight.errors import DataError

MAX_RATIO = 100
"""A file that expands more than this, and beyond ``FREE`` bytes, is refused; text is compressed 3 to 30 times."""
FREE = 64 << 20

# Controls, line ends, and the surrogates by which Python shows bytes that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Everything that gzip, zstandard and zipfile raise on bytes that are not theirs.
BROKEN = (
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    EOFError,
    NotImplementedError,
    UnicodeDecodeError,
    struct.error,
    OverflowError,
    ValueError,
    RuntimeError,
    OSError,  # unless it is the disk's own, see is_disks
)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Guarded(io.RawIOBase):
    """Counts what comes out of ``source``, and turns what its library raises into a DataError that names ``place``."""

    def __init__(self, source: _Readable, place: str, compressed: int) -> None:
        self._source, self._place, self._left = source, place, max(FREE, MAX_RATIO * compressed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # collections.abc.Buffer is of Python 3.12
        try:
            data = self._source.read(len(buffer))
        except BROKEN as error:
            if is_disks(error):
                raise
            raise DataError(f"{self._place}: cut off or damaged ({one_line(error)}); fetch it again") from None
        self._left -= len(data)
        if self._left < 0:
            raise bomb(self._place)
        buffer[: len(data)] = data
        return len(data)


def bomb(place: str) -> DataError:
    """The refusal of what expands out of all proportion."""
    return DataError(
        f"{place}: expands to more than {MAX_RATIO} times its size and {FREE >> 20} MiB, as only a decompression bomb does; "
        "if it is yours, decompress it first"
    )


class _Zstd:
    """Frames of zstandard. Its own stream reader takes a file that is cut off for a whole one."""

    # A byte expands to 32 KiB at most, and what a call returns has no limit: small steps keep it below 32 MiB.
    STEP = 1024

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._frame, self._whole = file, zstandard.ZstdDecompressor().decompressobj(), True
        self._out, self._at, self._rest = b"", 0, b""

    def read(self, size: int, /) -> bytes:
        while self._at == len(self._out):
            data = self._rest or self._file.read(self.STEP)
            self._rest = b""
            if not data:
                if not self._whole:
                    raise EOFError("the last frame has no end")
                return b""
            self._out, self._at = self._frame.decompress(data), 0
            self._whole = self._frame.eof
            if self._whole:
                self._rest = self._frame.unused_data
                self._frame = zstandard.ZstdDecompressor().decompressobj()
        out = self._out[self._at : self._at + size]
        self._at += len(out)
        return out


@contextmanager
def open_gzip(path: Path, place: str) -> Iterator[IO[bytes]]:
    """The content of a .gz file."""
    with path.open("rb") as file, gzip.GzipFile(fileobj=file) as unpacked:
        yield io.BufferedReader(_Guarded(unpacked, place, path.stat().st_size), 1 << 16)


@contextmanager
def open_zstd(path: Path, place: str) -> Iterator[IO[bytes]]:
    """The content of a .zst file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            stated = zstandard.frame_content_size(file.read(18))  # the longest header of a frame; -1 where it states none
        except zstandard.ZstdError:
            stated = -1  # reading will say what is wrong
        if stated > max(FREE, MAX_RATIO * size):
            raise bomb(place)
        file.seek(0)
        yield io.BufferedReader(_Guarded(_Zstd(file), place, size), 1 << 16)


@contextmanager
def open_member(path: Path, member: str, place: str) -> Iterator[IO[bytes]]:
    """The content of one member of a .zip file."""
    with open_zip(path) as archive:
        try:
            opened = archive.open(member)
        except (*BROKEN, KeyError) as error:
            if is_disks(error):
                raise
            raise DataError(f"{place}: cut off or damaged ({one_line(error)}); fetch {path} again") from None
        with opened:
            yield io.BufferedReader(_Guarded(opened, place, archive.getinfo(member).compress_size), 1 << 16)


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """The table of contents of a .zip file."""
    try:
        archive = zipfile.ZipFile(path)
    except BROKEN as error:
        if is_disks(error):
            raise
        raise DataError(f"{path}: not a whole zip file ({one_line(error)}); fetch it again") from None
    with archive:
        yield archive


def check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive that is made to deceive, or that can't be read.

    :raises DataError: when a name leads out of it, stands twice or has control characters, or a member is encrypted or oddly packed.
    """
    seen: set[str] = set()
    for info in members:
        # As stored: ZipInfo.filename ends at the first NUL and has its backslashes turned on Windows.
        name = info.orig_filename
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or not printable(name):
            raise DataError(f"{path}: has a member named {name!r:.100}, which leads out of it or has control characters; repack it")
        if name in seen:
            raise DataError(f"{path}: has two members named {name!r:.100}; repack it")
        seen.add(name)
        if info.flag_bits & 0x1:
            raise DataError(f"{path}: {name!r:.100} is encrypted; unpack it with its password and name the files instead")
        # The others expand without a limit in one step.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{path}: {name!r:.100} is packed by method {info.compress_type}; repack it with deflate (`zip -r`)")
    if sum(info.file_size for info in members) > max(FREE, MAX_RATIO * path.stat().st_size):
        raise bomb(str(path))


def printable(name: str) -> bool:
    """Whether a file's name can stand in an id and in a line of a message."""
    return _UNPRINTABLE.search(name) is None


def one_line(error: BaseException) -> str:
    """What a library says, which may quote the very bytes that are wrong."""
    return _UNPRINTABLE.sub("", " ".join(str(error).split()))[:120] or type(error).__name__


def is_disks(error: BaseException) -> bool:
    """Whether an error is the disk's own and not the content's; a place before the beginning of the file is the content's."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL) and not isinstance(error, gzip.BadGzipFile)
