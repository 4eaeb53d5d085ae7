"""The process that trains the trials of a search, one after another; :mod:`finsight.adapters.trial_processes` starts it and says what it
hears and answers.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from finsight.bootstrap.pipeline import backbone, scratch, shards, teacher
from finsight.environment import quiet
from finsight.errors import FinsightError
from finsight.modeling.training import Progress
from finsight.params.file import Params
from finsight.params.train import TrainParams
from finsight.pipeline.train import train

EVERY = 0.5  # seconds between two steps that are told


def setup(params: Params, prepared: Path) -> str:
    """The first line for such a process: params.yaml may change while it runs."""
    return json.dumps({"params": params.model_dump_json(by_alias=True), "prepared": str(prepared)})


class _EndedError(Exception):
    """The parent has seen enough of the trial."""


class _Parent:
    """Who started this process."""

    def __init__(self, hears: IO[str], says: IO[str]) -> None:
        self._says = says
        self._lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._told = 0.0
        self.stopped = threading.Event()
        threading.Thread(target=self._listen, args=(hears,), daemon=True).start()

    def _listen(self, hears: IO[str]) -> None:
        for line in hears:
            message = json.loads(line)
            if "stop" in message:
                self.stopped.set()
            else:
                self._lines.put(message)
        os._exit(0)  # it is gone, and nobody wants to know any more

    def heard(self) -> dict[str, Any]:
        """The next message."""
        return self._lines.get()

    def say(self, **content: Any) -> None:
        """Send a message."""
        self._says.write(json.dumps(content) + "\n")
        self._says.flush()

    def follow(self, progress: Progress) -> None:
        """Tell how far a training is; after an epoch wait for the word to go on."""
        now = time.monotonic()
        if progress.metrics or now - self._told > EVERY:
            self._told = now
            self.say(progress=asdict(progress))
        if progress.metrics and "end" in self.heard():
            raise _EndedError


def main() -> None:
    """Train what is asked for until there is nobody to ask."""
    quiet()
    says = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print
    parent = _Parent(sys.stdin, says)
    first = parent.heard()
    params, prepared = Params.model_validate_json(first["params"]), Path(first["prepared"])
    chosen, master, streamed = backbone(params), teacher(params), shards(params)
    while True:
        asked = parent.heard()
        recipe, folder = TrainParams.model_validate_json(asked["trial"]), Path(asked["folder"])
        files = (folder / "checkpoint", folder / "train.json", folder / "curves.csv")
        stop = parent.stopped.is_set
        try:
            given = (prepared, params.labels, recipe, chosen, *files, [parent.follow])
            found = train(*given, scratch=scratch(), teacher=master, shards=streamed, stop=stop)
        except _EndedError:
            parent.say(ended=True)
        except (FinsightError, OSError) as error:
            parent.say(error=type(error).__name__, said=str(error))
        else:
            parent.say(found=found)


if __name__ == "__main__":
    main()
