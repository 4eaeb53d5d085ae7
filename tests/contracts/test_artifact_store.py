"""What every store of inputs and results does: a folder, and a bucket of a live S3 server."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finsight.adapters.folder_artifacts import FolderArtifacts
from finsight.adapters.s3_artifacts import S3Artifacts
from finsight.domain.artifacts import Bounds, Kept, place, scored, surplus
from finsight.errors import DataError, UnreachableError
from finsight.service_ports import ArtifactStore

ONE, TWO, THREE = (f"{digit * 64}.csv" for digit in "123")


@pytest.fixture(params=["folder", "s3"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Callable[[Bounds], ArtifactStore], Path]]:
    """Makes stores over one place, and the folder that it lies in."""
    if request.param == "folder":
        yield lambda bounds: FolderArtifacts(tmp_path / "objects", bounds), tmp_path / "objects"
        return
    request.getfixturevalue("s3_credentials")
    url, root = request.getfixturevalue("s3")
    bucket = root / "scorings"
    shutil.rmtree(bucket, ignore_errors=True)
    bucket.mkdir()
    time.sleep(0.2)  # the server looks at the folder anew
    yield lambda bounds: S3Artifacts("s3://scorings/service", url, bounds), bucket / "service"


@pytest.fixture
def store(made: tuple[Callable[[Bounds], ArtifactStore], Path]) -> ArtifactStore:
    return made[0](Bounds())


def file(folder: Path, content: bytes) -> Path:
    path = folder / "given"
    path.write_bytes(content)
    return path


def test_what_was_put_is_read_in_parts_and_its_tenants_alone(store: ArtifactStore, tmp_path: Path) -> None:
    content = os.urandom(700_000)
    store.put("acme", ONE, file(tmp_path, content))
    assert store.size("acme", ONE) == len(content)
    parts = list(store.read("acme", ONE))
    assert b"".join(parts) == content
    assert len(parts) > 1
    assert (tmp_path / "given").exists()
    assert store.size("elsewhere", ONE) is None
    assert store.size("acme", TWO) is None
    with pytest.raises(DataError, match=f"there is no object {ONE}"):
        list(store.read("elsewhere", ONE))


def test_the_last_that_was_put_counts(store: ArtifactStore, tmp_path: Path) -> None:
    store.put("acme", scored("a" * 64), file(tmp_path, b"old"))
    store.put("acme", scored("a" * 64), file(tmp_path, b""))
    assert list(store.read("acme", scored("a" * 64))) == []
    assert store.size("acme", scored("a" * 64)) == 0


def test_a_tenant_has_so_many_bytes_and_takes_none_from_others(
    made: tuple[Callable[[Bounds], ArtifactStore], Path], tmp_path: Path
) -> None:
    store, folder = made[0](Bounds(size=10)), made[1]
    for tenant, name in (("acme", ONE), ("acme", TWO), ("elsewhere", ONE)):
        store.put(tenant, name, file(tmp_path, b"12345"))
    older(folder / place("acme", ONE), 60)
    time.sleep(0.2)
    store.put("acme", THREE, file(tmp_path, b"12345"))
    assert [store.size("acme", name) for name in (ONE, TWO, THREE)] == [None, 5, 5]
    store.put("acme", ONE, file(tmp_path, b"more than is kept"))
    assert [store.size("acme", name) for name in (ONE, TWO, THREE)] == [17, None, None]  # what has just come stays
    assert store.size("elsewhere", ONE) == 5


def test_what_is_too_old_goes_whosever_it_is(made: tuple[Callable[[Bounds], ArtifactStore], Path], tmp_path: Path) -> None:
    store, folder = made[0](Bounds(days=1)), made[1]
    for tenant in ("acme", "elsewhere"):
        store.put(tenant, ONE, file(tmp_path, b"12345"))
    older(folder / place("elsewhere", ONE), 86_500)
    time.sleep(0.2)
    store.put("acme", TWO, file(tmp_path, b"12345"))
    assert [store.size("acme", ONE), store.size("acme", TWO), store.size("elsewhere", ONE)] == [5, 5, None]


def older(path: Path, seconds: float) -> None:
    when = path.stat().st_mtime - seconds
    os.utime(path, (when, when))


@pytest.mark.parametrize("name", ["", "x.csv", f"../{ONE}", f"{ONE}/..", f"/{ONE}", f"{'1' * 64}.exe", f"{ONE}\n", f"{'A' * 64}.csv"])
def test_no_name_is_a_path(store: ArtifactStore, tmp_path: Path, name: str) -> None:
    for ask in (lambda: store.size("acme", name), lambda: list(store.read("acme", name)), lambda: store.put("acme", name, tmp_path)):
        with pytest.raises(ValueError, match="is no name of an input or a result"):
            ask()
    folder, _, _ = place("../..", ONE).partition("/")
    assert folder.isalnum()


def test_a_server_that_is_not_there_is_one_line(s3_credentials: None, tmp_path: Path) -> None:
    store = S3Artifacts("s3://scorings", "http://127.0.0.1:9", Bounds())
    with pytest.raises(UnreachableError, match=r"^s3://scorings: [^\n]*check AWS_ENDPOINT_URL"):
        store.size("acme", ONE)


def test_the_oldest_go_first_and_the_newest_never() -> None:
    new, a, b, c, d = (place("t", f"{digit * 64}.csv") for digit in "01234")
    other = place("u", ONE)
    kept = [Kept(a, 4, 1.0), Kept(b, 4, 3.0), Kept(c, 4, 2.0), Kept(other, 40, 1.0), Kept(new, 3, 0.0), Kept(f"{d}.x.partial", 0, 1.5)]
    assert list(surplus(kept, Bounds(days=1, size=12), 10.0, new)) == [a, other]
    assert set(surplus(kept, Bounds(days=1, size=100), 86_402.5, new)) == {a, other, c, f"{d}.x.partial"}


def test_what_is_not_ours_stays(made: tuple[Callable[[Bounds], ArtifactStore], Path], tmp_path: Path) -> None:
    """A bucket or a folder may hold something else, such as DVC's files: it is not to be deleted by whoever only names it."""
    store, folder = made[0](Bounds(days=1, size=1)), made[1]
    for other in (place("acme", ONE).replace(".csv", ""), "files/md5/ab", "notes/x.csv"):
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_bytes(b"12345")
        older(folder / other, 90_000)
    time.sleep(0.2)
    store.put("acme", TWO, file(tmp_path, b"12345"))
    assert sum(path.read_bytes() == b"12345" for path in folder.rglob("*") if path.is_file()) == 4


def test_a_folder_is_its_owners_alone(tmp_path: Path) -> None:
    FolderArtifacts(tmp_path / "objects").put("acme", ONE, file(tmp_path, b"x"))
    made = [tmp_path / "objects", *(tmp_path / "objects").rglob("*")]
    assert [oct(path.stat().st_mode & 0o777) for path in made] == ["0o700", "0o700", "0o600"]
