"""Who does work that falls into shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from finsight.shard_ports import WorkerPool


@contextmanager
def worker_pool(engine: str, address: str | None = None, workers: int | None = None) -> Iterator[WorkerPool]:
    """Who does the work, as long as the block runs.

    :param engine: ``local`` or ``ray``.
    :param address: of a Ray cluster; see :func:`finsight.adapters.ray_pool.ray_pool`.
    :param workers: one here, one a core of the cluster by default.
    """
    if engine == "local":
        from finsight.adapters.local_pool import LocalPool

        yield LocalPool(workers or 1)
        return
    from finsight.adapters.ray_pool import ray_pool

    with ray_pool(address, workers) as pool:
        yield pool
