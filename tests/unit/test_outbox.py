"""What waits in the outbox: kept whole, readable by its owner alone, encrypted where a key is given."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pyrage
import pytest

from finsight.adapters.outbox import FileOutbox
from finsight.errors import ArtifactError, ParamsError

KEY = str(pyrage.x25519.Identity.generate())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.json"
    path.write_text('{"accuracy": 0.123456}')
    return path


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> FileOutbox:
    return FileOutbox(tmp_path / "outbox", request.param)


def test_what_goes_in_comes_out(outbox: FileOutbox, file: Path, tmp_path: Path) -> None:
    outbox.put("a", [("reports/metrics.json", file), ("bundle/x.onnx", file)], {"who": "Zoë"})
    file.unlink()
    with outbox.opened("a") as (folder, facts):
        assert facts == {"who": "Zoë"}
        assert (folder / "reports/metrics.json").read_text() == (folder / "bundle/x.onnx").read_text() == '{"accuracy": 0.123456}'
    assert len(list((tmp_path / "outbox").iterdir())) == 1
    outbox.remove("a")
    outbox.remove("a")
    assert outbox.names() == []
    with pytest.raises(ArtifactError, match="nothing of that name waits"), outbox.opened("a"):
        pass


def test_a_name_is_kept_once_and_the_oldest_comes_first(outbox: FileOutbox, file: Path) -> None:
    for name in ("b", "a", "b"):
        outbox.put(name, [("x", file)], {"n": name})
        time.sleep(0.01)
    assert outbox.names() == ["a", "b"]


def test_nobody_else_can_read_it(outbox: FileOutbox, file: Path, tmp_path: Path) -> None:
    outbox.put("a", [("x", file)], {})
    (path,) = (tmp_path / "outbox").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_encrypted_means_encrypted(file: Path, tmp_path: Path) -> None:
    FileOutbox(tmp_path / "outbox").put("a", [("x", file)], {})
    assert b"0.123456" in (tmp_path / "outbox/a.tar").read_bytes()
    FileOutbox(tmp_path / "outbox", KEY).put("a", [("x", file)], {})
    (path,) = (tmp_path / "outbox").iterdir()
    assert b"0.123456" not in path.read_bytes()
    assert b"metrics" not in path.read_bytes()
    with pytest.raises(ParamsError, match="it is encrypted; set FINSIGHT_ENCRYPTION_KEY"), FileOutbox(tmp_path / "outbox").opened("a"):
        pass
    other = FileOutbox(tmp_path / "outbox", str(pyrage.x25519.Identity.generate()))
    with pytest.raises(ArtifactError, match=r"can't be read \(DecryptError\)"), other.opened("a"):
        pass


def test_what_a_killed_process_had_open_is_removed_and_what_a_living_one_has_is_not(file: Path, tmp_path: Path) -> None:
    outbox = FileOutbox(tmp_path / "outbox", KEY)
    outbox.put("a", [("x", file)], {})
    code = (
        "import sys; from pathlib import Path; from finsight.adapters.outbox import FileOutbox\n"
        "with FileOutbox(Path(sys.argv[1]), sys.argv[2]).opened('a') as (folder, _): print(folder, flush=True); sys.stdin.read()"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "outbox"), KEY], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert reader.stdout
    opened = Path(reader.stdout.readline().strip())
    with outbox.opened("a") as (folder, _):
        assert folder != opened
        assert (opened / "x").exists()
    reader.kill()
    reader.communicate(timeout=30)
    assert (opened / "x").exists()
    with outbox.opened("a"):
        assert not opened.exists()
    assert [path.name for path in (tmp_path / "outbox").iterdir()] == ["a.tar.age"]


@pytest.mark.parametrize("damage", [b"", b"x" * 1000, None])
def test_a_damaged_one_is_one_line_and_stays(damage: bytes | None, outbox: FileOutbox, file: Path, tmp_path: Path) -> None:
    outbox.put("a", [("x", file)], {})
    (path,) = (tmp_path / "outbox").iterdir()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 4] if damage is None else damage)
    with pytest.raises(ArtifactError, match="can't be read"), outbox.opened("a"):
        pass
    assert path.exists()


def test_a_wrong_key_is_one_line_without_the_key(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="FINSIGHT_ENCRYPTION_KEY: expected an age identity") as caught:
        FileOutbox(tmp_path, "hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_full_disk_leaves_nothing_half_written(file: Path, tmp_path: Path) -> None:
    file.write_bytes(os.urandom(200_000))
    code = (
        "import resource, signal, sys; from pathlib import Path; from finsight.adapters.outbox import FileOutbox\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"FileOutbox(Path({str(tmp_path / 'outbox')!r})).put('a', [('x', Path({str(file)!r}))], {{}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "File too large" in done.stderr
    assert list((tmp_path / "outbox").iterdir()) == []
