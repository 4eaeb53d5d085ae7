"""The site as a whole: built without a warning and without the network."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPO


@pytest.mark.long
def test_the_site_is_built_and_fetches_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "trees")]
    done = subprocess.run([*command, str(REPO / "docs"), str(tmp_path / "site")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {page.relative_to(tmp_path / "site").as_posix(): page.read_text() for page in (tmp_path / "site").rglob("*.html")}
    assert {f"{page.relative_to(REPO / 'docs').with_suffix('.html')}" for page in (REPO / "docs").rglob("*.md")} <= pages.keys()
    fetched = {
        found for text in pages.values() for found in re.findall(r"<(?:script|img|iframe|source)[^>]+src=\"(?:https?:)?//[^\"]+", text)
    }
    fetched |= {found for text in pages.values() for found in re.findall(r"<link[^>]+href=\"(?:https?:)?//[^\"]+", text)}
    assert not fetched
    assert 'id="finsight.ports.CorpusReader.read"' in pages["api.html"]
    assert all("example-comment.html" in text for name, text in pages.items() if name == "index.html")


@pytest.mark.long
def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "conf.py").write_text((REPO / "docs/conf.py").read_text())
    (docs / "index.md").write_text("# Pages\n\n[gone](gone.md)\n\n```{toctree}\n@rest\n```\n")
    (docs / "other.md").write_text("# Other\n\n[x](index.md#no-heading)\n")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(docs), str(tmp_path / "site")], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "gone" in done.stderr
