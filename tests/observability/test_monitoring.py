"""A pipeline, a service and a worker, watched by a real Prometheus; what it finds wrong reaches a chat and a mailbox."""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler
from itertools import count, islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword
from ruamel.yaml import YAML
from websockets.sync.client import connect

from conftest import REPO, Project, metrics_of
from finsight.adapters.gpus import gpus
from finsight.adapters.redis_server import embedded
from github import certificate
from monitors import Asked, alertmanager, node_exporter, prometheus, pushgateway, tool, until
from servers import free_port, serving, wait_for
from serving import HEADERS, KEY, TEXTS

pytestmark = pytest.mark.long

PROMETHEUS = REPO / "deploy/prometheus"
BY_TOKEN = "by-token"
PASSWORD = "the mailbox's password"


@dataclass
class Watched:
    """What is at work.

    :param stop_redis: ends the service's Redis.
    :param posts: what Slack's webhook was sent.
    :param mails: what the mail server took.
    """

    prometheus: Asked
    http: httpx.Client
    stop_redis: Callable[[], None]
    posts: list[dict[str, Any]]
    mails: list[str]


@pytest.fixture(scope="module")
def ran(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Path, str]]:
    """A project whose stages have all run; the folder of their metrics; a Pushgateway, which has those of the one that ran last."""
    tool("prometheus")
    tool("prometheus-alertmanager", "alertmanager")
    folder = tmp_path_factory.mktemp("watched")
    root, metrics = folder / "project", folder / "metrics"
    shutil.copytree(finished.root, root)
    shutil.copytree(metrics_of(finished), metrics)
    with pushgateway() as gateway:
        project = Project(root, finished.backbone, {**finished.env, "FINSIGHT_METRICS_DIR": str(metrics), "FINSIGHT_PUSHGATEWAY": gateway})
        project.cli("corpus", "approve")  # so that there is something to drift from
        project.run("validate")
        yield project, metrics, gateway


@pytest.fixture(scope="module")
def watched(ran: tuple[Project, Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    (project, metrics, gateway), folder = ran, tmp_path_factory.mktemp("monitors")
    with ExitStack() as stack:
        redis = stack.enter_context(ExitStack())
        url = redis.enter_context(embedded(folder / "redis"))
        ports = {"serve": free_port(), "service": free_port(), "worker": free_port()}
        environment = {
            **os.environ,
            **project.env,
            "FINSIGHT_REDIS_URL": url,
            "FINSIGHT_API_KEY": KEY,
            "FINSIGHT_DRAIN_SECONDS": "0",
            "FINSIGHT_SERVICE_METRICS": f"127.0.0.1:{ports['service']}",
            "FINSIGHT_WORKER_METRICS": f"127.0.0.1:{ports['worker']}",
        }
        for command, port in ((["serve", "--port", str(ports["serve"])], ports["serve"]), (["worker"], ports["worker"])):
            process = subprocess.Popen([sys.executable, "-m", "finsight.cli", *command], cwd=project.root, env=environment)
            stack.callback(process.wait, 60)
            stack.callback(process.terminate)
            wait_for(f"http://127.0.0.1:{port}/metrics", process)
        posts, hook = stack.enter_context(webhook())
        mails, post = stack.enter_context(mailbox(folder))
        manager = stack.enter_context(alertmanager(alerting(folder, hook, post)))
        exporter = stack.enter_context(node_exporter(metrics))
        addresses = {
            "finsight-service": f"127.0.0.1:{ports['service']}",
            "finsight-worker": f"127.0.0.1:{ports['worker']}",
            **{name: at.removeprefix("http://") for name, at in (("pushgateway", gateway), ("node", exporter), ("alertmanager", manager))},
        }
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{ports['serve']}", headers=HEADERS, timeout=60))
        asked = stack.enter_context(prometheus(scraping(folder, addresses, by_token(http, folder))))
        yield Watched(asked, http, redis.close, posts, mails)


def by_token(http: httpx.Client, folder: Path) -> dict[str, Any]:
    """What docs/observability.md has of a service whose own port alone can be reached."""
    made = http.post("/v1/keys", json={"name": "prometheus", "roles": ["monitor"]}).json()
    (folder / "metrics").write_text(made["client_secret"])
    token = {"client_id": made["id"], "client_secret_file": str(folder / "metrics"), "token_url": str(http.base_url.join("/v1/auth/token"))}
    return {"job_name": BY_TOKEN, "oauth2": token, "static_configs": [{"targets": [http.base_url.netloc.decode()]}]}


def scraping(folder: Path, addresses: dict[str, str], more: dict[str, Any]) -> Path:
    """The configuration that is shipped and one job more, with other addresses and less patience."""
    config = YAML(typ="safe").load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [addresses["alertmanager"]]
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] in addresses]
    for job in config["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": [addresses[job["job_name"]]]}]
    config["scrape_configs"].append(more)
    shutil.copytree(PROMETHEUS / "rules", folder / "rules")
    alerts = folder / "rules/alerts.yml"
    alerts.write_text(re.sub(r"for: \d+[mh]", "for: 1s", alerts.read_text()))
    path = folder / "prometheus.yml"
    with path.open("w") as file:
        YAML(typ="safe").dump(config, file)
    return path


def alerting(folder: Path, hook: str, post: int) -> Path:
    """The configuration that is shipped, with other addresses and less patience; the mail server's certificate is the test's own."""
    (folder / "webhook").write_text(hook)
    (folder / "password").write_text(PASSWORD)
    config = YAML(typ="safe").load((REPO / "deploy/alertmanager/alertmanager.yml").read_text())
    config["global"] |= {
        "slack_api_url_file": str(folder / "webhook"),
        "smtp_smarthost": f"127.0.0.1:{post}",
        "smtp_auth_password_file": str(folder / "password"),
    }
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "1s", "group_interval": "1s"}
    for receiver in config["receivers"]:
        for mail in receiver.get("email_configs", []):
            mail["tls_config"] = {"ca_file": str(folder / "server.pem")}
    path = folder / "alertmanager.yml"
    with path.open("w") as file:
        YAML(typ="safe").dump(config, file)
    return path


@contextmanager
def webhook() -> Iterator[tuple[list[dict[str, Any]], str]]:
    """A webhook as Slack has it: what it was sent, and its address."""
    posts: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *args: object) -> None:
            pass

    with serving(Hook) as url:
        yield posts, f"{url}/services/T0/B0/secret"


@contextmanager
def mailbox(folder: Path) -> Iterator[tuple[list[str], int]]:
    """A mail server that wants TLS and a password: what it took, and its port."""
    mails: list[str] = []

    class Taken:
        async def handle_DATA(self, server: object, session: object, envelope: Envelope) -> str:  # noqa: N802
            mail = message_from_bytes(bytes(envelope.content or b""), policy=default)
            body = mail.get_body(("plain",))
            mails.append(f"{envelope.rcpt_tos} {mail['Subject']}\n{body.get_content() if body else ''}")
            return "250 OK"

    def known(server: object, session: object, envelope: object, mechanism: str, found: object) -> AuthResult:
        return AuthResult(success=isinstance(found, LoginPassword) and found.password == PASSWORD.encode())

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate(folder))
    wanted = {
        "require_starttls": True,
        "auth_required": True,
        "auth_exclude_mechanism": ["LOGIN"],
    }  # whose words here are not the usual ones
    controller = Controller(Taken(), hostname="127.0.0.1", port=free_port(), tls_context=tls, authenticator=known, **wanted)
    controller.start()
    try:
        yield mails, controller.port
    finally:
        controller.stop()


_NUMBERS = count()  # of texts that no cache has


def use(http: httpx.Client) -> None:
    """Some of everything that a service counts."""
    new = [f"Sales rose by {n} %" for n in islice(_NUMBERS, 40)]
    for texts in (new, TEXTS, TEXTS):
        assert http.post("/v1/predict", json={"texts": texts}).status_code == 200
    assert http.post("/v1/predict", json={"texts": []}).status_code == 422
    assert http.get("/v1/nothing").status_code == 404
    address = str(http.base_url).replace("http", "ws", 1).rstrip("/")
    with connect(f"{address}/v1/ws/predict", additional_headers=HEADERS) as socket:
        socket.send(json.dumps({"id": 1, "text": TEXTS[0]}))
        assert json.loads(socket.recv())["prediction"]


def score(http: httpx.Client) -> str:
    """A scoring, done; the state it ended in."""
    asked = http.post("/v1/score?text=text", content="text\nProfit rose\n", headers={"Content-Type": "text/csv"})
    assert asked.status_code in (200, 202), asked.text
    name = asked.json()["id"]
    return str(until(lambda: (job := http.get(f"/v1/jobs/{name}").json())["state"] in ("succeeded", "failed") and job["state"], 120))


def test_every_target_is_up(watched: Watched) -> None:
    def all_up() -> bool:
        return len(found := watched.prometheus.targets()) == 6 and set(found.values()) == {"up"}

    until(all_up, 60, watched.prometheus.targets)


def test_every_query_of_every_dashboard_has_data(watched: Watched) -> None:
    asked, has_gpu = watched.prometheus, bool(gpus())
    until(lambda: asked.query("up"))
    use(watched.http)
    assert score(watched.http) == "succeeded"
    queries = []
    for path in sorted((REPO / "deploy/grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            queries += [(path.stem, panel["title"], target["expr"]) for target in panel.get("targets", [])]
    assert len(queries) > 60

    def empty() -> list[tuple[str, str, str]]:
        use(watched.http)
        said = [(one, asked.query(one[2].replace("$__rate_interval", "1m"))) for one in queries]
        return [one for one, found in said if any(s["value"][1] != "NaN" for s in found) is not expected(one[2])]

    def expected(expression: str) -> bool:
        return has_gpu or "finsight_gpu_" not in expression

    until(lambda: not empty(), 60, empty)


def test_what_a_stage_pushed_is_what_it_left_in_a_file(watched: Watched, ran: tuple[Project, Path, str]) -> None:
    asked, drift = watched.prometheus, ran[0].json("validation.json")["drift"]

    def shown() -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for sample in asked.query("finsight_corpus_drift"):
            found.setdefault(sample["metric"]["job"], {})[sample["metric"]["of"]] = float(sample["value"][1])
        return found

    # What is pushed keeps its own labels.
    until(lambda: shown() == {"node": drift, "finsight_stage": drift}, 60, shown)


def test_a_queue_that_does_not_answer_is_told_in_the_chat_and_by_mail(watched: Watched) -> None:
    until(lambda: watched.prometheus.query("finsight_queue_up == 1"))
    watched.stop_redis()
    name, todo = "FinsightQueueAway", "Is Redis there, and FINSIGHT_REDIS_URL right?"
    until(lambda: any(a["labels"]["alertname"] == name and a["state"] == "firing" for a in watched.prometheus.alerts()), 60)
    post = until(lambda: next((p for p in watched.posts if name in json.dumps(p)), None), 60)
    mail = until(lambda: next((m for m in watched.mails if name in m), None), 60)
    assert post["channel"] == "#finsight"
    (attachment,) = post["attachments"]
    assert attachment["title"] == f"FIRING {name}"
    assert todo in attachment["text"]
    assert "['on-call@example.org']" in mail
    assert f"FIRING {name}" in mail
    assert todo in mail
    assert watched.http.post("/v1/predict", json={"texts": TEXTS}).status_code == 200  # a known key goes on predicting
