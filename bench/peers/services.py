"""Services for bench/serve.py: ours, and its peers. Each is a process that answers one text a request."""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

KEY = "the-key-of-the-benchmark"
HERE = Path(__file__).parent
START = 180  # seconds

Body = Callable[[str], dict[str, Any]]


@dataclass(frozen=True)
class Service:
    """One that runs.

    :param bodies: file of request bodies, one a line.
    """

    name: str
    url: str
    bodies: Path
    process: "subprocess.Popen[bytes]"

    def load(self, seconds: float, clients: int, rate: float = 0, piled: bool = False) -> dict[str, Any]:
        """Ask it; what the client says, with the cores that the client took (``cores``) and good answers a second (``rate``).

        :param rate: requests a second at random times; 0: each client asks again once it is answered.
        :param piled: whether requests come at that rate however many are not answered yet.
        """
        environment = {**os.environ, "BENCH_BODIES": str(self.bodies), "BENCH_KEY": KEY}
        if rate:
            environment["BENCH_PAUSE"] = str(1000 * clients / rate)
        if not piled and shutil.which("wrk"):
            command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:.0f}s", "--timeout", "30s", "-s", str(HERE / "load.lua"), self.url]
        else:
            command = [sys.executable, str(HERE / "client.py"), self.url, str(self.bodies), str(seconds), str(clients), str(rate)]
        before = os.times()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        after = os.times()
        if done.returncode:
            raise click.ClickException(f"{command[0]}: {(done.stderr or done.stdout).strip()[-500:]}")
        if done.stderr:
            click.echo("  " + done.stderr.splitlines()[0])
        found: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return {**found, "cores": cpu / found["seconds"], "rate": found["statuses"].get("200", 0) / found["seconds"]}


@contextmanager
def serve(name: str, command: list[str], path: str, body: Body, texts: list[str], work: Path, **env: str) -> Iterator[Service]:
    """Start a service whose command takes ``{port}``; it answers once before this goes on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    bodies = work / f"{name}.jsonl"
    bodies.write_text("\n".join(json.dumps(body(text)) for text in texts), encoding="utf-8")
    url = f"http://127.0.0.1:{port}{path}"
    with (work / f"{name}.log").open("wb") as log:
        words = [word.replace("{port}", str(port)) for word in command]
        process = subprocess.Popen(words, env={**os.environ, **env}, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(url, json.dumps(body(texts[0])).encode(), process, log.name)
        yield Service(name, url, bodies, process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def _wait(url: str, body: bytes, process: "subprocess.Popen[bytes]", log: str) -> None:
    end = time.monotonic() + START
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", "X-API-Key": KEY})
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(request, timeout=30).close()
        except OSError:
            time.sleep(0.3)
        else:
            return
    raise click.ClickException(f"{url} does not answer: {Path(log).read_text(errors='replace')[-1000:]}")


def ours(bundle: Path, texts: list[str], work: Path) -> Any:
    command = [sys.executable, "-m", "finsight.cli", "serve", "--bundle", str(bundle), "--port", "{port}", "--no-cache"]
    return serve(
        "finsight",
        command,
        "/v1/predict",
        lambda text: {"texts": [text]},
        texts,
        work,
        FINSIGHT_API_KEY=KEY,
        FINSIGHT_LIMITS="predict=1000000/second",
    )


def fastapi_pipeline(checkpoint: Path, longest: int, texts: list[str], work: Path) -> Any:
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "fastapi_pipeline:app",
        "--app-dir",
        str(HERE),
        "--port",
        "{port}",
        "--log-level",
        "warning",
    ]
    env = {"CHECKPOINT": str(checkpoint), "MAX_LENGTH": str(longest)}
    return serve("fastapi-pipeline", command, "/predict", lambda text: {"text": text}, texts, work, **env)


def mlflow_serve(checkpoint: Path, longest: int, texts: list[str], work: Path) -> Any:
    """Of the checkpoint, as MLflow itself packages a pipeline of transformers."""
    import mlflow.transformers
    from transformers import pipeline

    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it looks for a model card on the hub
    model = pipeline("text-classification", str(checkpoint), device="cpu")
    config = {"truncation": True, "max_length": longest, "top_k": None}
    if not (work / "pipeline").exists():
        mlflow.transformers.save_model(model, str(work / "pipeline"), model_config=config, pip_requirements=[])
    return _mlflow("mlflow-serve", work / "pipeline", texts, work)


def mlflow_serve_bundle(bundle: Path, texts: list[str], work: Path) -> Any:
    """Of our bundle, as `register` packages it: the same graph that we serve."""
    from finsight.adapters.pyfunc import package

    if not (work / "model").exists():
        package(bundle, work / "model")
    return _mlflow("mlflow-serve-bundle", work / "model", texts, work)


def _mlflow(name: str, model: Path, texts: list[str], work: Path) -> Any:
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local", "--port", "{port}"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # it looks there for uvicorn
    return serve(
        name,
        command,
        "/invocations",
        lambda text: {"dataframe_split": {"columns": ["text"], "data": [[text]]}},
        texts,
        work,
        PATH=path,
    )
