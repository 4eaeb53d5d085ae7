"""The Hugging Face hub: chosen files of one commit of a repository. HF_ENDPOINT names another hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import httpx

from finsight.adapters.addresses import proxied, shown
from finsight.adapters.file_names import inside
from finsight.adapters.network import no_answer
from finsight.errors import UnreachableError


def fetch_commit(
    repository: str,
    revision: str,
    folder: Path,
    patterns: Sequence[str],
    kind: str,
    asked_by: str,
    without: Sequence[str] = (),
) -> None:
    """Download the files of a commit that match one of the patterns and none of ``without`` (``*`` also matches ``/``).

    :param kind: ``model`` or ``dataset``.
    :param asked_by: the key or command that wants it, for the message.
    :raises DataError: when a file's name would lie outside the folder.
    :raises UnreachableError: when the hub does not answer or does not know the commit.
    """
    import httpx2  # the client that huggingface_hub is built on; its failures come through
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    where = f"{asked_by}: hub repository {repository}@{revision}"
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, False  # asking for a hub id lifts our default for this one call
    try:
        endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
        # The library would try for half a minute.
        if not proxied(httpx.URL(endpoint)) and (problem := no_answer(endpoint)):
            raise UnreachableError(f"{where}: {problem} at {shown(endpoint)}; check the network and HF_ENDPOINT")
        hub = HfApi(endpoint=endpoint)
        names = sorted(hub.list_repo_files(repository, revision=revision, repo_type=kind))

        def fits(name: str, patterns: Sequence[str]) -> bool:
            return any(fnmatch(name, pattern) for pattern in patterns)

        for name in [name for name in names if fits(name, patterns) and not fits(name, without)]:
            inside(folder, name, repository)
            hub.hf_hub_download(repository, name, revision=revision, repo_type=kind, local_dir=folder)
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # what the library notes for itself
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.HTTPError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnreachableError(f"{where}: {reason}; check the id, the revision and the network") from None
    finally:
        constants.HF_HUB_OFFLINE = before
