"""What tracing costs a prediction: the service's app on a real server, with traces and without, by turns, one request after the other.

\b
Ways:
  off      OTEL_EXPORTER_OTLP_ENDPOINT unset
  default  set: a share of the predictions is traced
  all      the same with OTEL_TRACES_SAMPLER=always_on

The model says nothing and takes no time, so that the ratio is of the service's own work alone: with a model it is closer to 1. Spans go to
a receiver in a process of its own. Rounds take turns; medians count.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

WAYS = {"off": {}, "default": {}, "all": {"OTEL_TRACES_SAMPLER": "always_on"}}
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
SERVICE = """
import asyncio, sys
sys.path[:0] = ["tests"]
import uvicorn
from apps import app_with, rules
from finsight import tracing
from finsight.service.access import OneKey
from finsight.service.wire import PatientProtocol
tracing.start("api")
app = app_with(OneKey("a-key"), rules("predict=1000000/second"))
uvicorn.run(app, port=int(sys.argv[1]), http=PatientProtocol, log_level="error", access_log=False, timeout_keep_alive=75)
"""


def cost(way: str, collector: str, port: int, requests: int) -> float:
    """Processor seconds that the service takes for a prediction: what else runs on the machine does not count."""
    import httpx

    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    if way != "off":
        environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, **WAYS[way]}
    process = subprocess.Popen([sys.executable, "-c", SERVICE, str(port)], env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": "a-key"}) as client:
            _until_it_answers(client)
            body = {"texts": ["Operating profit rose."]}
            for _ in range(requests // 5):
                client.post("/v1/predict", json=body).raise_for_status()
            began = _taken(process.pid)
            for _ in range(requests):
                client.post("/v1/predict", json=body)
            return (_taken(process.pid) - began) / requests
    finally:
        process.kill()
        process.wait()


def _taken(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _until_it_answers(client: object) -> None:
    import httpx

    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            client.get("/livez")  # type: ignore[attr-defined]
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise click.ClickException("the service does not answer")


@click.command(help=__doc__)
@click.option("--requests", default=5000, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--port", default=8099, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(requests: int, rounds: int, port: int, json_path: Path | None) -> None:
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    with subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout
        collector = f"http://127.0.0.1:{receiver.stdout.readline().strip()}"
        for number in range(rounds):
            for way in list(WAYS)[number % 3 :] + list(WAYS)[: number % 3]:
                found[way].append(cost(way, collector, port, requests))
            click.echo(f"round {number + 1}: " + ", ".join(f"{way} {taken[-1] * 1e6:.0f} µs" for way, taken in found.items()))
        receiver.kill()
    middle = {way: statistics.median(taken) for way, taken in found.items()}
    rows = [
        {"name": f"a prediction, traces {way}", "peer": "off", "ours": middle[way] * 1e6, "theirs": middle["off"] * 1e6, "unit": "µs",
         "ratio": middle["off"] / middle[way]}
        for way in ("default", "all")
    ]  # fmt: skip
    for row in rows:
        click.echo(f"{row['name']:<32}{row['ours']:>8.0f} µs, {row['theirs']:.0f} µs without: {1 / float(str(row['ratio'])) - 1:+.1%}")
    if json_path:
        json_path.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
