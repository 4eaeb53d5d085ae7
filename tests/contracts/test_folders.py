"""What every folder of large files does: one of this machine, and one in a bucket of a live S3 server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from finsight.adapters.folders import S3Folder, folder
from finsight.errors import ArtifactError, UnreachableError
from finsight.ports import Folder
from servers import free_port


@pytest.fixture(params=["here", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "here":
        return folder(str(tmp_path / "shards"), None)
    request.getfixturevalue("s3_credentials")
    url, root = request.getfixturevalue("s3")
    (root / "corpora").mkdir(exist_ok=True)
    time.sleep(0.2)  # the server looks at the folder anew
    return folder(f"s3://corpora/{tmp_path.name}/", url)


def test_what_is_written_is_read_whole_and_in_parts(place: Folder, tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(b"0123456789")
    assert not place.has("a.arrow")
    place.write("a.arrow", tmp_path / "given")
    assert place.has("a.arrow")
    assert place.read("a.arrow") == b"0123456789"
    assert place.read("a.arrow", 3, 4) == b"3456"
    assert place.read("a.arrow", 8, 10) == b"89"
    assert place.read("a.arrow", 10, 2) == b""
    with pytest.raises(ArtifactError, match=r"b\.arrow: no such"):
        place.read("b.arrow")


@pytest.mark.usefixtures("s3_credentials")
def test_a_bucket_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(UnreachableError, match=r"^s3://corpora/x: .*check AWS_ENDPOINT_URL"):
        S3Folder("s3://corpora/x", f"http://127.0.0.1:{free_port()}", tries=1).has("a.arrow")
