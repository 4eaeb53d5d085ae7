"""A real Ray cluster on this machine, for tests that connect to one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HEAD = """
import sys
from finsight.environment import quiet
quiet()
import ray
ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=2**27, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def ray_cluster() -> Iterator[str]:
    """The address of a cluster of two cores, whose workers find the tests' modules; it ends with the block."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    # Workers are nice to all else (15) unless told not to, and would not move while other tests run.
    environment = os.environ | {"PYTHONPATH": path, "RAY_worker_niceness": "0"}
    head = subprocess.Popen([sys.executable, "-c", _HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    with head:
        assert head.stdin is not None
        assert head.stdout is not None
        yield head.stdout.readline().strip()
        head.stdin.close()
        head.wait(60)
