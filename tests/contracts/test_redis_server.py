"""The embedded Redis: what it acknowledged is kept, and nobody else may ask it."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import Redis

from finsight.adapters.redis_server import embedded
from finsight.errors import UnreachableError


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    with embedded(folder) as address, Redis.from_url(address) as client:
        client.set("job", "kept")
        os.kill(client.info()["process_id"], signal.SIGKILL)
    with embedded(folder) as address, Redis.from_url(address) as client:
        assert client.get("job") == b"kept"


def test_only_its_owner_reaches_it(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    with embedded(folder) as address, Redis.from_url(address) as client:
        client.set("a", "b")
        assert stat.S_IMODE(Path(address.removeprefix("unix://")).stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
        assert client.config_get("port") == {"port": "0"}


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    with embedded(folder) as address, Redis.from_url(address) as client:
        client.set("a", "b")
    (folder / "appendonly.aof").write_bytes(b"nothing of the kind\r\n" * 20)
    with pytest.raises(UnreachableError, match="Redis does not start"), embedded(folder):
        pass


def test_two_over_one_folder_are_refused(tmp_path: Path) -> None:
    with embedded(tmp_path / "redis"), pytest.raises(UnreachableError, match="another service runs over it"), embedded(tmp_path / "redis"):
        pass


HOLDER = """
import sys
from pathlib import Path
from finsight.adapters.redis_server import embedded
with embedded(Path(sys.argv[1])) as address:
    print(address, flush=True)
    sys.stdin.read()
"""


def test_it_does_not_outlive_a_service_that_is_killed_and_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        with Redis.from_url(holder.stdout.readline().strip()) as client:
            process = int(client.info()["process_id"])
            client.set("job", "kept")
        holder.kill()
        began = time.monotonic()
        with embedded(folder) as address, Redis.from_url(address) as client:
            assert time.monotonic() - began < 10
            assert client.get("job") == b"kept"
            assert not Path(f"/proc/{process}").exists()
