"""The Financial PhraseBank through the whole pipeline, with the real backbone."""

import json
from pathlib import Path

import pytest

from clones import copy_tree, with_real_backbone


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_the_official_files_reach_their_floor_on_the_finbert_split(phrasebank: Path, tmp_path: Path) -> None:
    clone = with_real_backbone(copy_tree(tmp_path / "finsight"))
    clone("git", "add", "-A")
    clone("git", "commit", "-qm", "first")
    clone("finsight", "corpus", "add", "phrasebank", str(phrasebank))
    clone("git", "commit", "-qm", "the corpus")
    clone("dvc", "exp", "run", "-S", "ingest.corpora=[phrasebank]", "-S", "corpora.phrasebank.split=finbert")
    metrics = json.loads((clone.root / "reports/metrics.json").read_text())
    assert metrics["n"] == 970
    assert metrics["accuracy"] >= 0.83
    assert metrics["macro_f1"] >= 0.80
    prepared = json.loads((clone.root / "reports/prepare.json").read_text())
    assert prepared["duplicates"] == {"dropped_in_train": 3, "conflicting": 1}
    assert prepared["leaks"]["test"]["equal"] == 5
    assert prepared["leaks"]["test"]["near"] > 20
    assert prepared["protocol"]["leaks"] == prepared["leaks"]["test"] == metrics["protocol"]["leaks"]
    assert metrics["n_without_leaks"] == 970 - prepared["leaks"]["test"]["near"]
    manifest = json.loads((clone.root / "models/bundle/bundle.json").read_text())
    assert manifest["licenses"] == {"corpus phrasebank": "CC-BY-NC-SA-3.0", "backbone": "Apache-2.0"}
