"""Workers of a Ray cluster, by Ray Data: its actors keep what they have loaded, and what a lost one was at is done by another."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from finsight.adapters.gpus import gpus as these_gpus
from finsight.adapters.network import no_answer
from finsight.environment import cores, quiet
from finsight.errors import FinsightError, ParamsError, UnreachableError
from finsight.shard_ports import Item, Result

_STORE = 2**27  # bytes of shared memory of a cluster of our own, through which descriptions go, and results of a few megabytes
_RETRIES = 3  # of an item whose worker died; Ray Data's own default is to try for ever


@contextmanager
def ray_pool(address: str | None = None, workers: int | None = None, gpus: bool = False) -> Iterator[RayPool]:
    """Connect to a cluster while the block runs, or have one on this machine.

    :param address: on a machine of the cluster, ``HOST:PORT`` of its head or ``auto``; by default what ``RAY_ADDRESS`` says, else a cluster
        of our own.
    :param workers: as many as the cluster has cores by default, or GPUs.
    :param gpus: whether each worker has a GPU to itself.
    :raises ParamsError: when the address is one for Ray's client, or the cluster has no GPU.
    :raises FinsightError: when Ray is not installed.
    :raises UnreachableError: when no cluster answers there, none can be started, or it is lost while the block runs.
    """
    quiet()
    # It says of each pool of actors that they might not come back, since a part of them is kept in shared memory; Ray Data keeps it there.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
        from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayError
    except ImportError:
        raise FinsightError("Ray is not installed: `pip install 'finsight[scale]'`, or leave the engine at local") from None
    own = _connect(ray, address, workers, gpus)
    try:
        there = int(ray.cluster_resources().get("GPU" if gpus else "CPU", 0))
        if gpus and there < (workers or 1) and (own or not workers):  # Ray would wait for them to come, without a word
            remedies = ["lower --workers"] if there else [] if own else ["give --workers where machines come when they are asked for"]
            line = f"Ray: {there} GPUs in the cluster for {workers or 1} workers, and the format is computed on one"
            raise ParamsError(f"{line}; {', or '.join([*remedies, 'name another --graph'])}")
        yield RayPool(workers or max(1, there), gpus)
    except RayError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        what = f"{type(error).__name__}: {reason}"
        if isinstance(error, RayActorError) and error.actor_init_failed:
            raise UnreachableError(f"Ray: no worker could begin ({reason}); have the same finsight and Ray on every node") from None
        if isinstance(error, ActorDiedError | ActorUnavailableError):
            what = f"a worker died {_RETRIES + 1} times at the same item, perhaps for want of memory"
        raise UnreachableError(f"Ray: {what}; the same command goes on with what is left") from None
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str | None, workers: int | None, gpus: bool) -> bool:
    """Whether the cluster is one of our own.

    :raises UnreachableError: when no cluster answers, or none can be started.
    """
    known = os.environ.get("RAY_ADDRESS")
    named = address or f"RAY_ADDRESS={known}"
    address = address or known or "local"
    if address.startswith("ray://"):
        # Ray Data is not made for Ray's client, whose driver is a process elsewhere that the files have to be reached from, too.
        raise ParamsError(f"{named}: give HOST:PORT or auto on a machine of the cluster; `ray job submit` brings the command there")
    if address not in ("auto", "local") and (why := no_answer(f"http://{address}")):
        raise UnreachableError(f"{named}: no Ray cluster there ({why}); check the address, or `ray start --head` on that machine")
    own: dict[str, Any] = {}
    if address == "local":
        most = workers or max(cores(), len(these_gpus()) if gpus else 0)  # a worker has a core of Ray's count, whatever it has of a GPU
        own = {"num_cpus": most, "include_dashboard": False, "object_store_memory": _STORE}
    try:
        with nullcontext() if own else _tried_once():
            ray.init(address, **own, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # noqa: BLE001 - of any class: one that is slow to start is a bare Exception
        reason = " ".join(str(error).split())[:200]
        if own:
            raise UnreachableError(f"Ray: none could be started here ({reason}); see its logs, or leave the engine at local") from None
        line = f"{named}: no Ray cluster that can be used ({reason}); check the address, the versions, and RAY_AUTH_MODE"
        raise UnreachableError(line) from None
    return bool(own)


@contextmanager
def _tried_once() -> Iterator[None]:
    """Where something else than a cluster answers, such as Ray's dashboard, a try takes most of a minute; Ray itself makes twenty."""
    name = "RAY_gcs_server_port_wait_time_s"  # in spite of it, how many
    if name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]


class RayPool:
    """See :class:`finsight.shard_ports.WorkerPool`.

    :param workers: actors, of a core each.
    :param gpus: whether each has a GPU, too.
    """

    def __init__(self, workers: int, gpus: bool = False) -> None:
        self._workers = workers
        self._gpus = gpus

    @property
    def cores(self) -> int:
        """See :class:`finsight.shard_ports.WorkerPool`."""
        return 1

    def run(self, make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]) -> Iterator[Result]:
        """See :class:`finsight.shard_ports.WorkerPool`."""
        import ray.data

        if not items:
            return
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it tells each error with its whole stack before it is raised
        # A block an item: Ray hands out blocks. One at a time, so that none waits for a worker while another has nothing to do.
        given = ray.data.from_items([{"item": _Box(item)} for item in items], override_num_blocks=len(items))
        actors = ray.data.ActorPoolStrategy(size=min(self._workers, len(items)), max_tasks_in_flight_per_actor=1)
        with warnings.catch_warnings():
            # Ray Data has a parameter for all but this option, and says that the way of passing others goes with 2.64.
            warnings.simplefilter("ignore")
            per_item = {"batch_size": 1, "num_cpus": 1, "num_gpus": int(self._gpus), "max_task_retries": _RETRIES}
            made = given.map_batches(_Actor, fn_constructor_args=(make,), compute=actors, **per_item)
        # Closed by name: while an error's traceback holds on to it, the actors would keep their cores.
        with closing(iter(made.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0))) as batches:
            for batch in batches:
                for box in batch["found"]:
                    found, error = box.content
                    if error is not None:
                        raise error
                    yield found


@dataclass(frozen=True, slots=True)
class _Box:
    """Something that Ray sends as it is; of numbers and tuples it would make columns."""

    content: Any


class _Actor:
    """What runs in a process of the cluster."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        self._make = make
        self._work: Callable[[Any], Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        found = np.empty(len(batch["item"]), dtype=object)
        found[:] = [_Box(self._one(box.content)) for box in batch["item"]]
        return {"found": found}

    def _one(self, item: Any) -> tuple[Any, Exception | None]:
        """What became of an item; an error of the user's travels as such, for Ray would wrap it and tell its whole stack."""
        quiet()
        try:
            if self._work is None:
                self._work = self._make()
            return self._work(item), None
        except (FinsightError, OSError) as error:
            return None, error
