"""Starting the processes that train together, and starting them again when one is lost: torchrun's own agent."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence

import psutil
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler
from torch.distributed.launcher.api import LaunchConfig

from finsight.errors import LostError, StoppedError, UnreachableError
from finsight.modeling.distributed import launched
from finsight.params.train import LaunchParams

Say = Callable[[str], None]


def relaunched(launch: LaunchParams, command: Sequence[str], say: Say) -> bool:
    """Run ``command`` in as many processes as ``launch`` says and wait for them; False where this process is one of them already, or
    one is enough.

    A process that fails has said why; the others are ended, and so is this one. When one is killed or cut off, all begin again from the
    last state, ``launch.restarts`` times at most.

    :param say: is told what people want to know while they wait.
    :raises StoppedError: when a signal ended the processes, or ended one too often.
    :raises UnreachableError: when the machines don't meet.
    """
    if launched() or launch.processes * launch.nodes == 1:
        return False
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # its summary of a failure is a page without the reason
    # The agent's own store would be used again after a restart, and processes wait there for what the dead ones wrote (torch 2.13).
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    several = launch.nodes > 1
    address = _meeting(launch, say) if several else "127.0.0.1"
    parameters = RendezvousParameters(
        backend="c10d",
        endpoint=launch.rendezvous if several else "localhost:0",
        run_id="finsight",
        min_nodes=launch.nodes,
        max_nodes=launch.nodes,
        local_addr=address,
        is_host=launch.node_rank == 0,
        join_timeout=int(launch.wait),
    )
    try:
        result = _run(launch, parameters, command, say)
    except SignalException as ended:
        raise StoppedError(f"train: {ended.sigval.name} ended the processes; the same command goes on from the last state") from None
    except RendezvousError as error:
        reason = " ".join(str(error).split())[:200] or f"not all came within {launch.wait:g} s, or another has ended"
        raise UnreachableError(
            f"train.launch.rendezvous: {launch.rendezvous}: {reason}; start the command on all {launch.nodes} nodes: "
            "it goes on from the last state"
        ) from None
    if result.is_failed():
        raise StoppedError(f"train: {_what(result)}, after {launch.restarts} restarts; the same command goes on from the last state")
    return True


def _run(launch: LaunchParams, parameters: RendezvousParameters, command: Sequence[str], say: Say) -> RunResult:
    meeting = get_rendezvous_handler(parameters)
    spec = WorkerSpec(
        role="trainer",
        local_world_size=launch.processes,
        rdzv_handler=meeting,
        entrypoint=sys.executable,
        args=("-u", *command),
        max_restarts=launch.restarts,
        local_addr=parameters.local_addr,
        numa_options=LaunchConfig(launch.nodes, launch.nodes, launch.processes).numa_options,  # as torchrun has it: each GPU's own node
    )
    try:
        result: RunResult = _Agent(spec, say).run()
    except SignalException:
        raise  # the others may wait for this machine to come back
    except BaseException:
        meeting.shutdown()  # they needn't wait
        raise
    meeting.shutdown()
    return result


class _Agent(LocalElasticAgent):
    """Torchrun's agent starts its processes again whatever ended them. What a user has to change would only be said again."""

    def __init__(self, spec: WorkerSpec, say: Say) -> None:
        super().__init__(spec, DefaultLogsSpecs())
        self._say = say

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result: RunResult = super()._monitor_workers(worker_group)
        for failure in result.failures.values():
            if failure.exitcode > 0 and failure.exitcode != LostError.exit_code:
                sys.exit(failure.exitcode)
        if result.is_failed() and self._remaining_restarts:
            number = worker_group.spec.max_restarts - self._remaining_restarts + 1
            self._say(f"train: {_what(result)}; all begin again from the last state, restart {number} of {worker_group.spec.max_restarts}")
        return result


def _what(result: RunResult) -> str:
    """What ended the first of the processes that were lost."""
    code = min(result.failures.values(), key=lambda failure: failure.timestamp).exitcode
    return f"signal {-code} ended a process" if code < 0 else "a process lost the others"


def _meeting(launch: LaunchParams, say: Say) -> str:
    """This machine's address on the way to the first, once that can be reached.

    The others are told it in place of the host's name, which a network need not know, and gloo is told the interface, which it
    would else take from that name (on Debian 127.0.1.1).
    """
    say(f"train: meeting {launch.nodes} machines at {launch.rendezvous}, which takes {launch.wait:g} s at most")
    host, _, port = launch.rendezvous.rpartition(":")
    kind = socket.SOCK_STREAM if launch.node_rank else socket.SOCK_DGRAM  # nobody listens yet where the first asks for itself
    until = time.monotonic() + launch.wait
    while True:
        try:
            ways = sorted(socket.getaddrinfo(host.strip("[]"), int(port), type=kind))  # IPv4 first
            with socket.socket(ways[0][0], kind) as one:
                one.settimeout(5)
                one.connect(ways[0][4])
                address: str = one.getsockname()[0]
            break
        except OSError as error:
            if time.monotonic() > until:
                raise UnreachableError(
                    f"train.launch.rendezvous: {launch.rendezvous}: {error.strerror or error}; start the command on node 0, or correct it"
                ) from None
            time.sleep(1)
    for name, its in psutil.net_if_addrs().items():
        if address in {each.address for each in its}:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    return address
