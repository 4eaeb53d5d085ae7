"""Starting the processes that train together."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from finsight.errors import StoppedError, UnreachableError
from finsight.modeling.distributed import launched
from finsight.params.train import LaunchParams


def relaunched(launch: LaunchParams, command: Sequence[str]) -> bool:
    """Run ``command`` in as many processes as ``launch`` says and wait for them; False where this process is one of them already, or
    one is enough.

    A process that fails has said why; the others are ended, and so is this one.
    """
    if launched() or launch.processes * launch.nodes == 1:
        return False
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # its summary of a failure is a page without the reason
    several = launch.nodes > 1
    config = LaunchConfig(
        min_nodes=launch.nodes,
        max_nodes=launch.nodes,
        nproc_per_node=launch.processes,
        run_id="finsight",
        rdzv_backend="c10d",
        rdzv_endpoint=launch.rendezvous if several else "localhost:0",
        rdzv_configs={"is_host": launch.node_rank == 0},
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-u", *command)
    except ChildFailedError as failed:
        code = next(iter(failed.failures.values())).exitcode
        if code < 0:
            raise StoppedError(f"train: signal {-code} ended a process; the same command goes on from the last state") from None
        sys.exit(code)
    except SignalException as ended:
        raise StoppedError(f"train: {ended.sigval.name} ended the processes; the same command goes on from the last state") from None
    except RendezvousError as error:
        reason = " ".join(str(error).split())[:200]
        raise UnreachableError(
            f"train.launch.rendezvous: {launch.rendezvous}: {reason}; start the command on all {launch.nodes} nodes"
        ) from None
    return True
