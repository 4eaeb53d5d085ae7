"""Workers, killed and cancelled in the middle: real processes over a live Redis."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from finsight.adapters.job_process import JobProcess, plain_environment
from finsight.adapters.redis_queue import RedisQueue
from finsight.domain.jobs import Job, Kind, Order, State
from finsight.errors import UnreachableError
from shell_workers import redis, until, worker

pytestmark = pytest.mark.long

LEASE = 6.0  # where a test waits for its end; else long enough for a machine that is busy
# Says who it is, then that it lives, 20 times a second; its own child does so too, in a session of its own.
BEAT = 'for i in $(seq {n}); do echo "$$ $(date +%s.%N)" >> beats; sleep 0.05; done'
TREE = f"setsid sh -c '{BEAT.format(n=40)}' & {BEAT.format(n=25)}; wait"
LONG_TREE = TREE.replace("seq 40", "seq 1200")  # a minute: an end by itself is not taken for the one that is asked for


@pytest.fixture
def queue(redis_url: str) -> Iterator[RedisQueue]:
    found = RedisQueue(redis_url)
    yield found
    found.close()


def ask(queue: RedisQueue, script: str, number: int = 0) -> str:
    return queue.submit(Order(Kind.TRAIN, {"script": script, "number": number}, "a", "b"))[0].id


def ended(queue: RedisQueue, job: str, seconds: float = 90) -> Job:
    until(lambda: queue.get(job).state.ended, seconds)  # type: ignore[union-attr]
    found = queue.get(job)
    assert found
    return found


def beats(folder: Path) -> dict[int, list[float]]:
    """By process, when it lived."""
    found: dict[int, list[float]] = {}
    path = folder / "beats"
    for line in path.read_text().splitlines() if path.exists() else []:
        process, when = line.split()
        found.setdefault(int(process), []).append(float(when))
    return found


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def log(queue: RedisQueue, job: str) -> list[str]:
    lines, cursor = [], ""
    while events := queue.events(job, cursor):
        lines += [event.content["line"] for event in events if event.content["type"] == "log"]
        cursor = events[-1].cursor
    return lines


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_job_of_a_worker_that_is_killed_or_hangs_runs_again_and_never_twice_at_once(
    queue: RedisQueue, redis_url: str, tmp_path: Path, how: signal.Signals
) -> None:
    job = ask(queue, TREE)
    with worker(redis_url, tmp_path, LEASE) as first, worker(redis_url, tmp_path, LEASE) as second:
        until(lambda: len(beats(tmp_path)) == 2)
        holder = first if queue._redis.hget(f"{{jobs}}:job:{job}", "worker").endswith(f"-{first.pid}") else second
        old = list(beats(tmp_path))
        holder.send_signal(how)
        until(lambda: not any(map(lives, old)))  # orphans in any session
        until(lambda: len(beats(tmp_path)) == 4)
        done = ended(queue, job)
    assert (done.state, done.attempt, done.error) == (State.SUCCEEDED, 2, "")
    found = beats(tmp_path)
    assert max(when for process in old for when in found[process]) < min(when for p in found if p not in old for when in found[p])
    states = [event.content["state"] for event in queue.events(job) if event.content["type"] == "state"]
    assert states == ["queued", "running", "queued", "running", "succeeded"]


def test_cancelling_ends_every_process_of_the_job(queue: RedisQueue, redis_url: str, tmp_path: Path) -> None:
    job = ask(queue, f"trap '' INT TERM; {LONG_TREE}")  # that will not hear of it
    with worker(redis_url, tmp_path) as one:
        until(lambda: len(beats(tmp_path)) == 2)
        queue.cancel(job)
        assert ended(queue, job).state == State.CANCELLED
        assert not any(map(lives, beats(tmp_path)))
        assert one.poll() is None


def test_a_leash_that_is_killed_lets_nothing_go(queue: RedisQueue, redis_url: str, tmp_path: Path) -> None:
    job = ask(queue, f"echo $PPID > leash; {TREE}")
    with worker(redis_url, tmp_path):
        until(lambda: len(beats(tmp_path)) == 2)
        old = list(beats(tmp_path))
        os.kill(int((tmp_path / "leash").read_text()), signal.SIGKILL)
        until(lambda: not any(map(lives, old)))
        assert ended(queue, job).attempt == 2
    found = beats(tmp_path)
    assert max(when for process in old for when in found[process]) < min(when for p in found if p not in old for when in found[p])


def test_a_job_that_takes_too_long_is_ended(queue: RedisQueue, redis_url: str, tmp_path: Path) -> None:
    job = ask(queue, LONG_TREE)
    with worker(redis_url, tmp_path, seconds=1):
        done = ended(queue, job)
    assert (done.state, done.error, done.attempt) == (State.FAILED, "it took longer than its 1 s", 1)
    assert not any(map(lives, beats(tmp_path)))


def test_what_breaks_is_tried_three_times_and_what_is_wrong_once(queue: RedisQueue, redis_url: str, tmp_path: Path) -> None:
    error = '\'{"type": "error", "error": "train.lr: too high", "passing": false}\''
    breaks, wrong = (
        ask(queue, "echo tried >> tries; echo out of memory >&2; exit 9"),
        ask(queue, f"echo {error} >> $FINSIGHT_EVENTS; exit 1"),
    )
    with worker(redis_url, tmp_path):
        dead, failed = ended(queue, breaks), ended(queue, wrong)
    assert (dead.state, dead.attempt, dead.error) == (State.DEAD, 3, "ended with 9: out of memory")
    assert (tmp_path / "tries").read_text().split() == ["tried"] * 3
    assert (failed.state, failed.attempt, failed.error) == (State.FAILED, 1, "train.lr: too high")
    assert [job.id for job in queue.dead()] == [breaks]


def test_a_worker_that_is_stopped_gives_its_job_back(queue: RedisQueue, redis_url: str, tmp_path: Path) -> None:
    job = ask(queue, LONG_TREE)
    with worker(redis_url, tmp_path):
        until(lambda: len(beats(tmp_path)) == 2)
    found = queue.get(job)
    assert found
    assert (found.state, found.attempt) == (State.QUEUED, 0)
    assert not any(map(lives, beats(tmp_path)))


def test_two_workers_run_one_job_each_at_once(queue: RedisQueue, redis_url: str, tmp_path: Path) -> None:
    jobs = [ask(queue, BEAT.format(n=15), n) for n in range(4)]
    with worker(redis_url, tmp_path), worker(redis_url, tmp_path):
        assert [ended(queue, job).state for job in jobs] == [State.SUCCEEDED] * 4
    spans = sorted((when[0], when[-1]) for when in beats(tmp_path).values())
    assert len(spans) == 4
    at_once = [sum(start <= first <= end for start, end in spans) for first, _ in spans]
    assert max(at_once) == 2


def test_a_gpu_is_one_jobs_at_a_time(queue: RedisQueue, redis_url: str, tmp_path: Path) -> None:
    jobs = [ask(queue, f"echo on $CUDA_VISIBLE_DEVICES; {BEAT.format(n=10)}", n) for n in range(3)]
    with worker(redis_url, tmp_path, gpus=["GPU-1"]), worker(redis_url, tmp_path, gpus=["GPU-1"]):
        assert [ended(queue, job).state for job in jobs] == [State.SUCCEEDED] * 3
    assert [log(queue, job) for job in jobs] == [["on GPU-1"]] * 3
    spans = sorted((when[0], when[-1]) for when in beats(tmp_path).values())
    assert all(one[1] < other[0] for one, other in pairwise(spans))


def test_two_gpus_run_two_jobs_at_once_and_one_each(queue: RedisQueue, redis_url: str, tmp_path: Path) -> None:
    beat = BEAT.replace("$$", "$CUDA_VISIBLE_DEVICES")  # a number here, as a process's
    jobs = [ask(queue, beat.format(n=30), n) for n in range(6)]
    gpus = ["1001", "1002"]
    with worker(redis_url, tmp_path, gpus=gpus), worker(redis_url, tmp_path, gpus=gpus), worker(redis_url, tmp_path, gpus=gpus):
        assert [ended(queue, job).state for job in jobs] == [State.SUCCEEDED] * 6
    found = beats(tmp_path)
    assert set(found) == {1001, 1002}
    one, other = found[1001], found[1002]
    assert len(one) + len(other) == 6 * 30
    assert max(one[0], other[0]) < min(one[-1], other[-1]), "both at once"
    for when in (one, other):  # the beats of two jobs at once on one would come twice as often
        assert all(late - early > 0.045 for early, late in pairwise(when))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_gpu_of_a_worker_that_is_gone_is_free_once_its_time_is_up_and_not_before_its_job_is_dead(
    queue: RedisQueue, redis_url: str, tmp_path: Path, how: signal.Signals
) -> None:
    with worker(redis_url, tmp_path, LEASE, gpus=["GPU-1"]) as first:
        ask(queue, LONG_TREE)
        until(lambda: len(beats(tmp_path)) == 2)
        old = list(beats(tmp_path))
        with worker(redis_url, tmp_path, LEASE, gpus=["GPU-1"]):
            second = ask(queue, BEAT.format(n=10), 2)
            time.sleep(2 * LEASE)  # it is kept for as long as its job runs
            assert len(beats(tmp_path)) == 2
            first.send_signal(how)
            gone = time.time()
            left = queue._redis.pttl("{jobs}:hold:GPU-1") / 1000
            assert 0 < left <= 1.5 * LEASE
            until(lambda: not any(map(lives, old)))
            assert ended(queue, second).attempt == 1
            found = beats(tmp_path)
            began = min(when for process, all_ in found.items() if process not in old for when in all_)
            assert began > max(when for process in old for when in found[process])
            assert gone + left - 0.1 < began < gone + left + 30


def test_gpus_are_those_of_the_driver_that_this_process_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finsight.adapters.gpus import gpus

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == []
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho '0, GPU-aa11'\necho '1, GPU-bb22'\n")
    driver.chmod(0o755)
    assert gpus() == ["GPU-aa11", "GPU-bb22"]
    for visible, found in {"1": ["GPU-bb22"], "GPU-aa": ["GPU-aa11"], "": [], "0,1": ["GPU-aa11", "GPU-bb22"]}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert gpus() == found


def test_the_log_is_whole_and_in_order_for_a_reader_that_comes_again_and_again(queue: RedisQueue, redis_url: str, tmp_path: Path) -> None:
    job = ask(queue, "seq 4000; printf 'a\\rb\\033[31mred\\033[0m\\n\\n'; printf last")
    lines, cursor = [], ""
    with worker(redis_url, tmp_path):
        while True:
            over = queue.get(job).state.ended  # type: ignore[union-attr]
            reader = RedisQueue(redis_url)
            events = reader.events(job, cursor, 97)
            reader.close()
            lines += [event.content["line"] for event in events if event.content["type"] == "log"]
            cursor = events[-1].cursor if events else cursor
            if over and not events:
                break
    assert lines == [*map(str, range(1, 4001)), "a", "bred", "last"]


def test_a_redis_that_is_killed_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    made: list[str] = []
    with ExitStack() as stack:
        with redis(tmp_path / "redis") as (url, process):
            queue = RedisQueue(url)
            running = ask(queue, "for i in $(seq 60); do echo $i; sleep 0.05; done")
            stack.enter_context(worker(url, tmp_path))
            until(lambda: len(log(queue, running)) > 5)
            for number in range(200):
                if number == 150:
                    os.kill(process, signal.SIGKILL)
                try:
                    made.append(ask(queue, "true", number))
                except UnreachableError:
                    break
        assert len(made) >= 150
        with redis(tmp_path / "redis") as (again, _):
            assert again == url
            assert all(queue.get(job) for job in made)
            done = ended(queue, running)
            assert (done.state, done.attempt) == (State.SUCCEEDED, 1)  # it went on all the while
            assert log(queue, running) == [*map(str, range(1, 61))]
            queue.close()
            stack.close()


def test_of_a_command_that_says_much_the_end_is_heard_and_no_more_at_once_than_redis_can_take(tmp_path: Path) -> None:
    script = "for n in range(120_000): print(n)\nfor n in range(500): print(str(n) * 5000)\nprint('the end')"
    process = JobProcess([sys.executable, "-c", script], tmp_path, plain_environment(), tmp_path, 60.0)
    said: list[str] = []
    while process.poll() is None:
        lines = [event["line"] for event in process.said()]
        assert sum(map(len, lines)) < 2**18 + 4000
        said += lines
    process.close()
    assert said[:2] == ["0", "1"]
    assert (len(said) > 120_500, said[-1]) == (True, "the end")
