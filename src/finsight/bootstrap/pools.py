"""Who does work that falls into shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from finsight.errors import ParamsError
from finsight.shard_ports import WorkerPool


@contextmanager
def worker_pool(engine: str, address: str | None = None, workers: int | None = None, gpus: bool = False) -> Iterator[WorkerPool]:
    """Who does the work, as long as the block runs.

    :param engine: ``local`` or ``ray``.
    :param address: of a Ray cluster; see :func:`finsight.adapters.ray_pool.ray_pool`.
    :param workers: one here, one a core of the cluster by default, or one a GPU.
    :param gpus: whether each worker computes on a GPU.
    :raises ParamsError: when several here would share one.
    """
    if engine == "local":
        if gpus and workers not in (None, 1):
            other = "--engine ray gives each its own, --graph onnx-… needs none"
            raise ParamsError(f"--workers: got {workers}, and here one process has the GPU; {other}")
        from finsight.adapters.local_pool import LocalPool

        yield LocalPool(workers or 1)
        return
    from finsight.adapters.ray_pool import ray_pool

    with ray_pool(address, workers, gpus) as pool:
        yield pool
