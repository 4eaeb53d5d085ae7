"""deploy/compose.yaml: by its schema, and whether what it names is there. There may be no engine at hand."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from redis import AuthenticationError, Redis
from ruamel.yaml import YAML

from conftest import REPO
from finsight.adapters.redis_connection import refuse_forgetful
from finsight.adapters.redis_server import executable
from finsight.cli import main
from finsight.settings import Settings, load_settings
from servers import free_port, wait_for

DEPLOY = REPO / "deploy"
FILE = DEPLOY / "compose.yaml"
COMPOSE: Mapping[str, Any] = YAML(typ="safe").load(FILE.read_text())
SERVICES: Mapping[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
# Each owes its own writing to it: docs/deploy.md.
WRITES_ITS_ROOT = {"opensearch", "opensearch-dashboards"}
WATCHED: Mapping[str, Any] = YAML(typ="safe").load((DEPLOY / "compose.observability.yaml").read_text())["services"]
each = pytest.mark.parametrize("name", SERVICES)


def test_the_schema_of_compose_has_nothing_to_say() -> None:
    check = Path(sys.executable).parent / "check-jsonschema"
    files = sorted(DEPLOY.glob("compose*.yaml"))
    done = subprocess.run([check, "--builtin-schema", "vendor.compose-spec", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_two_profiles_share_the_services() -> None:
    assert {profile for service in SERVICES.values() for profile in service["profiles"]} == {"core", "observability"}
    assert {"nginx", "api", "worker", "redis", "mlflow", "minio"} <= {n for n, s in SERVICES.items() if s["profiles"] == ["core"]}
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert SERVICES[other]["profiles"] == service["profiles"], f"{name} waits for {other}, which its profile does not start"
            assert how["condition"] != "service_healthy" or "test" in SERVICES[other].get("healthcheck", {}), (name, other)
            assert how["condition"] != "service_completed_successfully" or SERVICES[other]["restart"] == "no", (name, other)
    assert SERVICES["api"]["deploy"]["replicas"] == 2


def test_what_is_built_here_is_taken_from_nowhere_else() -> None:
    """Without a policy Compose first asks a registry for the name."""
    assert {service["pull_policy"] for service in OURS.values()} == {"build"}
    assert {name for name, service in SERVICES.items() if service["image"].startswith("finsight/")} == OURS.keys()


@each
def test_a_service_is_held_to_little(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is (name not in WRITES_ITS_ROOT)
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert not {"privileged", "pid", "network_mode", "cap_add", "env_file"} & service.keys()
    image = service["image"]
    assert re.fullmatch(r"[\w./-]+:(v?\d+\.\d+\.\d+[\w.-]*|RELEASE\.[\dTZ-]+)(@sha256:[0-9a-f]{64})?", image), image


@each
def test_what_a_service_mounts_is_there(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        if mount["type"] == "volume":
            assert mount["source"] in COMPOSE["volumes"]
            continue
        source = (DEPLOY / mount["source"]).resolve()
        assert mount["read_only"], mount
        assert mount["bind"] == {"create_host_path": False}, mount  # else the engine makes an empty folder, as root
        if source.is_relative_to(REPO) and source != REPO / "models/bundle":  # which `make up` looks for
            assert source.exists(), source
    for network in SERVICES[name]["networks"]:
        assert network in COMPOSE["networks"]


def test_the_world_reaches_the_edge_and_this_machine_the_rest() -> None:
    ports = {name: port for name, service in SERVICES.items() for port in service.get("ports", [])}
    assert ports.pop("nginx") == "${FINSIGHT_LISTEN:-127.0.0.1}:${FINSIGHT_PORT:-8443}:8443"
    assert all(port.startswith("127.0.0.1:") for port in ports.values()), ports
    internal = {name for name, network in COMPOSE["networks"].items() if network.get("internal")}
    for name in ("redis", "api", "bucket", "opensearch"):
        assert set(SERVICES[name]["networks"]) <= internal, name
    # Whose word for a client's address the replicas take: on that network is nothing but nginx and they.
    assert {name for name, service in SERVICES.items() if "front" in service["networks"]} == {"nginx", "api"}
    assert COMPOSE["networks"]["front"]["ipam"]["config"] == [{"subnet": SERVICES["api"]["environment"]["FINSIGHT_TRUSTED_PROXIES"]}]


def test_every_secret_is_a_file_that_is_made_documented_and_used(tmp_path: Path) -> None:
    subprocess.run([sys.executable, DEPLOY / "make_secrets.py", tmp_path / "secrets"], check=True, stdout=subprocess.DEVNULL)
    made = {path.name for path in (tmp_path / "secrets").iterdir()}
    assert {Path(one["file"]).name for one in COMPOSE["secrets"].values()} == made == COMPOSE["secrets"].keys()
    documented = set(re.findall(r"`([a-z0-9_]+)`", "".join(re.findall(r"(?m)^\| (`.*?) \|", (DEPLOY / "secrets/README.md").read_text()))))
    assert documented == made
    assert {secret for service in SERVICES.values() for secret in service.get("secrets", [])} == made
    for name, service in SERVICES.items():
        text = str({key: value for key, value in service.items() if key != "secrets"})
        texts = text + "".join((DEPLOY / path).read_text() for path in mounted(service))
        for secret in service.get("secrets", []):
            assert f"/run/secrets/{secret}" in texts, f"{name} is given {secret} and does not read it"
        for secret in re.findall(r"/run/secrets/(\w+)", texts):
            assert secret in service.get("secrets", []), f"{name} reads {secret}, which it is not given"


def mounted(service: Mapping[str, Any]) -> Iterator[str]:
    """The files of deploy/ that a service mounts."""
    for mount in service.get("volumes", []):
        if mount["type"] == "bind" and mount["source"].startswith("./") and (DEPLOY / mount["source"]).is_file():
            yield mount["source"]


def test_secrets_that_are_there_stay_and_half_a_pair_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "secrets"
    command = [sys.executable, DEPLOY / "make_secrets.py", folder]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert subprocess.run(command, check=True, capture_output=True).stdout == b""
    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    for name in ("api_key", "encryption_key", "redis_url"):
        monkeypatch.delenv(f"FINSIGHT_{name.upper()}", raising=False)
        monkeypatch.setenv(f"FINSIGHT_{name.upper()}_FILE", str(folder / name))
    assert load_settings().api_key is not None
    (folder / "redis_url").unlink()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "there is redis_users, but not the rest of redis_users, redis_url" in done.stderr


def test_what_is_kept_in_memory_fits_into_it() -> None:
    """A tmpfs without a size may have half of the machine, and is counted as the container's memory: it is killed before /tmp is full."""
    sizes = {"m": 2**20, "M": 2**20, "g": 2**30, "G": 2**30}
    for name, service in SERVICES.items():
        (size,) = re.findall(r"^/tmp:(?:\w+,)*size=(\d+[mg])$", " ".join(service["tmpfs"]))
        memory = service["deploy"]["resources"]["limits"]["memory"]
        kept, most = (int(one[:-1]) * sizes[one[-1]] for one in (size, memory))
        assert most - kept >= 64 * 2**20, name


@pytest.mark.parametrize("attached", [True, False])
def test_the_bucket_is_made_without_a_secret_among_the_words_of_a_command(users: Path, tmp_path: Path, attached: bool) -> None:
    client = tmp_path / "mc"
    client.write_text(f"""#!/bin/sh
echo "$@" >> {tmp_path}/words
case "$*" in
    "admin user add "*) cat > {tmp_path}/given ;;
    "admin policy attach "*) echo "it does not go" >&2; exit 1 ;;
    "admin user info "*) printf 'AccessKey: finsight\\nStatus: enabled\\nPolicyName: {"finsight" if attached else ""}\\nMemberOf: []\\n' ;;
esac
""")
    client.chmod(0o755)
    script = (DEPLOY / "minio/setup.sh").read_text().replace("/run/secrets", str(users))
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == (not attached)
    assert ("it does not go" in done.stderr) != attached
    words, key = (tmp_path / "words").read_text(), (users / "s3_secret_key").read_text()
    assert (tmp_path / "given").read_text() == key
    for secret in (key, (users / "minio_root_password").read_text()):
        assert secret not in words + done.stdout + done.stderr


def test_every_setting_is_one_that_is_read() -> None:
    known = {str(field.validation_alias or f"FINSIGHT_{name.upper()}") for name, field in Settings.model_fields.items()}
    known |= {f"{name}_FILE" for name in known} | {"FINSIGHT_FORMAT", "FINSIGHT_CACHE"}
    libraries = {"AWS_DEFAULT_REGION", "AWS_SHARED_CREDENTIALS_FILE", "MLFLOW_S3_ENDPOINT_URL"}  # boto3's and MLflow's
    libraries |= {"OTEL_EXPORTER_OTLP_ENDPOINT"}
    for service in (*OURS.values(), *WATCHED.values()):
        assert set(service.get("environment", {})) <= known | libraries


def scraped() -> Iterator[tuple[str, int]]:
    """Hosts that Prometheus asks, and their ports."""
    for job in YAML(typ="safe").load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]:
        for source in job.get("dns_sd_configs", []):
            yield from ((host, source["port"]) for host in source["names"])
        for host, _, port in (target.rpartition(":") for source in job.get("static_configs", []) for target in source["targets"]):
            yield host, int(port)


def test_what_is_watched_is_reached_by_what_watches_and_by_one_way() -> None:
    networks = {name: set(service["networks"]) | set(WATCHED.get(name, {}).get("networks", [])) for name, service in SERVICES.items()}
    places = {"api": WATCHED["api"]["environment"]["FINSIGHT_SERVICE_METRICS"]}
    places |= {"worker": WATCHED["worker"]["environment"]["FINSIGHT_WORKER_METRICS"]}
    asked = {host: port for host, port in scraped() if host != "localhost"}
    assert asked.keys() == {"api", "worker", "pushgateway", "node-exporter", "alertmanager"}
    for host, port in asked.items():
        assert networks["prometheus"] & networks[host] - {"console"} == {"watch"}, host  # a second address would be a second replica
        assert places.get(host, f"0.0.0.0:{port}") == f"0.0.0.0:{port}"
    for name, service in WATCHED.items():
        assert service["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://jaeger:4318"
        assert networks[name] & networks["jaeger"] == {"watch"}
    assert networks["grafana"] & networks["prometheus"] == {"watch", "console"}
    for name in ("redis", "mlflow", "minio"):  # MLflow has no login
        assert {other for other in networks if networks[other] & networks[name] - {"console"}} <= {
            n for n in SERVICES if "core" in SERVICES[n]["profiles"]
        }
    (left,) = (mount for mount in WATCHED["worker"]["volumes"])
    (read,) = SERVICES["node-exporter"]["volumes"]
    assert (left["source"], left["target"]) == (read["source"], WATCHED["worker"]["environment"]["FINSIGHT_METRICS_DIR"])
    assert f"--collector.textfile.directory={read['target']}" in SERVICES["node-exporter"]["command"]


@pytest.mark.parametrize("profiles", ["core", "core observability"])
def test_make_up_watches_where_somebody_does(profiles: str) -> None:
    said = subprocess.check_output(["make", "--dry-run", "images", f"PROFILES={profiles}"], cwd=REPO, text=True)
    assert ("-f deploy/compose.observability.yaml" in said) == ("--profile observability" in said) == ("observability" in profiles)


def test_make_up_builds_what_has_changed() -> None:
    """An image that is there is run as it is otherwise, whatever was pulled since."""
    said = subprocess.check_output(["make", "--dry-run", "up"], cwd=REPO, text=True)
    assert re.search(r"^docker compose .* up --detach --build$", said, re.M)


@pytest.mark.parametrize("name", ["api", "worker"])
def test_the_commands_of_our_images_are_commands(name: str) -> None:
    checked = SERVICES[name]["healthcheck"]["test"]
    for words in [SERVICES[name]["command"], *([checked[2:]] if checked[1] == "finsight" else [])]:
        command = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", word) for word in words]
        main.commands[command[0]].make_context(command[0], command[1:]).close()
        assert CliRunner().invoke(main, [command[0], "--help"]).exit_code == 0


def test_the_lines_of_python_in_health_checks_are_python() -> None:
    checks = [service["healthcheck"].get("test", []) for service in SERVICES.values() if "healthcheck" in service]
    lines = [test[-1] for test in checks if test[1:3] == ["python", "-c"]]
    assert len(lines) == 2
    for line in lines:
        ast.parse(line)


def test_the_scripts_are_shell() -> None:
    for script in ("clone.sh", "ready.sh", "minio/setup.sh"):
        subprocess.run(["sh", "-n", DEPLOY / script], check=True)


def test_make_up_says_in_one_line_what_is_missing(tmp_path: Path) -> None:
    def ready(*words: str, engine: str = "") -> str:
        for name, content in {"engine": engine}.items():
            if content:
                (tmp_path / name).write_text(f"#!/bin/sh\n{content}\n")
                (tmp_path / name).chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = subprocess.run(["sh", DEPLOY / "ready.sh", *words], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True)
        lines = done.stderr.splitlines()
        assert len(lines) == (done.returncode != 0)
        return "".join(lines)

    assert ready("all", "no-such-engine", "compose").startswith("error: there is no no-such-engine here; install")
    assert ready("all", "engine", "compose", engine="exit 1").startswith("error: 'engine compose' does not work here")
    assert ready("all", "engine", "compose", engine='[ "$2" = version ]').startswith("error: 'engine compose' finds no engine")
    assert ready("all", "engine", "compose", engine="exit 0").startswith("error: models/bundle: there is no bundle")
    assert ready("engine", "engine", "compose") == ""
    (tmp_path / "models/bundle").mkdir(parents=True)
    (tmp_path / "models/bundle/bundle.json").write_text("{}")
    assert ready("all", "engine", "compose").startswith("error: .git: no folder; jobs run in a clone of this one")
    (tmp_path / ".git").mkdir(mode=0o755)
    (tmp_path / "deploy/nginx").mkdir(parents=True)
    (tmp_path / "deploy/nginx/nginx.conf").touch()
    (tmp_path / "deploy/secrets").mkdir(mode=0o700)
    for name in ("models/bundle", "models/bundle/bundle.json", "deploy", "deploy/nginx", "deploy/nginx/nginx.conf"):
        (tmp_path / name).chmod(0o755)  # whatever the umask is
    assert ready("all", "engine", "compose") == ""
    for name in ("deploy/nginx/nginx.conf", "models/bundle/bundle.json", "models/bundle"):
        (tmp_path / name).chmod(0o750)
        assert ready("all", "engine", "compose").startswith(f"error: {name}: containers run as other users, who can't read it; chmod")
        (tmp_path / name).chmod(0o755)


@pytest.mark.parametrize("path", sorted((DEPLOY / "images").glob("*.Dockerfile")), ids=lambda path: path.name)
def test_an_empty_volume_has_one_owner_whichever_image_it_is_made_from(path: Path) -> None:
    """An engine gives an empty volume the owner that its place has in the image of whichever container was made last."""
    (chowned,) = re.findall(r"chown (\w+):\w+ ([^\n&\\]+)", path.read_text())
    users = [name for name, service in OURS.items() if service["build"]["dockerfile"].endswith(path.name)]
    mounts = [mount for name in users for where in (SERVICES, WATCHED) for mount in where.get(name, {}).get("volumes", [])]
    assert chowned[0] in ("finsight", "mlflow")
    assert {mount["target"] for mount in mounts if mount["type"] == "volume"} <= set(chowned[1].split())


def git_of_the_image(folder: Path, places: Mapping[str, str]) -> dict[str, str]:
    """What has git see the repository as another user's, with what the image tells it."""
    config = folder / "gitconfig"
    told = re.findall(r"git config --system (?:--add )?(\S+) ([^\s\\]+)", (DEPLOY / "images/trainer.Dockerfile").read_text())
    assert told
    for name, value in told:
        moved = next((value.replace(old, new, 1) for old, new in places.items() if value.startswith(old)), value)
        subprocess.run(["git", "config", "--file", config, "--add", name, moved], check=True)
    return {"GIT_CONFIG_SYSTEM": str(config), "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}


@pytest.mark.long
def test_the_clone_that_jobs_run_in_is_made_and_brought_to_what_is_checked_out(tmp_path: Path) -> None:
    repository, work = tmp_path / "repository", tmp_path / "work"
    repository.mkdir()
    dvc = [sys.executable, "-m", "dvc", "--cd", repository]

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", repository, *words], check=True, capture_output=True)

    git("init", "-q")
    subprocess.run([*dvc, "init", "-q"], check=True)
    subprocess.run([*dvc, "remote", "add", "-q", "minio", "s3://finsight/dvc"], check=True)
    git("add", "-A")
    git("commit", "-q", "-m", "one")
    places = {"/work": str(work), "/repository": str(repository)}
    script = (DEPLOY / "clone.sh").read_text()
    for old, new in places.items():
        script = script.replace(old, new)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **git_of_the_image(tmp_path, places)}

    def begun() -> str:
        done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.partition(": ")[2]

    assert begun() == "one\n"
    assert "http://minio:9000" in (work / ".dvc/config.local").read_text()
    git("commit", "-q", "--allow-empty", "-m", "two")
    assert begun() == "two\n"
    git("commit", "-q", "--allow-empty", "--amend", "-m", "two, mended")
    assert begun() == "two, mended\n"
    git("tag", "v2")
    git("switch", "-q", "-c", "other", "HEAD~1")
    assert begun() == "one\n"
    git("checkout", "-q", "v2")  # as one does who upgrades
    assert begun() == "two, mended\n"
    shutil.rmtree(work)
    assert begun() == "two, mended\n"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """Secrets, made."""
    subprocess.run([sys.executable, DEPLOY / "make_secrets.py", tmp_path / "secrets"], check=True, stdout=subprocess.DEVNULL)
    return tmp_path / "secrets"


@pytest.mark.long
def test_redis_wants_the_password_of_the_address_and_forgets_nothing(users: Path, tmp_path: Path) -> None:
    port = free_port()
    conf = (DEPLOY / "redis/redis.conf").read_text()
    for old, new in {
        "/run/secrets": str(users),
        "dir /data": f"dir {tmp_path}",
        "port 6379": f"port {port}",
        "0.0.0.0": "127.0.0.1",
    }.items():
        assert old in conf
        conf = conf.replace(old, new)
    (tmp_path / "redis.conf").write_text(conf)
    address = (users / "redis_url").read_text().strip().replace("redis:6379", f"127.0.0.1:{port}")
    process = subprocess.Popen([executable(), tmp_path / "redis.conf"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with Redis(port=port) as client:
                try:
                    client.ping()
                except AuthenticationError:
                    break
                except OSError:
                    assert process.poll() is None
        with Redis(port=port, password="another") as client, pytest.raises(AuthenticationError):
            client.ping()
        with Redis.from_url(address) as client:
            assert client.ping()
            refuse_forgetful(client)
            assert client.config_get("appendonly") == {"appendonly": "yes"}
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.long
def test_mlflow_answers_to_its_name_on_the_network_and_to_no_other(tmp_path: Path) -> None:
    port, words = free_port(), SERVICES["mlflow"]["command"]
    moved = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={port}", "--workers=2": "--workers=1"}
    moved |= {word: f"--backend-store-uri=sqlite:///{tmp_path}/m.db" for word in words if word.startswith("--backend-store-uri")}
    command = [sys.executable, "-m", "mlflow", *(moved.get(word, word) for word in words)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        search = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search"
        asked = {"json": {"max_results": 1}}
        assert httpx.post(search, headers={"Host": "mlflow:5000"}, **asked).status_code == 200
        assert httpx.post(search, headers={"Host": "rebound.example"}, **asked).status_code == 403
    finally:
        process.terminate()
        process.wait(30)
