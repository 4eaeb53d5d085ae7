"""Workers of a Ray cluster with GPUs: which it has is Ray's to say, and it divides among workers what it was told of."""

import os
from pathlib import Path

import pytest

import pool_work
from clusters import ray_cluster
from finsight.adapters.gpus import gpus
from finsight.adapters.ray_pool import ray_pool
from finsight.errors import ParamsError

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),  # a Ray worker takes five seconds of a core to begin
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),  # of what Ray Data sets itself
]
TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("there", [2, 0])
def test_each_worker_has_a_gpu_of_the_cluster_to_itself(there: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    with ray_cluster(there) as known:
        for name, value in known.items():
            monkeypatch.setenv(name, value)
        if there:
            with ray_pool(gpus=True) as pool:
                assert set(pool.run(pool_work.gpu, list(range(8)))) == {"0", "1"}
        else:
            with pytest.raises(ParamsError, match=r"^Ray: 0 GPUs in the cluster for 1 workers, [^\n]*--graph$"):
                ray_pool(gpus=True).__enter__()


@pytest.mark.skipif(bool(gpus()), reason="there are GPUs")
def test_gpus_that_can_t_come_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ParamsError, match=r"^Ray: 0 GPUs in the cluster for 2 workers, [^\n]*--graph$"):
        ray_pool(workers=2, gpus=True).__enter__()
