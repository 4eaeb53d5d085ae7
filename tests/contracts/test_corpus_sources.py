"""Where a corpus comes from: files here, the web, S3, a hub. Each from a real server on this machine."""

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx
import pytest
from ruamel.yaml import YAML

from conftest import REPO
from finsight.adapters.addresses import is_public, refuse_private, shown
from finsight.adapters.corpus_sources import Origin, fetch
from finsight.adapters.download import Retry, download
from finsight.adapters.external import add_corpus, origin_of
from finsight.adapters.file_names import inside, safe_name
from finsight.errors import DataError, FinsightError, ParamsError, UnreachableError
from finsight.settings import Settings, load_settings
from servers import COMMIT, Web, serve_hub

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning:botocore")
QUICK = Retry(first_wait=0.01, longest_wait=0.05)
HERE = Settings(allow_private_urls=True)


def get(web: Web, folder: Path, path: str = "rows.csv", retry: Retry = QUICK) -> Path:
    return download(f"{web.url}/{path}", folder, allow_private=True, retry=retry)


def test_a_file_comes_whole_under_its_own_name(web: Web, tmp_path: Path) -> None:
    path = get(web, tmp_path)
    assert (path.name, path.read_bytes()) == ("rows.csv", web.content)
    assert [p.name for p in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize(("etag", "modified"), [('"v1"', None), (None, "Mon, 02 Nov 2026 08:00:00 GMT")])
def test_a_cut_download_goes_on_where_it_ended(web: Web, tmp_path: Path, etag: str | None, modified: str | None) -> None:
    web.cuts, web.etag, web.modified = 2, etag, modified
    assert get(web, tmp_path).read_bytes() == web.content
    half = len(web.content) // 2
    assert web.log == ["", f"bytes={half}-", f"bytes={half + (len(web.content) - half) // 2}-"]


@pytest.mark.parametrize("how", ["no ranges", "no validator", "weak validator"])
def test_where_nothing_can_be_resumed_it_begins_again(web: Web, tmp_path: Path, how: str) -> None:
    web.cuts, web.ranges = 1, how != "no ranges"
    web.etag = {"no validator": None, "weak validator": 'W/"v1"'}.get(how, web.etag)
    assert get(web, tmp_path).read_bytes() == web.content
    assert len(web.log) == 2


def test_a_file_that_changed_meanwhile_is_not_patched_together(web: Web, tmp_path: Path) -> None:
    def change() -> None:
        web.content, web.etag = web.content.replace(b"positive", b"negative"), '"v2"'

    web.cuts, web.changes = 1, change
    assert get(web, tmp_path).read_bytes() == web.content
    assert b"positive" not in web.content


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(web: Web, tmp_path: Path, status: int) -> None:
    web.failures = [(status, {}), (status, {"Retry-After": "9999"}), (status, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})]
    assert get(web, tmp_path).read_bytes() == web.content
    assert len(web.log) == 4


def test_a_server_that_stays_busy_is_given_up(web: Web, tmp_path: Path) -> None:
    web.failures = [(503, {})] * 9
    with pytest.raises(UnreachableError, match=r"/rows\.csv: the server answers 503 Service Unavailable; gave up after 5 tries"):
        get(web, tmp_path)
    assert len(web.log) == 5


def test_what_asking_again_can_not_help_is_not_asked_again(web: Web, tmp_path: Path) -> None:
    web.failures = [(404, {})]
    with pytest.raises(UnreachableError, match=r"/rows\.csv: the server answers 404 Not Found; check the address"):
        get(web, tmp_path)
    assert len(web.log) == 1


def test_a_length_that_is_a_lie_is_a_cut(web: Web, tmp_path: Path) -> None:
    web.extra_length, web.ranges = 100, False
    with pytest.raises(UnreachableError, match=r"rows\.csv: .*gave up after 5 tries"):
        get(web, tmp_path)


def test_nothing_listens(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:9/rows\.csv: .*Connection refused; gave up after 2 tries"):
        download("http://127.0.0.1:9/rows.csv", tmp_path, True, Retry(tries=2, first_wait=0.01))


def test_a_web_page_is_no_corpus(web: Web, tmp_path: Path) -> None:
    web.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(DataError, match="is a web page, not data"):
        get(web, tmp_path)


@pytest.mark.parametrize(
    ("path", "disposition", "name"),
    [
        ("a%2F..%2F..%2Fetc%2Fpasswd", None, "passwd"),
        ("..%5C..%5Cevil.csv", None, "evil.csv"),
        (".hidden.csv?x=1", None, "hidden.csv"),
        ("", None, "download"),
        ("get?id=7", 'attachment; filename="../../news %5B1%5D.csv"', "news _1_.csv"),
        ("a%00b%1b%5B2Jc.csv", None, "ab_2Jc.csv"),
    ],
)
def test_a_name_from_elsewhere_stays_in_the_folder(web: Web, tmp_path: Path, path: str, disposition: str | None, name: str) -> None:
    web.headers = {"Content-Disposition": disposition} if disposition else {}
    assert get(web, tmp_path, path) == tmp_path / name


def test_an_address_without_a_file_name_gets_the_suffix_of_what_comes(web: Web, tmp_path: Path) -> None:
    web.headers = {"Content-Type": "text/csv; charset=utf-8"}
    assert get(web, tmp_path, "export?id=7") == tmp_path / "export.csv"


def test_a_long_name_keeps_its_suffixes() -> None:
    assert safe_name("ä" * 400 + ".csv.gz").endswith("ä.csv.gz")
    assert len(safe_name("ä" * 400 + ".csv.gz").encode()) <= 150
    assert len(safe_name("x" + ".y" * 400).encode()) <= 150


@pytest.mark.parametrize("relative", ["../x.csv", "/etc/x.csv", "a/../../x.csv", ".hidden/x.csv", "a/.x.csv", "a/b\n.csv", ""])
def test_a_path_from_elsewhere_stays_in_the_folder(relative: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no safe name"):
        inside(tmp_path, relative, "s3://b/k")


PRIVATE = [
    "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1", "::1", "::",
    "fe80::1", "fe80::1%lo", "fd00::1", "ff02::1", "::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "nonsense",
    "64:ff9b:1::7f00:1", "fec0::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_an_address_that_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "[::1]",
        "[::ffff:10.0.0.1]",
        "2130706433",
        "0x7f000001",
        "127.1",
        "localhost",
    ],
)
def test_a_private_address_is_refused_unless_allowed(host: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="not a public address, so nothing was fetched from it; set FINSIGHT_ALLOW_PRIVATE_URLS=1"):
        fetch(f"http://{host}:1/rows.csv", tmp_path, Settings())


@pytest.fixture
def public_is_loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A name server that gives a public address for corpus.example, once; connecting then leads to this machine."""
    real, asked = socket.getaddrinfo, []

    def resolve(host: str, port: int, *args: int, **kwargs: int) -> object:
        if host != "corpus.example":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8" if len(asked) == 1 else "127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


def test_a_name_that_resolves_otherwise_the_second_time_is_caught_at_the_connection(
    web: Web, tmp_path: Path, public_is_loopback: list[str]
) -> None:
    with pytest.raises(ParamsError, match=r"the server is 127\.0\.0\.1: not a public address"):
        download(f"http://corpus.example:{web.url.rpartition(':')[2]}/rows.csv", tmp_path, retry=QUICK)
    assert public_is_loopback == ["corpus.example"] * 2
    assert web.log == [], "a request was sent"


def test_a_redirect_to_a_private_address_is_refused(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first server has to be on this machine, so it alone counts as public.
    monkeypatch.setattr("finsight.adapters.addresses.is_public", lambda address: address == "127.0.0.1")
    for there in ("http://169.254.169.254/latest/meta-data", "http://[::1]:1/", "//10.0.0.1/x"):
        web.failures = [(302, {"Location": there})]
        with pytest.raises(ParamsError, match="not a public address"):
            download(f"{web.url}/rows.csv", tmp_path, retry=QUICK)
    web.failures = [(302, {"Location": "/elsewhere.csv"})]
    assert download(f"{web.url}/rows.csv", tmp_path, retry=QUICK).name == "rows.csv"
    assert web.paths[-1] == "/elsewhere.csv"


@pytest.mark.parametrize(
    ("there", "message"), [("file:///etc/passwd", "expected http:// or https://"), ("/again", "more than 10 redirects")]
)
def test_a_redirect_that_leads_nowhere(web: Web, tmp_path: Path, there: str, message: str) -> None:
    web.failures = [(302, {"Location": there})] * 20
    with pytest.raises(FinsightError, match=message):
        get(web, tmp_path)


def test_an_encrypted_address_that_leads_to_an_open_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leads = httpx.MockTransport(lambda request: httpx.Response(302, headers={"Location": "http://files.example/rows.csv"}))
    client = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **kwargs: client(transport=leads, **kwargs))
    with pytest.raises(ParamsError, match=r"https://corpus\.example/rows\.csv: leads to http://files\.example/rows\.csv, which is not enc"):
        download("https://corpus.example/rows.csv", tmp_path, True, QUICK)


def test_credentials_are_used_and_never_shown(web: Web, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    secret = web.url.replace("://", "://user:geheim@") + "/rows.csv?token=geheim"
    web.cuts = 1
    origin = fetch(secret, tmp_path, HERE, retry=QUICK)
    assert origin == Origin(f"{web.url}/rows.csv?…", hashlib.sha256(web.content).hexdigest())
    assert web.authorization[0] == "Basic dXNlcjpnZWhlaW0="
    web.failures = [(401, {})]
    with pytest.raises(UnreachableError) as refused:
        download(secret, tmp_path, True, QUICK)
    assert "geheim" not in str(refused.value) + "".join(capfd.readouterr())
    assert shown("https://u:p@h:8443/a%20b?q#f") == "https://h:8443/a%20b?…"


def test_a_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UnreachableError, match=r"http://corpus\.invalid/x: no address for corpus\.invalid"):
        refuse_private(httpx.URL("http://corpus.invalid/x"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    refuse_private(httpx.URL("http://corpus.invalid/x"))


@pytest.mark.parametrize(
    "source", ["ftp://example.org/x.csv", "http://[::1/x.csv", "http://0177.0.0.1/x", "https://", "file:///etc/passwd"]
)
def test_an_address_of_another_kind(source: str, tmp_path: Path) -> None:
    with pytest.raises(FinsightError) as refused:
        fetch(source, tmp_path, HERE, retry=QUICK)
    assert "\n" not in str(refused.value)


def test_a_setting_that_is_no_yes_or_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINSIGHT_ALLOW_PRIVATE_URLS", "perhaps")
    with pytest.raises(ParamsError, match="FINSIGHT_ALLOW_PRIVATE_URLS: got 'perhaps'"):
        load_settings()


def test_an_object_and_a_prefix_in_s3(s3: tuple[str, Path], s3_credentials: None, tmp_path: Path) -> None:
    endpoint, _ = s3
    client = boto3.Session().client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="corpora")
    for key in ("news/train.csv", "news/deep/test.csv", "newsletter.csv"):
        client.put_object(Bucket="corpora", Key=key, Body=key.encode())
    settings = Settings(AWS_ENDPOINT_URL=endpoint)
    folder = tmp_path / "one"
    folder.mkdir()
    assert fetch("s3://corpora/newsletter.csv", folder, settings).source == "s3://corpora/newsletter.csv"
    assert [p.name for p in folder.iterdir()] == ["newsletter.csv"]
    for number, prefix in enumerate(("news", "news/")):
        folder = tmp_path / str(number)
        folder.mkdir()
        fetch(f"s3://corpora/{prefix}", folder, settings)
        files = {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.csv")}
        assert files == {"train.csv": "news/train.csv", "deep/test.csv": "news/deep/test.csv"}
    with pytest.raises(DataError, match=r"s3://corpora/none: no object of that key, and none below it; check the bucket and the key"):
        fetch("s3://corpora/none", tmp_path, settings)


def test_s3_refusals_and_outages_are_one_line(
    s3: tuple[str, Path], s3_credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnreachableError, match=r"s3://nosuch/x: .*NoSuchBucket.*check AWS_ENDPOINT_URL"):
        fetch("s3://nosuch/x", tmp_path, Settings(AWS_ENDPOINT_URL=s3[0]))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UnreachableError, match="SignatureDoesNotMatch"):
        fetch("s3://corpora/x", tmp_path, Settings(AWS_ENDPOINT_URL=s3[0]))


FILES = {
    "README.md": b"a card", "LICENSE": b"MIT", "data/train-00000.parquet": b"rows", "extra.jsonl.gz": b"more", "notes/a.txt": b"text",
    "load.py": b"print('code')", "model.pkl": b"a pickle", "data/dataset_info.json": b"{}", ".gitattributes": b"",
}  # fmt: skip


@pytest.mark.parametrize("source", ["acme/news", "hf://acme/news", "hf://datasets/acme/news"])
def test_a_data_set_of_the_hub_at_a_commit(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub("datasets", "acme/news", FILES) as (endpoint, asked):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        origin = fetch(source, tmp_path, Settings(), revision=COMMIT)
    found = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {name: FILES[name] for name in ("README.md", "LICENSE", "data/train-00000.parquet", "extra.jsonl.gz", "notes/a.txt")}
    assert not any("load.py" in path or "model.pkl" in path for path in asked)
    assert (origin.source, origin.revision) == ("hf://datasets/acme/news", COMMIT)


@pytest.mark.parametrize("name", ["../../evil.csv", "/tmp/evil.csv", ".git/evil.csv"])
def test_a_hub_whose_file_would_lie_elsewhere_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub("datasets", "acme/news", {name: b"x"}) as (endpoint, _):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(DataError, match="holds a file named .* which is no safe name"):
            fetch("acme/news", tmp_path, Settings(), revision=COMMIT)
    assert not list(tmp_path.rglob("*.csv"))


def test_a_data_set_needs_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParamsError, match=r"acme/news: no such file or folder here; as a data set of the hub it needs its commit"):
        fetch("acme/news", tmp_path, Settings())
    with pytest.raises(ParamsError, match=r"it needs its commit, 40 hexadecimal digits \(got 'main'\)"):
        fetch("hf://acme/news", tmp_path, Settings(), revision="main")
    with pytest.raises(ParamsError, match="--revision: .* is no data set of the hub"):
        fetch("s3://bucket/key", tmp_path, Settings(), revision=COMMIT)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        UnreachableError, match=f"acme/news: hub repository acme/news@{COMMIT}: .*refused at http://127.0.0.1:9/; check the network"
    ):
        fetch("acme/news", tmp_path, Settings(), revision=COMMIT)


def test_local_files_folders_and_patterns(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    for name in ("a.csv", "b.csv", "deep/c.csv"):
        (source / name).write_text(name)
        (source / name).chmod(0o444)
    for number, (given, files) in enumerate(
        [(source, {"a.csv", "b.csv", "deep/c.csv"}), (source / "a.csv", {"a.csv"}), (source / "*.csv", {"a.csv", "b.csv"})]
    ):
        target = tmp_path / str(number)
        target.mkdir()
        fetch(str(given), target, Settings())
        copied = [p for p in target.rglob("*") if p.is_file()]
        assert {p.relative_to(target).as_posix() for p in copied} == files
        assert all(os.access(p, os.W_OK) for p in copied)
    (tmp_path / "empty").mkdir()
    for given, message in [
        ("nosuch.csv", "no such file or folder"),
        ("nosuch*.csv", "no such file or folder"),
        ("empty", "holds no files"),
    ]:
        with pytest.raises(DataError, match=message):
            fetch(str(tmp_path / given), tmp_path / "empty", Settings())
    (source / "deep/a.csv").write_text("another")
    with pytest.raises(DataError, match=r"matches two files named a\.csv"):
        fetch(f"{source}/**/*.csv", tmp_path / "empty", Settings())


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_plain_file_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    if kind == "link":
        (tmp_path / "source/rows.csv").symlink_to("/etc/passwd")
    else:
        os.mkfifo(tmp_path / "source/rows.csv")
    for given in ("source", "source/*.csv"):
        with pytest.raises(DataError, match="is a link" if kind == "link" else "is no plain file|no such file"):
            fetch(str(tmp_path / given), tmp_path / "target", Settings())


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout with DVC and the repository's own params.yaml."""
    root = tmp_path / "clone"
    (root / "data/external").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        (root / name).write_text((REPO / name).read_text())
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=root, check=True)
    monkeypatch.chdir(root)
    return root


def test_the_origin_is_kept_where_dvc_leaves_it_alone(web: Web, clone: Path) -> None:
    folder, origin = add_corpus("news", f"{web.url}/rows.csv?token=geheim", HERE)
    digest = hashlib.sha256(web.content).hexdigest()
    assert (folder, origin.sha256) == (Path("data/external/news"), digest)
    record = Path("data/external/news.dvc")
    wanted = {"source": f"{web.url}/rows.csv?…", "sha256": digest}
    assert YAML(typ="safe").load(record.read_text())["meta"] == {"origin": wanted}
    assert origin_of("data/external/news/rows.csv") == origin_of("data/external/news") == wanted
    staged = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    assert "A  data/external/news.dvc" in staged
    dvc = [sys.executable, "-m", "dvc"]
    status = subprocess.run([*dvc, "status", "news.dvc"], cwd="data/external", capture_output=True, text=True, check=True)
    assert "up to date" in status.stdout
    (folder / "rows.csv").write_bytes(web.content + b"another,negative\n")
    subprocess.run([*dvc, "commit", "-q", "-f", str(record)], check=True)
    assert YAML(typ="safe").load(record.read_text())["meta"] == {"origin": wanted}


def test_a_wrong_digest_leaves_nothing(web: Web, clone: Path) -> None:
    with pytest.raises(DataError, match=rf"rows\.csv: SHA-256 is [0-9a-f]{{64}}, expected {'0' * 64}; nothing was added"):
        add_corpus("news", f"{web.url}/rows.csv", HERE, digest="0" * 64)
    assert not list((clone / "data/external").iterdir())
    with pytest.raises(ParamsError, match="--sha256: got 'abc', expected 64 hexadecimal digits"):
        add_corpus("news", f"{web.url}/rows.csv", HERE, digest="abc")
    add_corpus("news", f"{web.url}/rows.csv", HERE, digest=hashlib.sha256(web.content).hexdigest().upper())


def test_a_name_that_is_taken_or_is_none(web: Web, clone: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n")
    (clone / "data/external/mine").mkdir()
    with pytest.raises(DataError, match="data/external/mine: is there already, but not under DVC"):
        add_corpus("mine", str(tmp_path / "rows.csv"), HERE)
    for name in ("../up", "A", "", ".x", "a/b"):
        with pytest.raises(ParamsError, match="corpus name"):
            add_corpus(name, str(tmp_path / "rows.csv"), HERE)
    (clone / "data/external/taken.dvc").touch()
    with pytest.raises(DataError, match="data/external/taken: is there already; remove it"):
        add_corpus("taken", str(tmp_path / "rows.csv"), HERE)


def test_where_dvc_or_git_refuse_the_command_can_be_given_again(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n")
    (clone / ".git").rename(clone / "git")
    with pytest.raises(FinsightError, match="failed"):
        add_corpus("mine", str(tmp_path / "rows.csv"), HERE)
    (clone / "git").rename(clone / ".git")
    add_corpus("mine", str(tmp_path / "rows.csv"), HERE)
    assert origin_of("data/external/mine")["source"] == "rows.csv"
