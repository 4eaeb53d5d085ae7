"""One file over HTTP: resumed where it was cut, tried again where that can help, and never from an address that is not public."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from finsight.adapters.addresses import proxied, refuse_private, refuse_private_peer, shown
from finsight.adapters.file_names import safe_name
from finsight.errors import DataError, ParamsError, UnreachableError

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
REDIRECTS = 10
# For an address that ends in no file's name; readers go by the suffix.
SUFFIXES = {
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/json": ".json",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
    "application/zip": ".zip",
    "application/vnd.apache.parquet": ".parquet",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
}
TIMEOUT = httpx.Timeout(60, connect=15)


@dataclass(frozen=True, slots=True)
class Retry:
    """How patient a download is. A try that brings the file further than any before starts the count anew.

    :param tries: in a row without progress.
    :param first_wait: seconds before the second try; doubled for each further one.
    :param longest_wait: bound of a wait in seconds, also of one that a server asks for (Retry-After).
    """

    tries: int = 5
    first_wait: float = 1.0
    longest_wait: float = 60.0


def _bar() -> tqdm[Any]:
    return tqdm(unit="B", unit_scale=True, desc="download", disable=None)  # None: only on a terminal


class _Again(Exception):  # noqa: N818 - it never leaves this module
    """This try failed in a way that another may not."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _Partial:
    """What has arrived so far, and what identifies the version it is part of."""

    def __init__(self, path: Path, bar: tqdm[Any]) -> None:
        self.path, self.bar = path, bar
        self.size = self.furthest = 0
        self.total: int | None = None
        self.validator: str | None = None

    def begin(self, response: httpx.Response, resumable: bool) -> None:
        """Start from the first byte."""
        length = response.headers.get("content-length", "")
        self.size, self.total = 0, int(length) if resumable and length.isdigit() else None
        tag = response.headers.get("etag", "")
        # Only a strong validator promises the same bytes (RFC 9110, 13.1.5).
        strong = tag if tag and not tag.startswith("W/") else response.headers.get("last-modified")
        self.validator = strong if resumable else None
        self.bar.reset(self.total)

    def write(self, chunks: Iterator[bytes]) -> None:
        """Append."""
        with self.path.open("ab" if self.size else "wb") as file:
            for chunk in chunks:
                file.write(chunk)
                self.size += len(chunk)
                self.bar.update(len(chunk))


def download(url: str, folder: Path, allow_private: bool = False, retry: Retry | None = None) -> Path:
    """Fetch ``url`` into ``folder``, under the name that the server or the address gives it; return the file.

    :param allow_private: also from loopback, private and link-local addresses.
    :raises ParamsError: when the address is no http(s) address, or leads to one that is not public.
    :raises DataError: when a web page comes instead of data.
    :raises UnreachableError: when the server refuses or keeps failing.
    """
    retry = retry or Retry()
    headers = {"User-Agent": "finsight", "Accept-Encoding": "identity"}  # ranges count the bytes that are sent
    with httpx.Client(timeout=TIMEOUT, headers=headers) as client, _bar() as bar:
        partial = _Partial(folder / "download.partial", bar)
        failures = 0
        while True:
            before = partial.furthest
            try:
                name = _try(client, url, partial, allow_private)
                return partial.path.rename(folder / name)
            except _Again as again:
                partial.furthest = max(before, partial.size)
                failures = 1 if partial.furthest > before else failures + 1
                if failures >= retry.tries:
                    raise UnreachableError(
                        f"{shown(url)}: {again}; gave up after {failures} tries: check the address, or try later"
                    ) from None
                wait = retry.first_wait * 2 ** (failures - 1) if again.wait is None else again.wait
                bar.write(f"{shown(url)}: {again}; trying again", file=sys.stderr)
                time.sleep(min(wait, retry.longest_wait))


def _try(client: httpx.Client, url: str, partial: _Partial, allow_private: bool) -> str:
    """One request for what is missing; the file's name, once it is whole."""
    headers: dict[str, str] = {}
    if partial.size and partial.validator:
        headers = {"Range": f"bytes={partial.size}-", "If-Range": partial.validator}
    try:
        with _answer(client, url, headers, allow_private) as response:
            _check_status(response, partial, url)
            coding = response.headers.get("content-encoding", "identity")
            name = _name(response, url)
            # Servers mark a .gz file as coded that way; it is kept as it is.
            as_is = coding == "identity" or (coding == "gzip" and name.endswith((".gz", ".tgz")))
            if not as_is:
                raise UnreachableError(f"{shown(url)}: comes coded as {coding[:20]!r} though it was asked for as it is; fetch it by hand")
            if response.status_code == 200:
                partial.begin(response, resumable=True)
            partial.write(response.iter_raw())
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ParamsError(f"{shown(url)}: no address to download from: {error}; expected http:// or https://") from None
    except httpx.HTTPError as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            raise UnreachableError(f"{shown(url)}: {reason}; the server's certificate is not trusted here") from None
        raise _Again(reason) from None
    if partial.total is not None and partial.size != partial.total:
        raise _Again(f"got {partial.size} of {partial.total} bytes")
    return name


@contextmanager
def _answer(client: httpx.Client, url: str, headers: dict[str, str], allow_private: bool) -> Iterator[httpx.Response]:
    """The response at the end of the redirects; each hop is checked as the first address is."""
    request = client.build_request("GET", url, headers=headers)
    for _ in range(REDIRECTS + 1):
        if not allow_private:
            refuse_private(request.url)
            if proxied(request.url):
                request.extensions.pop("trace", None)
            else:
                request.extensions["trace"] = refuse_private_peer
        response = client.send(request, stream=True)
        try:
            following = response.next_request
            if following is None:
                yield response
                return
        finally:
            response.close()
        if request.url.scheme == "https" and following.url.scheme != "https":
            leads = f"{shown(url)}: leads to {shown(following.url)}, which is not encrypted"
            raise ParamsError(f"{leads}; not followed: ask for that address itself, if you trust it")
        request = following
    raise UnreachableError(f"{shown(url)}: more than {REDIRECTS} redirects; check the address")


def _check_status(response: httpx.Response, partial: _Partial, url: str) -> None:
    status = response.status_code
    answer = f"the server answers {status} {response.reason_phrase}".rstrip()
    if status == 206:
        unit, _, place = response.headers.get("content-range", "").partition(" ")
        start, _, total = place.partition("-")[0], None, place.rpartition("/")[2]
        if unit == "bytes" and start == str(partial.size) and total in ("*", str(partial.total)):
            return
    if status in (206, 416):  # it is not the rest of what we have: begin again
        partial.size, partial.validator = 0, None
        raise _Again(f"{answer} where the rest from byte {partial.furthest} was asked for")
    if status in RETRIED:
        raise _Again(answer, _retry_after(response.headers.get("retry-after", "")))
    if status != 200:
        raise UnreachableError(f"{shown(url)}: {answer}; check the address")
    if response.headers.get("content-type", "").startswith("text/html"):
        raise DataError(f"{shown(url)}: is a web page, not data; ask for the file's own address (its download or raw link)")


def _retry_after(value: str) -> float | None:
    """Seconds or a date (RFC 9110, 10.2.3), as seconds from now."""
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _name(response: httpx.Response, url: str) -> str:
    """From the server's Content-Disposition, or the address that was given: where that leads to is often a digest."""
    message = Message()
    message["Content-Disposition"] = response.headers.get("content-disposition", "")
    name = safe_name(message.get_filename() or httpx.URL(url).path)
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return name if "." in name else name + SUFFIXES.get(kind, "")
