"""Work in a process of its own: it takes no time from what else this one does, and it can be ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finsight import errors
from finsight.errors import FinsightError, UnreachableError

NICE = 5  # below the predictions of the process that asks


def call(module: str, name: str, given: Mapping[str, Any], seconds: float, folder: Path) -> dict[str, Any]:
    """What the work ``name`` of a module answers: the module is run, gets JSON on its standard input and prints JSON.

    :param seconds: that it may take; then it is ended with all that it started.
    :param folder: to work in.
    :raises FinsightError: the one that the work raised.
    :raises UnreachableError: when it took too long.
    """
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", module, name],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that what it started is ended with it
    )
    try:
        os.setpriority(os.PRIO_PROCESS, child.pid, NICE)
        out, _ = child.communicate(json.dumps(given).encode(), seconds)
    except subprocess.TimeoutExpired:
        raise UnreachableError(f"{name} took longer than {seconds:.0f} s and was ended; ask again when there is less to do") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
    if child.returncode:
        raise FinsightError(f"{name} ended with {child.returncode}")
    answer = json.loads(out)
    if "error" in answer:
        raise getattr(errors, answer["error"], FinsightError)(answer["message"])
    found: dict[str, Any] = answer["found"]
    return found
