"""Push and pull against a live S3 server: what travels, and each way to fail in one line."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from finsight.adapters.garbage import collect
from finsight.errors import FinsightError
from gate import certificates
from servers import S3_KEY, S3_SECRET, free_port, serve_s3, wait_for
from small_dvc import PULL, PUSH, Small, small


def test_a_second_clone_has_everything_and_nothing_is_sent_twice(repo: Small) -> None:
    assert "objects sent to there" in repo(*PUSH)
    assert repo(*PUSH) == "0 objects sent to there\n"
    other = repo.second()
    other(*PULL)
    for name in ("made/part", "made/last", "used", "always"):
        assert (other.root / name).read_bytes() == (repo.root / name).read_bytes()
    assert "Running stage 'always'" in (said := other("dvc", "repro"))
    assert said.count("Running stage") == 1


def test_an_identical_run_is_fetched_and_not_computed(repo: Small) -> None:
    other = repo.second()
    (repo.root / "params.yaml").write_text("length: 2000\n")
    repo("dvc", "repro")
    repo(*PUSH)
    # The second clone has the parameters and none of the outputs: no lock file, no folder, no report.
    for name in ("dvc.lock", "report.txt"):
        (other.root / name).unlink()
    (other.root / "params.yaml").write_text("length: 2000\n")
    other(*PULL)
    said = other("dvc", "repro")
    assert other.ran() == []
    assert "Stage 'make' is cached" in said
    assert "Stage 'use' is cached" in said
    assert (other.root / "report.txt").read_text() == "2000\n"
    assert (other.root / "used").read_bytes() == (repo.root / "used").read_bytes()


def test_runs_are_left_out_on_request_and_all_are_sent_on_request(repo: Small, s3: tuple[str, Path]) -> None:
    def there() -> int:
        return len([path for path in (s3[1] / "data/dvc/runs").rglob("*") if path.is_file()])

    repo(*PUSH, "--runs", "none")
    assert there() == 0
    for size in (2000, 3000):
        (repo.root / "params.yaml").write_text(f"length: {size}\n")
        repo("dvc", "repro", "-q")
        repo(*PUSH) if size == 3000 else repo(*PUSH, "--runs", "none")
    assert there() == 2
    repo(*PUSH, "--runs", "all")
    assert there() == 4  # `use` of the two before; DVC's own run cache has no stage with a report that git keeps


def test_a_damaged_object_is_refused_by_name(repo: Small, s3: tuple[str, Path]) -> None:
    repo(*PUSH)
    objects = [path for path in (s3[1] / "data/dvc/files/md5").rglob("*") if path.is_file() and path.stat().st_size == 1000]
    content = (repo.root / "made/other").read_bytes()
    (damaged,) = [path for path in objects if path.read_bytes() == content]
    damaged.write_bytes(b"x" + content[1:])
    other = repo.second()
    line = other.fails(*PULL)
    assert "made/other arrived damaged from s3://data/dvc/files/md5/" in line
    assert line.endswith("and was thrown away; remove that object and push again from a clone that has it")
    # It can be put right as the line says.
    client = boto3.Session(S3_KEY, S3_SECRET, region_name="us-east-1").client("s3", endpoint_url=s3[0])
    client.delete_object(Bucket="data", Key=str(damaged.relative_to(s3[1] / "data")))
    assert repo(*PUSH) == "1 objects sent to there\n"
    other(*PULL)
    assert (other.root / "made/other").read_bytes() == content


def test_what_was_never_pushed_is_said(repo: Small) -> None:
    other = repo.second()
    line = other.fails(*PULL)
    assert "remote there does not have always, made; `finsight push -r there` where it was made" in line
    line = other.fails(*PUSH)
    assert "neither whole here nor at remote there: always, made; `dvc repro` makes it, then push again" in line


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"secret_access_key": "nothing"}, "it refuses the key (Forbidden); set it with `dvc remote modify --local there access_key_id"),
        ({"access_key_id": "nobody"}, "it refuses the key (Forbidden); set it with `dvc remote modify --local there access_key_id"),
        ({"url": "s3://nosuch/dvc"}, "it has no bucket nosuch; make it there, or correct the remote's url"),
        ({"profile": "nosuch"}, "The config profile (nosuch) could not be found; `dvc remote modify --local there profile NAME` names one"),
        ({"endpointurl": "http://127.0.0.1:9"}, "remote there at http://127.0.0.1:9: Connection refused; start it"),
    ],
)
@pytest.mark.parametrize("command", [PUSH, PULL])
def test_what_refuses_is_one_line_and_nothing_is_lost(repo: Small, command: tuple[str, ...], settings: dict[str, str], says: str) -> None:
    before = {path: path.read_bytes() for path in repo.root.rglob("*") if path.is_file() and ".dvc/tmp" not in str(path)}
    repo.set(**settings)
    line = repo.fails(*command)
    assert says in line
    assert "nothing" not in line
    (repo.root / ".dvc/config.local").write_bytes(before[repo.root / ".dvc/config.local"])
    after = {path: path.read_bytes() for path in before if path.exists()}
    assert after == before


def test_no_key_and_no_remote_are_one_line(repo: Small) -> None:
    assert "remote 'nosuch' is not in .dvc/config (there: there)" in repo.fails("finsight", "push", "-r", "nosuch")
    local = repo.root / ".dvc/config.local"
    local.write_text("\n".join(line for line in local.read_text().splitlines() if "access_key" not in line) + "\n")
    assert "no key is set; set it with `dvc remote modify --local there" in repo.fails(
        *PUSH, HOME=str(repo.root), AWS_EC2_METADATA_DISABLED="true"
    )


def test_what_cannot_be_put_in_place_is_said(repo: Small) -> None:
    (repo.root / "params.yaml").write_text("length: 3000000\n")
    repo("dvc", "repro", "-q")
    (repo.root / "made/last").unlink()
    line = repo.fails("sh", "-c", "ulimit -f 1000; exec finsight pull -r there --no-runs")
    assert "made: could not be put in place; is the disk full? then `dvc checkout`" in line
    repo("dvc", "checkout", "-q")
    assert (repo.root / "made/last").stat().st_size == 3_000_000


def test_what_was_changed_here_is_not_overwritten(repo: Small) -> None:
    repo(*PUSH)
    (repo.root / "made/last").unlink()  # it is write-protected
    (repo.root / "made/last").write_text("mine")
    line = repo.fails(*PULL)
    assert "made/last: changed here and kept nowhere else; `dvc commit` it, or remove it, then pull again" in line
    assert (repo.root / "made/last").read_text() == "mine"


def test_outputs_that_share_a_lost_object_are_left_alone(repo: Small) -> None:
    for name in ("one", "two"):
        (repo.root / name).mkdir()
        (repo.root / name / "same").write_text("both have it")
        (repo.root / name / "own").write_text(name)
        repo("dvc", "add", "-q", name)
    (lost,) = [path for path in (repo.root / ".dvc/cache/files").rglob("*") if path.is_file() and path.read_bytes() == b"both have it"]
    lost.unlink()
    (repo.root / "one/own").unlink()
    assert "remote there does not have" in repo.fails(*PULL)
    for name in ("one", "two"):
        assert (repo.root / name / "same").read_text() == "both have it"


def test_an_output_that_is_not_to_be_pushed_goes_by_no_run_either(repo: Small, s3: tuple[str, Path]) -> None:
    stages = (repo.root / "dvc.yaml").read_text().replace("outs: [used]", "outs: [{used: {push: false}}]")
    stages = stages.replace("cp made/part used", "tr a-m n-z < made/part > used").replace("cp used always", "echo x > always")
    (repo.root / "dvc.yaml").write_text(stages)
    repo("dvc", "repro", "-q")
    repo(*PUSH, "--runs", "all")
    secret = (repo.root / "used").read_bytes()
    there = [path for path in (s3[1] / "data").rglob("*") if path.is_file()]
    assert there
    assert not any(path.read_bytes() == secret for path in there)
    repo("git", "commit", "-qam", "keep it here")
    other = repo.second()
    (other.root / "used").unlink(missing_ok=True)
    other(*PULL)
    assert not (other.root / "used").exists()


def test_a_run_that_was_cut_off_says_nothing(repo: Small) -> None:
    repo("dvc", "repro", "-q")
    repo(*PUSH, "--runs", "all")
    runs = [path for path in (repo.root / ".dvc/cache/runs").rglob("*") if path.is_file()]
    content = runs[0].read_text()
    for end in (content.index("outs:") + 5, content.index("path") + 5, len(content) // 3):
        runs[0].chmod(0o644)
        runs[0].write_text(content[:end])
        assert "objects sent" in repo(*PUSH, "--runs", "all")
        assert "objects fetched" in repo(*PULL)


def test_a_digest_of_dvc_2_is_one_line(repo: Small) -> None:
    (repo.root / "old.dvc").write_text("outs:\n- md5: 0cc175b9c0f1b6a831c399e269772661\n  size: 1\n  path: old\n")
    for command in (PUSH, PULL):
        line = repo.fails(*command)
        assert "old: its digest was made by DVC 2; `dvc pull -r there`, then `dvc cache migrate --dvc-files`, and push again" in line


@pytest.mark.long
def test_a_server_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "s3/data").mkdir(parents=True)
    port = free_port()
    repo = small(tmp_path / "first", f"http://127.0.0.1:{port}", size=3_000_000)
    there = tmp_path / "s3/data/dvc/files"
    with serve_s3(tmp_path / "s3", "--bwlimit", "1M", port=port):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        pushing = subprocess.Popen(PUSH, cwd=repo.root, env={**os.environ, "PATH": path}, text=True, stderr=subprocess.PIPE)
        end = time.monotonic() + 60
        while not any(path.is_file() and path.stat().st_size for path in there.rglob("*")):
            assert time.monotonic() < end
            time.sleep(0.1)
    _, said = pushing.communicate(timeout=200)
    assert pushing.returncode == 1
    assert len(said.strip().splitlines()) == 1, said
    assert "it stopped answering (" in said
    assert "run it again: what has been transferred stays and is not transferred twice" in said
    with serve_s3(tmp_path / "s3", port=port):
        repo(*PUSH)
        other = repo.second()
        other(*PULL)
    assert (other.root / "made/last").read_bytes() == (repo.root / "made/last").read_bytes()


def test_a_full_disk_is_one_line_and_the_pull_goes_on_after_it(repo: Small) -> None:
    """On a real, small file system: a namespace of the test's own may mount one."""
    (repo.root / "params.yaml").write_text("length: 90000\n")
    repo("dvc", "repro", "-q")
    repo("git", "commit", "-qam", "larger")
    repo(*PUSH)
    other = repo.second()
    script = 'mkdir -p .dvc/cache && mount -t tmpfs -o size=150k tmpfs .dvc/cache && "$@"'
    said = other("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *PULL, ok=False)
    if "unshare" in said or "mount:" in said:
        pytest.skip(f"this machine lets no user mount a file system: {said.strip()}")
    assert len(said.strip().splitlines()) == 1, said
    assert "no space left on the device for what remote there at http" in said
    other(*PULL)
    assert (other.root / "made/last").read_bytes() == (repo.root / "made/last").read_bytes()


@pytest.mark.long
def test_a_server_with_tls_and_an_authority_of_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "s3/data").mkdir(parents=True)
    made = certificates(tmp_path)
    options = ("--cert", str(made.certificate), "--key", str(made.key))
    with serve_s3(tmp_path / "s3", *options, tls=ssl.create_default_context(cafile=str(made.authority))) as endpoint:
        repo = small(tmp_path / "first", endpoint)
        line = repo.fails(*PUSH)
        assert f"remote there at {endpoint}: its certificate is of no authority known here; name the authority's file by" in line
        assert "`dvc remote modify --local there ssl_verify FILE.pem` or AWS_CA_BUNDLE" in line
        assert list((tmp_path / "s3/data").iterdir()) == []
        repo(*PUSH, AWS_CA_BUNDLE=str(made.authority))
        other = repo.second()
        assert "its certificate is of no authority known here" in other.fails(*PULL)
        other.set(ssl_verify="nosuch.pem")
        line = other.fails(*PULL)
        assert "ssl_verify names nosuch.pem, which does not exist; correct it with `dvc remote modify --local there ssl_verify" in line
        other.set(ssl_verify=str(made.authority))
        other(*PULL)
        assert (other.root / "made/part").read_bytes() == (repo.root / "made/part").read_bytes()


def test_server_side_encryption_is_asked_for(repo: Small) -> None:
    """rclone keeps objects as they are: what a real S3 encrypts by is sent with each object, and is no reason to refuse one."""
    repo.set(sse="AES256")
    asks = "from dvc.repo import Repo; print(Repo().cloud.get_remote('there').fs.fs.s3_additional_kwargs)"
    assert "{'ServerSideEncryption': 'AES256'}" in repo("python", "-c", asks)
    repo(*PUSH)
    repo.second()(*PULL)


def test_an_output_with_a_remote_of_its_own_goes_nowhere_else(repo: Small, s3: tuple[str, Path]) -> None:
    (repo.root / "secret").write_text("x" * 1234)
    repo("dvc", "add", "-q", "secret")
    path = repo.root / "secret.dvc"
    path.write_text(path.read_text() + "  remote: private\n")
    repo("dvc", "remote", "add", "-q", "private", str(repo.root.parent / "private"))
    repo(*PUSH)
    assert not [path for path in (s3[1] / "data").rglob("*") if path.is_file() and path.stat().st_size == 1234]


def test_an_object_that_was_changed_under_its_name_is_not_sent(repo: Small) -> None:
    (repo.root / "data").write_text("x" * 1234)
    repo("dvc", "add", "-q", "data")
    digest = (repo.root / "data.dvc").read_text().split("md5: ")[1].split()[0]
    stored = repo.root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    stored.chmod(0o644)  # as with hard links, where the file in the workspace is the object
    stored.write_text("y" * 1234)
    assert "neither whole here nor at remote there: data; " in repo.fails(*PUSH)


def test_a_run_is_fetched_whose_lock_file_names_what_was_never_pushed(repo: Small) -> None:
    repo(*PUSH)
    (repo.root / "params.yaml").write_text("length: 2000\n")
    repo("dvc", "repro", "-q")
    repo("git", "commit", "-qam", "not pushed")
    other = repo.second()
    (other.root / "params.yaml").write_text("length: 1000\n")
    assert "remote there does not have" in other.fails(*PULL)
    assert other("dvc", "repro").count("Running stage") == 1
    assert other.ran() == []


def test_what_a_killed_transfer_left_among_the_runs_is_none(repo: Small) -> None:
    repo(*PUSH)
    for path in (repo.root / ".dvc/cache/runs").rglob("*"):
        if path.is_file():
            path.with_name(f".{path.name}.tmp").write_text("")
            (path.parent / ("0" * 64)).write_text("- [")
    assert "objects sent" in repo(*PUSH, "--runs", "all")


@pytest.fixture
def versions(tmp_path: Path) -> Iterator[str]:
    """A live S3 server that keeps versions (rclone has none), with a bucket ``data`` of them; its address."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-p", str(port)]
    with (tmp_path / "moto.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/moto-api/", process)
            credentials = {"aws_access_key_id": S3_KEY, "aws_secret_access_key": S3_SECRET, "region_name": "us-east-1"}
            client = boto3.client("s3", endpoint_url=address, **credentials)
            client.create_bucket(Bucket="data")
            client.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
            yield address
        finally:
            process.terminate()


@pytest.mark.long
def test_a_bucket_with_versions_keeps_files_under_their_own_names(tmp_path: Path, versions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = small(tmp_path / "first", versions)
    repo("dvc", "remote", "modify", "-q", "there", "version_aware", "true")
    repo(*PUSH)
    repo("git", "add", "-A")
    repo("git", "commit", "-qm", "first")
    first = (repo.root / "made/part").read_bytes()
    (repo.root / "params.yaml").write_text("length: 2000\n")
    repo("dvc", "repro", "-q")
    repo(*PUSH)
    repo("git", "add", "-A")
    repo("git", "commit", "-qm", "second")
    assert "version_id" in (repo.root / "dvc.lock").read_text()
    other = repo.second()
    other(*PULL)
    assert (other.root / "made/part").read_bytes() == (repo.root / "made/part").read_bytes() != first
    other("git", "checkout", "-q", "HEAD~1")
    other(*PULL)
    assert (other.root / "made/part").read_bytes() == first
    monkeypatch.chdir(repo.root)
    with pytest.raises(FinsightError, match="versioned"):
        collect([], "there", remove=True)
