"""`make secret-scan`: what looks like a secret is found, what was looked at is let through."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPO

# In pieces, or the scan of this repository would find them here.
PLANTED = {
    "settings.py": 'AWS = "AKIA' + '2E0A8F3B244C9986"\n',
    "deploy/values.yaml": "token: ghp_" + "wWPw5k4aXcaT" * 3 + "\n",
    "key.pem": "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n",
    ".env": 'POSTGRES = "postgres://me:' + 'hunter22forever@db.internal/x"\n',
}


def scan(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(REPO / ".ci/secret_scan.py"), *arguments], cwd=root, capture_output=True, text=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    baseline = json.loads((REPO / ".secrets.baseline").read_text()) | {"results": {}}
    (tmp_path / ".secrets.baseline").write_text(json.dumps(baseline))
    (tmp_path / "plain.py").write_text('greeting = "good morning"\n')
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    return tmp_path


def test_planted_secrets_are_found_until_somebody_says_that_they_are_none(tree: Path) -> None:
    assert scan(tree).returncode == 0
    for name, content in PLANTED.items():
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(content)
    subprocess.run(["git", "add", "-A"], cwd=tree, check=True)
    done = scan(tree)
    assert done.returncode == 1
    assert sorted({line.split(":")[1].strip() for line in done.stderr.splitlines()}) == sorted(PLANTED)
    assert not any(content.split('"')[-2] in done.stderr for content in PLANTED.values() if '"' in content)  # the scan repeats none

    assert scan(tree, "--accept").returncode == 0
    (tree / "settings.py").write_text("# a line above\n" + PLANTED["settings.py"])  # it moved, and is no other
    assert scan(tree).returncode == 0


@pytest.mark.long
def test_this_repository_has_none() -> None:
    done = scan(REPO)
    assert done.returncode == 0, done.stderr
