"""Files of a folder and of a bucket keep to one contract; a real S3 server."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finsight.adapters.local_files import LocalFiles
from finsight.adapters.s3_files import S3Files
from finsight.errors import DataError, UnreachableError
from finsight.shard_ports import FileStore


def new_bucket(root: Path, name: str) -> str:
    (root / name).mkdir()
    time.sleep(0.3)  # until the server looks again
    return name


@pytest.fixture(params=["folder", "bucket"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], FileStore]:
    if request.param == "folder":
        return lambda name: LocalFiles(tmp_path / name)
    endpoint, root = request.getfixturevalue("s3")
    request.getfixturevalue("s3_credentials")
    bucket = new_bucket(root, tmp_path.name.replace("_", "-"))
    return lambda name: S3Files(f"s3://{bucket}/{name}", endpoint)


def test_what_is_put_is_listed_and_read_from_anywhere_on(make: Callable[[str], FileStore]) -> None:
    store = make("some/place")
    assert store.files() == {}
    content = bytes(range(256)) * 8_000
    store.put("deep/a.bin", content)
    store.put("b.bin", b"")
    make("some/place-beside").put("c.bin", b"c")
    assert {name: about.size for name, about in store.files().items()} == {"deep/a.bin": len(content), "b.bin": 0}
    assert {name: store.facts(name) for name in store.files()} == store.files()
    assert store.facts("deep") is None
    with store.open("deep/a.bin") as file:
        assert file.seek(-3, 2) == len(content) - 3
        assert file.read() == content[-3:]
        file.seek(500_000)
        assert file.read(1_500_000) == content[500_000:2_000_000]
        assert file.tell() == 2_000_000
        file.seek(0)
        assert file.read() == content
    with store.open("b.bin") as file:
        assert file.read() == b""
    assert str(store.place).endswith("some/place")


def test_a_file_is_read_in_parts(make: Callable[[str], FileStore]) -> None:
    store = make("place")
    store.put("a", b"0123456789")
    assert store.read("a", 3, 0) == b""
    assert [store.read("a"), store.read("a", 3, 4), store.read("a", 8, 10), store.read("a", 10, 2)] == [b"0123456789", b"3456", b"89", b""]
    with pytest.raises(DataError, match="place/b: no such"):
        store.read("b")


def test_an_answer_that_breaks_off_is_asked_for_again(s3: tuple[str, Path], s3_credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.response import StreamingBody

    store = S3Files(f"s3://{new_bucket(s3[1], 'breaking')}/x", s3[0])
    store.put("a", b"0123456789")
    whole, broken = StreamingBody.read, []

    def read(self: StreamingBody, amt: int | None = None) -> bytes:
        if not broken:
            broken.append(self)
            return whole(StreamingBody(self._raw_stream, 11), amt)  # one byte more than comes
        return whole(self, amt)

    monkeypatch.setattr(StreamingBody, "read", read)
    monkeypatch.setattr("finsight.adapters.s3_files.time.sleep", lambda _: None)
    assert store.read("a") == b"0123456789"
    assert broken


def test_a_file_is_replaced_and_removed(make: Callable[[str], FileStore]) -> None:
    store = make("place")
    store.put("a", b"one")
    before = store.files()["a"]
    store.put("a", b"other")
    assert store.files()["a"].size == 5
    assert store.files()["a"].changed >= before.changed
    store.remove("a")
    store.remove("a")
    assert store.files() == {}
    with pytest.raises(DataError, match="place/a: no such"), store.open("a"):
        pass


def test_a_file_that_can_t_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalFiles(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory"):
        store.put("a", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_can_t_be_read_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LocalFiles(tmp_path).put("deep/a", b"content")
    scandir = os.scandir

    def refuses(path: str) -> Iterator[os.DirEntry[str]]:  # root, whom tests may run as, is refused nothing
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuses)
    with pytest.raises(PermissionError, match="deep"):
        LocalFiles(tmp_path).files()


def test_a_bucket_that_is_not_there_is_one_line(s3: tuple[str, Path], s3_credentials: None) -> None:
    with pytest.raises(UnreachableError, match=r"^s3://no-such-bucket/x: [^\n]*; check AWS_ENDPOINT_URL[^\n]*$"):
        S3Files("s3://no-such-bucket/x", s3[0]).files()


def test_an_object_that_changes_while_it_is_read_is_told(s3: tuple[str, Path], s3_credentials: None) -> None:
    store = S3Files(f"s3://{new_bucket(s3[1], 'changing')}/x", s3[0])
    store.put("a", b"a" * 5_000_000)
    with pytest.raises(DataError, match="^s3://changing/x/a: changed while it was read; run the command again$"), store.open("a") as file:
        assert file.read(10) == b"a" * 10
        store.put("a", b"b" * 6_000_000)
        file.seek(4_000_000)
        file.read(10)
