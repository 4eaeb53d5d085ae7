"""What tracing costs a prediction, in processor time of all threads: the service's app in this process, with traces and without, by turns.

\b
Ways:
  off      OTEL_EXPORTER_OTLP_ENDPOINT unset
  default  set, and no OTEL_TRACES_SAMPLER: one prediction in twenty is traced
  all      OTEL_TRACES_SAMPLER=always_on

The model says nothing and takes no time, and no HTTP is parsed: what a whole request takes is more, so the share is less there (`--of`).
Spans are encoded and sent to a receiver in a process of its own within the time that counts. Blocks of requests take turns in an order that
is drawn anew each time, since the machine may be busy; medians of their differences count.
"""

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
WAYS = ("off", "default", "all")
RECEIVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
BODY = json.dumps({"texts": ["Operating profit rose."]}).encode()
HEADERS = [(b"host", b"localhost"), (b"x-api-key", b"a-key"), (b"content-type", b"application/json")]


async def ask(app: Callable[..., Awaitable[None]]) -> None:
    said = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    path = {"path": "/v1/predict", "raw_path": b"/v1/predict", "query_string": b"", "scheme": "http"}
    ends = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
    headers = [*HEADERS, (b"content-length", str(len(BODY)).encode())]
    await app({"type": "http", "http_version": "1.1", "method": "POST", "headers": headers, **path, **ends}, receive, send)
    assert said[0]["status"] == 200, said


async def measured(blocks: int, requests: int) -> dict[str, list[float]]:
    """Seconds of a request by way, a number for each block."""
    from apps import app_with, rules
    from finsight import tracing
    from finsight.service.access import OneKey

    tracing.start("api")
    app, tracer, provider = app_with(OneKey("a-key"), rules("predict=1000000/second")), tracing._tracer, tracing._provider
    assert provider
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(blocks + 1):
        for way in random.sample(WAYS, len(WAYS)):
            tracing._tracer = None if way == "off" else tracer
            os.environ.pop("OTEL_TRACES_SAMPLER", None)
            if way == "all":
                os.environ["OTEL_TRACES_SAMPLER"] = "always_on"
            began = time.process_time()
            for _ in range(requests):
                await asyncio.create_task(ask(app))  # a task each, as a server has it
            provider.force_flush()
            if number:  # the first block warms up
                taken[way].append((time.process_time() - began) / requests)
    return taken


@click.command(help=__doc__)
@click.option("--blocks", default=20, show_default=True)
@click.option("--requests", default=1000, show_default=True, help="Of a block.")
@click.option("--of", "whole", default=460.0, show_default=True, help="Microseconds of a whole request, to show the share of.")
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(blocks: int, requests: int, whole: float, json_path: Path | None) -> None:
    with subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{receiver.stdout.readline().strip()}"
        taken = asyncio.run(measured(blocks, requests))
        receiver.kill()
    off = statistics.median(taken["off"]) * 1e6
    click.echo(f"a prediction without traces: {off:.0f} µs of this app alone")
    rows = []
    for way in ("default", "all"):
        more = statistics.median(one - other for one, other in zip(taken[way], taken["off"], strict=True)) * 1e6
        click.echo(f"traces {way:<8} {more:+7.1f} µs, {more / off:+.1%}; of a request of {whole:.0f} µs {more / whole:+.1%}")
        row = {"name": f"a prediction, traces {way}", "peer": "off", "ours": off + more, "theirs": off, "unit": "µs"}
        rows.append({**row, "ratio": off / (off + more)})
    if json_path:
        json_path.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
