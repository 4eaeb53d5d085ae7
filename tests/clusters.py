"""A real Ray cluster on this machine, for tests that connect to one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_HEAD = """
import sys
from finsight.environment import quiet
quiet()
import ray
ray.init("local", num_cpus=2, num_gpus=int(sys.argv[1]), include_dashboard=False, object_store_memory=2**27, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
# Workers are nice to all else (15) unless told not to, and would not move while other tests run.
AWAKE = {"RAY_worker_niceness": "0"}


@contextmanager
def ray_cluster(gpus: int = 0) -> Iterator[dict[str, str]]:
    """A cluster of two cores that ends with the block: the variables by which others find it and are let in, by the user's token of Ray.

    :param gpus: that it is told of; it divides them among workers, whether they are there or not.
    """
    token = {"RAY_AUTH_MODE": "token"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", _HEAD, str(gpus)], text=True, env=os.environ | AWAKE | token, **pipes) as head:
        assert head.stdin is not None
        assert head.stdout is not None
        yield {"RAY_ADDRESS": head.stdout.readline().strip(), **token}
        head.stdin.close()
        head.wait(60)
