"""Twitter financial news, from two CSV files to a registered model, and a held-out test on the PhraseBank. Minutes of training."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from clones import copy_tree, with_real_backbone

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


def test_in_domain_and_held_out(tmp_path: Path, twitter: Path, phrasebank: Path) -> None:
    clone = with_real_backbone(copy_tree(tmp_path / "finsight"))
    clone("git", "add", "-A")
    clone("git", "commit", "-qm", "first")
    for name, source in (("twitter", twitter), ("phrasebank", phrasebank)):
        clone("finsight", "corpus", "add", name, str(source))
    path = clone.root / "params.yaml"
    params = YAML().load(path.read_text())
    params["corpora"]["twitter"] = {
        "path": "data/external/twitter",
        "format": "csv",
        "label_map": {0: "negative", 1: "positive", 2: "neutral"},
        "split_files": {"train": "sent_train.csv", "test": "sent_valid.csv"},
        "known_as": "twitter-financial-news",
        "license": "MIT",
    }
    params["ingest"]["corpora"] = ["twitter"]
    params["train"]["epochs"] = 1
    with path.open("w") as file:
        YAML().dump(params, file)
    clone("git", "add", "-A")
    clone("git", "commit", "-qm", "two corpora")

    clone("dvc", "repro")
    prepared, metrics = (json.loads((clone.root / f"reports/{name}.json").read_text()) for name in ("prepare", "metrics"))
    assert metrics["n"] == 2388
    assert metrics["accuracy"] >= 0.75
    assert prepared["leaks"]["test"]["near"] >= 54
    assert prepared["protocol"]["kind"] == "in-domain"
    assert metrics["n_without_leaks"] == 2388 - prepared["leaks"]["test"]["near"]

    clone("dvc", "exp", "run", "-S", "ingest.corpora=[twitter,phrasebank]", "-S", "prepare.split.method=held-out",
          "-S", "prepare.split.held_out=[phrasebank]")  # fmt: skip
    metrics = json.loads((clone.root / "reports/metrics.json").read_text())
    assert metrics["n"] == 4846
    assert metrics["protocol"]["kind"] == "held-out"
    assert metrics["protocol"]["split"] == {"phrasebank": "held out", "twitter": "its own, the rest stratified, seed 42"}
    assert metrics["accuracy"] >= 0.6
