"""Workers of this machine and of a real Ray cluster keep to one contract."""

import http.server
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil
import pytest

import pool_work
from finsight.adapters.local_pool import LocalPool
from finsight.adapters.ray_pool import ray_pool
from finsight.errors import DataError, ParamsError, StoppedError, UnreachableError
from finsight.shard_ports import WorkerPool
from servers import serving

pytestmark = [
    pytest.mark.timeout(900),  # a Ray worker takes five seconds of a core to begin
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),  # of what Ray Data sets itself
]
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module", params=["here", "processes", pytest.param("ray", marks=pytest.mark.long)])
def pool(request: pytest.FixtureRequest) -> Iterator[WorkerPool]:
    if request.param != "ray":
        yield LocalPool(1 if request.param == "here" else 2)
        return
    with pytest.MonkeyPatch.context() as patch, ExitStack() as cluster:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))  # the workers' own
        patch.setenv("RAY_worker_niceness", "0")  # else they give way to everything beside them
        yield cluster.enter_context(ray_pool(workers=2))


def workers(pool: WorkerPool) -> int:
    return 1 if isinstance(pool, LocalPool) and pool._workers == 1 else 2


def test_results_come_in_the_order_of_the_items(pool: WorkerPool, tmp_path: Path) -> None:
    items = [5, 3, 8, 1, 9, 2, 7, 4]
    found = list(pool.run(partial(pool_work.make, tmp_path), items))
    assert [square for square, _, _ in found] == [item * item for item in items]
    assert 1 <= len({process for _, process, _ in found}) <= workers(pool), "one may do all before another has begun"
    assert {made for _, _, made in found} == {1}, "a worker is made ready once"


def test_nothing_to_do_makes_no_worker_ready(pool: WorkerPool, tmp_path: Path) -> None:
    assert list(pool.run(partial(pool_work.make, tmp_path), [])) == []
    assert not list(tmp_path.iterdir())


def test_the_first_error_in_order_is_raised_as_it_is(pool: WorkerPool, tmp_path: Path) -> None:
    results = pool.run(partial(pool_work.make, tmp_path), [2, 3, -1, -2, 4])
    assert [next(results)[0], next(results)[0]] == [4, 9]
    with pytest.raises(DataError, match="^-1: is below 0; give another$"):
        next(results)
    with pytest.raises(DataError, match="^bundle: no such folder; name another$"):
        list(pool.run(pool_work.not_ready, [1, 2, 3]))


def test_a_pool_works_again_after_somebody_had_enough(pool: WorkerPool, tmp_path: Path) -> None:
    results = pool.run(partial(pool_work.make, tmp_path), list(range(20)))
    assert next(results)[0] == 0
    del results
    assert [square for square, _, _ in pool.run(partial(pool_work.make, tmp_path), [1, 2])] == [1, 4]


def test_a_killed_worker_is_told_or_made_good(pool: WorkerPool, tmp_path: Path) -> None:
    if isinstance(pool, LocalPool):
        if workers(pool) == 1:
            pytest.skip("this process itself")
        with pytest.raises(StoppedError, match="a worker was killed.*; the same command goes on"):
            list(pool.run(partial(pool_work.make, tmp_path), [1, 2, 99, 3]))
        return
    items = [1, 2, 99, *range(3, 12)]
    found = list(pool.run(partial(pool_work.make, tmp_path), items))
    assert (tmp_path / "killed").exists()
    assert [square for square, _, _ in found] == [item * item for item in items]


def test_ctrl_c_is_the_parent_s_alone_even_while_workers_begin(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(
        "import signal\n"
        "from functools import partial\n"
        "from pathlib import Path\n"
        "import pool_work\n"
        "from finsight.adapters.local_pool import LocalPool\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a test that runs in the background ignores it
        "    try:\n"
        "        list(LocalPool(2).run(partial(pool_work.make, Path.cwd(), 1), [1, 2, 3]))\n"
        "    except KeyboardInterrupt:\n"
        "        print('stopped')\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, start_new_session=True, text=True, cwd=tmp_path, env=environment, **pipes) as process:
        while not any("spawn_main" in " ".join(one.cmdline()) for one in psutil.Process(process.pid).children()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        time.sleep(0.3)  # Python has begun there, and we have not
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=120) == ("stopped\n", "")


@pytest.mark.long
@pytest.mark.timeout(240)  # Ray by itself would try for a quarter of an hour
def test_an_address_where_no_cluster_is_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreachableError, match=r"^127.0.0.1:1: no Ray cluster there \(.*\); check the address[^\n]*$"):
        ray_pool("127.0.0.1:1").__enter__()
    with pytest.raises(ParamsError, match="^ray://127.0.0.1:1: give HOST:PORT or auto on a machine of the cluster;"):
        ray_pool("ray://127.0.0.1:1").__enter__()
    with serving(http.server.SimpleHTTPRequestHandler) as url:
        address = url.removeprefix("http://")
        with pytest.raises(UnreachableError, match=rf"^{address}: no Ray cluster that can be used [^\n]*$"):
            ray_pool(address).__enter__()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UnreachableError, match=r"^RAY_ADDRESS=127.0.0.1:1: no Ray cluster there \(.*\); check the address[^\n]*$"):
        ray_pool().__enter__()


@pytest.mark.long
def test_a_cluster_that_can_t_be_started_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("x" * 100)))  # longer than a socket's path may be
    with pytest.raises(UnreachableError, match=r"^Ray: none could be started here \([^\n]*\); see its logs, or leave the engine at local$"):
        ray_pool(workers=1).__enter__()
