"""What git says of the code of a model."""

import os
import subprocess
from pathlib import Path

import pytest

from finsight.adapters.git import _public, author, clone, state
from finsight.errors import DataError


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Zoë")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "zoe@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    root = tmp_path / "repository"
    for name in ("src/a.py", "reports/metrics.json", "params.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("1")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def test_what_shapes_a_result_counts_as_changed_and_nothing_else(repository: Path) -> None:
    assert state(repository) == {"revision": git(repository, "rev-parse", "HEAD").strip(), "changed": [], "cloned_from": ""}
    for name in ("reports/metrics.json", "params.yaml", "notes.txt", "src/a.py", "src/ü b.py"):
        (repository / name).write_text("2")
    os.mkdir(os.fsencode(repository / "data"))  # noqa: PTH102
    with open(os.fsencode(repository / "data") + b"/\xff.csv", "w") as file:  # noqa: PTH123 - no text in any encoding
        file.write("x")
    assert state(repository)["changed"] == ["data/\\xff.csv", "src/a.py", "src/ü b.py"]


def test_what_git_can_t_tell_is_not_clean(repository: Path) -> None:
    (repository / ".git/index").write_bytes(b"x")
    assert state(repository)["changed"] == ["what `git status` can't tell"]


def test_outside_git_nothing_is_known(tmp_path: Path) -> None:
    assert state(tmp_path) == {}
    assert "@" in author(tmp_path)


@pytest.mark.parametrize(
    ("origin", "shown"),
    [
        ("https://github.com/a/b.git", "https://github.com/a/b.git"),
        ("https://bob:secret@host:8443/a/b", "https://host:8443/a/b"),
        ("https://bob:p@ss-w0rd@host/a", "https://host/a"),
        ("https://host/a?private_token=secret", "https://host/a"),
        ("https://bob:se/cret@host/a", ""),
        ("ssh://git@host/a/b", "ssh://host/a/b"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git"),
        ("/home/me/a", ""),
        ("file:///home/me/a", ""),
        ("../a", ""),
        ("https://host:port/a", ""),
    ],
)
def test_an_origin_is_shown_without_what_may_be_secret(origin: str, shown: str) -> None:
    assert _public(origin) == shown


def test_a_revision_that_is_none_is_never_given_to_git(repository: Path, tmp_path: Path) -> None:
    for revision in ("--upload-pack=touch pwned; git-upload-pack", "HEAD", "main", ""):
        with pytest.raises(DataError, match="expected the 40 or 64 hexadecimal digits"):
            clone(repository, revision, tmp_path / "clone")
    with pytest.raises(DataError, match="is not in this clone"):
        clone(repository, "0" * 40, tmp_path / "clone")
    assert not list(tmp_path.rglob("pwned"))


def test_a_clone_has_the_revision_and_no_more(repository: Path, tmp_path: Path) -> None:
    first = git(repository, "rev-parse", "HEAD").strip()
    (repository / "src/a.py").write_text("2")
    git(repository, "commit", "-qam", "second")
    clone(repository, first, tmp_path / "clone")
    assert (tmp_path / "clone/src/a.py").read_text() == "1"
    with pytest.raises(DataError, match="holds something already"):
        clone(repository, first, tmp_path / "clone")
