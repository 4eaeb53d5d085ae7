"""What a scoring has left when it ends without a result: nothing, once no attempt goes on from it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from finsight.adapters.folder_artifacts import FolderArtifacts
from finsight.adapters.jobs import RepositoryJobs, Work, scoring_folder
from finsight.domain.artifacts import scored
from finsight.domain.jobs import Job, Kind, State
from finsight.service.worker import Worker
from memory_queue import MemoryQueue

WRONG = '\'{"type": "error", "error": "input.csv:2: mend the line", "passing": false}\''


@pytest.mark.parametrize(
    ("script", "attempts", "asked", "state", "left"),
    [
        (f"echo {WRONG} >> $FINSIGHT_EVENTS; exit 1", 3, "", State.FAILED, False),
        ("sleep 60", 3, "cancel", State.CANCELLED, False),
        ("exit 9", 1, "", State.DEAD, False),
        ("exit 9", 3, "", State.QUEUED, True),
        ("sleep 60", 1, "stop", State.QUEUED, True),
    ],
)
def test_the_folder_of_a_scoring_stays_for_another_attempt_alone(
    tmp_path: Path, script: str, attempts: int, asked: str, state: State, left: bool
) -> None:
    queue = MemoryQueue(attempts=attempts, pause=60)
    store = FolderArtifacts(tmp_path / "objects")
    name = f"{'5' * 64}.csv"
    (tmp_path / "table").write_bytes(b"text\nProfit rose\n")
    store.put("acme", name, tmp_path / "table")
    jobs = RepositoryJobs(tmp_path, store, served=lambda: ("0" * 64, None))
    job, _ = queue.submit(jobs.order(Kind.SCORE, {"input": name}, "acme", "ann"))
    folder = scoring_folder(tmp_path, scored(job.order.content))

    def work(job: Job) -> Work:
        return replace(jobs.work(job), commands=[["sh", "-c", f"mkdir -p {folder} && echo text > {folder}/input.csv; {script}"]])

    def begun() -> bool:
        return (folder / "input.csv").exists()

    asks: dict[str, Callable[[], bool]] = {
        "": lambda: False,
        "stop": begun,
        "cancel": lambda: begun() and queue.cancel(job.id) is None,
    }
    assert Worker(queue, work).once(asks[asked])
    ended = queue.get(job.id)
    assert ended is not None
    assert ended.state == state
    assert begun() is left
