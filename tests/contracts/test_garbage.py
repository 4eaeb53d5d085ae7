"""What `finsight gc` finds and removes, on a real repository with branches, experiments, versions, and a live S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from finsight.adapters.garbage import Registered, Unneeded, collect
from finsight.errors import FinsightError, UnreachableError
from servers import free_port, serve_s3
from small_dvc import PULL, PUSH, Small, small

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def at(repo: Small, size: int) -> str:
    """Run the pipeline with another parameter and push all; the text of dvc.lock."""
    (repo.root / "params.yaml").write_text(f"length: {size}\n")
    repo("dvc", "repro", "-q")
    repo(*PUSH)
    return (repo.root / "dvc.lock").read_text()


def back(repo: Small) -> None:
    repo("git", "checkout", "-q", "-f", "main")
    repo("dvc", "checkout", "-q")


def sizes(found: Unneeded) -> set[int]:
    """Sizes of the large files that are not needed: each parameter makes others."""
    return {size for path in found.objects if (size := Path(path).stat().st_size) > 900}


def test_what_a_version_a_branch_or_an_experiment_needs_stays(repo: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    repo(*PUSH)
    version = Registered("version 1", at(repo, 2000), "0" * 40)  # made at a commit that is not here
    at(repo, 3000)
    at(repo, 4000)
    repo("git", "checkout", "-q", "-b", "feature")
    repo("git", "commit", "-qam", "another size")
    back(repo)
    repo("dvc", "exp", "run", "-q", "-n", "tried", "-S", "length=5000")
    repo(*PUSH)
    back(repo)
    monkeypatch.chdir(repo.root)

    here, there = collect([version], "there", remove=False)
    assert sizes(here) == {3000}
    assert len(here.objects) == len(there.objects) == 5  # a folder's list, its three files, the report that git keeps
    assert (len(here.runs), len(there.runs)) == (2, 2)
    assert here.size == there.size > 9000
    assert all(Path(path).exists() for path in here.objects)

    assert collect([version], "there", remove=True) == [here, there]
    assert not any(Path(path).exists() for path in here.objects)
    assert [one.objects for one in collect([version], "there", remove=False)] == [[], []]
    # Without that version, its files are next; with it, a new clone can have them.
    assert sizes(collect([], None, remove=False)[0]) == {2000}
    other = repo.second()
    (other.root / "dvc.lock").write_text(version.lock)
    (other.root / "params.yaml").write_text("length: 2000\n")
    other(*PULL)
    assert (other.root / "made/part").stat().st_size == 2000
    assert other("dvc", "repro").count("Running stage") == 1


def test_a_branch_that_only_git_s_remote_has_counts(repo: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    repo("git", "checkout", "-q", "-b", "feature")
    at(repo, 4000)
    repo("git", "commit", "-qam", "another size")
    back(repo)
    repo(*PUSH)
    other = repo.second()
    assert "feature" not in other("git", "branch")
    other(*PULL)
    monkeypatch.chdir(other.root)
    assert [one.objects for one in collect([], "there", remove=False)] == [[], []]


def test_nothing_is_removed_when_the_remote_is_away(repo: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    at(repo, 3000)
    back(repo)
    repo.set(endpointurl="http://127.0.0.1:9")
    monkeypatch.chdir(repo.root)
    with pytest.raises(UnreachableError, match="Connection refused"):
        collect([], "there", remove=True)
    assert sizes(collect([], None, remove=False)[0]) == {3000}


def test_stashes_queued_experiments_and_other_worktrees_count(repo: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    repo(*PUSH)
    for size in (2000, 3000):  # two stashes: git has a name for the last one alone
        at(repo, size)
        repo("git", "stash", "-q")
    at(repo, 4000)
    repo("git", "commit", "-qam", "another size")
    repo("git", "worktree", "add", "-q", "--detach", str(repo.root.parent / "other"))
    repo("git", "reset", "-q", "--hard", "HEAD~1")
    for name in ("a", "b"):
        (repo.root / "data").write_text(name * 5000)
        repo("dvc", "add", "-q", "data")
        repo("git", "add", "data.dvc", ".gitignore")
        repo("dvc", "exp", "run", "-q", "--queue", "-S", "length=5000")
    repo("git", "reset", "-q", "--hard")
    back(repo)
    repo("git", "tag", "page", repo("git", "rev-parse", "HEAD:make.sh").strip())  # a tag on something that is no commit
    monkeypatch.chdir(repo.root)
    assert sizes(collect([], None, remove=False)[0]) == set()
    repo("git", "stash", "clear")
    assert sizes(collect([], None, remove=False)[0]) == {2000, 3000}


def test_what_git_did_not_follow_and_stashed_counts(repo: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo.root / "corpus").write_text("x" * 7000)
    repo("dvc", "add", "-q", "corpus")
    repo("git", "stash", "-q", "-u")
    assert not (repo.root / "corpus.dvc").exists()
    monkeypatch.chdir(repo.root)
    assert sizes(collect([], None, remove=False)[0]) == set()
    repo("git", "stash", "clear")
    assert sizes(collect([], None, remove=False)[0]) == {7000}


def test_a_git_that_says_nothing_is_not_taken_for_one_without_branches(repo: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo.root)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # "dubious ownership", as in a container over a mounted folder
    with pytest.raises(FinsightError, match="`git for-each-ref .* fails in"):
        collect([], None, remove=True)


def test_a_folder_of_git_s_that_a_version_was_made_from_stops_nothing(repo: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    repo(*PUSH)
    dependency = "    - path: data/starter\n      hash: md5\n      md5: 0123456789abcdef0123456789abcdef.dir\n"
    lock = f"schema: '2.0'\nstages:\n  make:\n    cmd: x\n    deps:\n{dependency}"
    at(repo, 3000)
    back(repo)
    monkeypatch.chdir(repo.root)
    version = Registered("version 1", lock, "0" * 40)
    assert collect([version], "there", remove=True)[1].objects
    assert [one.objects for one in collect([version], "there", remove=False)] == [[], []]


def test_a_remote_that_keeps_what_it_is_told_to_remove_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s3/data").mkdir(parents=True)
    port = free_port()
    with serve_s3(tmp_path / "s3", port=port) as endpoint:
        repo = small(tmp_path / "first", endpoint)
        repo(*PUSH)
        at(repo, 3000)
        back(repo)
    monkeypatch.chdir(repo.root)
    with serve_s3(tmp_path / "s3", "--read-only", port=port), pytest.raises(FinsightError) as caught:
        collect([], "there", remove=True)
    assert "remote there" in str(caught.value)
    assert any(path.is_file() for path in (tmp_path / "s3/data/dvc/runs").rglob("*"))


def test_runs_with_nothing_but_reports_go_with_them(repo: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo.root / "dvc.yaml").write_text(
        "stages:\n  say:\n    cmd: cp params.yaml said\n    params: [length]\n    outs: [{said: {cache: false}}]\n"
    )
    for size in (1000, 2000, 3000):
        (repo.root / "params.yaml").write_text(f"length: {size}\n")
        repo("dvc", "repro", "-q")
        repo(*PUSH)
    repo("git", "commit", "-qam", "reports alone")
    monkeypatch.chdir(repo.root)
    assert len(collect([], None, remove=False)[0].runs) >= 2
    collect([], None, remove=True)
    assert len([path for path in (repo.root / ".dvc/cache/runs").rglob("*") if path.is_file()]) >= 1
    assert collect([], None, remove=False)[0].runs == []


def test_what_a_version_was_made_from_stays(repo: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo.root / "corpus").write_text("x" * 7000)
    repo("dvc", "add", "-q", "corpus")
    digest = (repo.root / "corpus.dvc").read_text().split("md5: ")[1].split()[0]
    dependency = f"    - path: corpus\n      hash: md5\n      md5: {digest}\n"
    lock = f"schema: '2.0'\nstages:\n  make:\n    cmd: x\n    deps:\n{dependency}"
    (repo.root / "corpus.dvc").unlink()
    monkeypatch.chdir(repo.root)
    assert sizes(collect([], None, remove=False)[0]) == {7000}
    assert sizes(collect([Registered("version 1", lock, "0" * 40)], None, remove=False)[0]) == set()


def test_runs_of_others_at_the_remote_stay_whole(repo: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """A colleague's run with the same outputs but another report is unknown here; what it names is needed as long as it stays."""
    repo(*PUSH)
    other = repo.second()
    other(*PULL)
    at(other, 2000)
    other("git", "checkout", "-q", "-b", "theirs")
    other("git", "commit", "-qam", "another size")
    repo("git", "fetch", "-q", str(other.root), "theirs:theirs")
    monkeypatch.chdir(repo.root)
    collect([], "there", remove=True)
    third = repo.second("third")
    (third.root / "params.yaml").write_text("length: 2000\n")
    third(*PULL)
    assert third("dvc", "repro").count("Running stage") == 1
    assert third.ran() == []


def test_a_folder_whose_list_is_nowhere_stops_a_removal(repo: Small, s3: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    repo("git", "checkout", "-q", "-b", "feature")
    at(repo, 4000)
    repo("git", "commit", "-qam", "another size")
    lock = (repo.root / "dvc.lock").read_text()
    back(repo)
    repo(*PUSH)
    other = repo.second()
    other(*PULL)
    (gone,) = [path for path in (s3[1] / "data").rglob("*.dir") if path.parent.name + path.name in lock]
    gone.unlink()
    monkeypatch.chdir(other.root)
    with pytest.raises(FinsightError, match="1 folders that are needed have no list there or here"):
        collect([], "there", remove=True)


def test_a_cache_that_others_use_is_not_cleared(repo: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo("dvc", "cache", "dir", "--local", str(tmp_path / "shared"))
    monkeypatch.chdir(repo.root)
    collect([], None, remove=False)
    with pytest.raises(FinsightError, match="the cache lies outside this clone"):
        collect([], None, remove=True)
