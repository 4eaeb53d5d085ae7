"""Files are whole or absent."""

import hashlib
from pathlib import Path

import pytest

from finsight.errors import ArtifactError
from finsight.files import atomic_file, atomic_folder, cached_folder, folder_digest, full_disk_is_oserror, read_json, write_json
from finsight.settings import project_root


def test_a_file_whose_writing_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(RuntimeError), atomic_file(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == '{\n  "x": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_whose_writing_fails_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    with atomic_folder(folder) as partial:
        (partial / "a").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(folder) as partial:
        (partial / "a").write_text("half")
        raise RuntimeError
    assert (folder / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_the_first_to_fill_a_shared_cache_wins(tmp_path: Path) -> None:
    with cached_folder(tmp_path / "c") as first:
        (first / "a").write_text("first")
        with cached_folder(tmp_path / "c") as second:
            (second / "a").write_text("second")
    assert (tmp_path / "c" / "a").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_full_disk_is_an_oserror_whoever_reports_it() -> None:
    with pytest.raises(OSError, match="No space left on device"), full_disk_is_oserror():
        raise Exception("No space left on device (os error 28)")
    with pytest.raises(ZeroDivisionError), full_disk_is_oserror():
        raise ZeroDivisionError


def test_credentials_in_an_address_never_reach_a_message() -> None:
    assert str(ArtifactError("GET http://alice:secret@host/x failed")) == "GET http://host/x failed"
    assert str(ArtifactError("GET http://alice:se@cr@et@host/x@y failed")) == "GET http://host/x@y failed"


def test_what_a_killed_process_left_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "f.partial").mkdir()
    (tmp_path / "f.partial" / "stale").write_text("")
    with atomic_folder(tmp_path / "f") as partial:
        (partial / "new").write_text("")
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["new"]


def test_nan_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_folder_digest_is_what_sha256sum_prints(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "y").write_text("2")
    (tmp_path / "a").write_text("1")
    lines = "".join(f"{hashlib.sha256(c.encode()).hexdigest()}  {n}\n" for n, c in (("a", "1"), ("b/y", "2")))
    assert folder_digest(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize(("content", "says"), [(None, "no such file"), ("{", "not valid JSON"), ("[1]", "got a JSON list")])
def test_unreadable_json_names_the_stage_that_writes_it(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ArtifactError, match=f"{says}.*dvc repro train"):
        read_json(path, "dvc repro train")


def test_a_temporary_experiment_belongs_to_its_clone(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "x"
    copy.mkdir(parents=True)
    (copy / "dvc.yaml").touch()
    (tmp_path / "src").mkdir()
    assert project_root(copy) == project_root(tmp_path / "src") == tmp_path
