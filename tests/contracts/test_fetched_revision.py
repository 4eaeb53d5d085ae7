"""Files of a revision that no cache and no remote here has: the usual case in a clone of somebody else's work."""

import subprocess
from pathlib import Path

import pytest

from finsight.adapters.dvc import fetch
from finsight.errors import DataError

POINTER = "outs:\n- md5: 0123456789abcdef0123456789abcdef\n  size: 3\n  hash: md5\n  path: predictions\n"


def test_what_lies_on_another_machine_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").touch()
    (tmp_path / "predictions.dvc").write_text(POINTER)
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "theirs"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "into").mkdir()
    with pytest.raises(DataError) as said:
        fetch("HEAD", ["predictions"], tmp_path / "into")
    assert str(said.value) == (
        "HEAD: its files can't be had: No storage files available: 'predictions'; `dvc push` them where they are and `dvc fetch -A` here, "
        "or commit what `dvc repro` makes of it here and name that commit"
    )
