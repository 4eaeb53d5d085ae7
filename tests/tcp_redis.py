"""A Redis on a loopback port: for a service that runs as another user, who may not use the embedded one's socket."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis, RedisError

from finsight.adapters.redis_server import executable
from servers import free_port


@contextmanager
def tcp_redis() -> Iterator[str]:
    """Its address."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [executable(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            with Redis(port=port) as client:
                end = time.monotonic() + 20
                while True:
                    try:
                        client.ping()
                        break
                    except RedisError:
                        assert time.monotonic() < end
                        time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait(20)
