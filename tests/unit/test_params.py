"""params.yaml is refused in words."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from conftest import shipped_params
from finsight import bootstrap
from finsight.errors import ParamsError
from finsight.params.file import flatten, load_params

PARAMS = shipped_params()


def changed(tmp_path: Path, key: str, value: Any) -> Path:
    yaml = YAML()
    content = yaml.load(PARAMS)
    *parents, last = key.split(".")
    section = content
    for name in parents:
        section = section[name]
    if value is None:
        del section[last]
    else:
        section[last] = value
    path = tmp_path / "params.yaml"
    with path.open("w") as file:
        yaml.dump(content, file)
    return path


def test_the_shipped_file_loads_and_numbers_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS)
    params = load_params(tmp_path / "params.yaml")
    assert isinstance(params.train.lr, float)
    assert flatten(params)["prepare.split.seed"] == str(params.prepare.split.seed)
    assert not any(key.startswith("corpora.phrasebank") for key in flatten(params))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("train.learnin_rate", 1, r"train\.learnin_rate: unknown key; allowed: accumulation, .*warmup_ratio, weight_decay"),
        (
            "prepare.split.valdation",
            0.1,
            r"prepare\.split\.valdation: unknown key; allowed: fold, folds, .*own, seed, test, validation",
        ),
        ("corpora.starter.agree", 50, r"corpora\.starter\.agree: unknown key; allowed: agreement, .*delimiter, encoding, format, group"),
        (
            "colour",
            "red",
            r"colour: unknown key; allowed: backbones, corpora, .*ingest, labels, polarity, prepare, register, train, tune, validate",
        ),
        ("train.epochs", "many", r"train\.epochs: got 'many'; input should be a valid integer"),
        ("train.epochs", "3", r"train\.epochs: got '3'; input should be a valid integer"),
        ("train.epochs", True, r"train\.epochs: got True; input should be a valid integer"),
        ("train.prune.heads", 1.0, r"train\.prune\.heads: got 1\.0; input should be less than 1"),
        ("train.prune.layers", -1, r"train\.prune\.layers: got -1; input should be greater than or equal to 0"),
        ("train.epochs", 0, r"train\.epochs: got 0; input should be greater than or equal to 1"),
        ("train.threads", 0, r"train: determinism strict needs a number of threads"),
        ("train.auto_batch", "yes", r"train\.auto_batch: got 'yes'"),
        ("train.launch.node_rank", 1, r"train\.launch: node_rank is 1, expected 0 to 0"),
        ("train.launch.nodes", 2, r"train\.launch: several nodes need rendezvous"),
        ("ingest.unlabelled", ["nosuch"], r"ingest\.unlabelled: \['nosuch'\] are not under corpora"),
        ("ingest.unlabelled", ["starter"], r"ingest\.unlabelled: \['starter'\] are in ingest\.corpora too"),
        ("tune.space.lr", {"low": 2.0, "high": 1.0, "log": False}, r"tune\.space\.lr: low is 2, expected less than high, 1"),
        ("tune.space.lr", {"low": 0.0, "high": 1.0, "log": True}, r"tune\.space\.lr: low is 0, expected more than 0"),
        (
            "tune.space.lr",
            {"low": 1.0, "hihg": 2.0, "log": True},
            r"tune\.space\.lr\.(high: missing|hihg: unknown key; allowed: high, log, low)",
        ),
        ("tune.space.lr", {"choices": [1]}, r"tune\.space\.lr\.choices: got \[1\]; list should have at least 2 items"),
        ("backbones.minilm.packages", {"a==1": "0" * 64, "b==1": "0" * 64}, r"backbones\.minilm: several packages need archive"),
        ("train.device", "tpu", r"train\.device: got 'tpu'; input should be 'auto', 'cpu' or 'cuda'"),
        ("train.lr", None, r"train\.lr: missing"),
        ("corpora.starter.format", "xml", r"corpora\.starter: .*'xml'.*'csv', .*'phrasebank'"),
        ("ingest.corpora", ["nosuch"], r"ingest\.corpora: 'nosuch' is not under corpora \(there: phrasebank, starter\)"),
        ("ingest.corpora", [], r"ingest\.corpora: got \[\]; list should have at least 1 item"),
        ("labels", ["a"], r"labels: got \['a'\]; list should have at least 2 items"),
        ("labels", ["a", "a"], r"labels: got \['a', 'a'\], expected each label once"),
        ("corpora.starter.label_map", {"x": "up"}, r"corpora\.starter\.label_map: \['up'\] are not in labels"),
        ("labels", ["pos(x)", "b"], r"labels\.0: got 'pos\(x\)'; string should match pattern"),
        ("labels", [" a", "b"], r"labels\.0: got ' a'; string should match pattern"),
        ("corpora.starter.path", "/tmp/x.csv", r"corpora\.starter\.path: /tmp/x\.csv is not below data/starter or data/external"),
        ("corpora.starter.path", "data/starter/../x", r"corpora\.starter\.path: data/starter/\.\./x is not below"),
        ("train.lr", float("inf"), r"train\.lr: got inf; input should be a finite number"),
        ("evaluate.seed", -1, r"evaluate\.seed: got -1; input should be greater than or equal to 0"),
        ("register.model", "it's", r"register\.model: got \"it's\"; string should match pattern"),
        ("backbones.minilm.sha256", {}, r"backbones\.minilm: sha256 has no model\.safetensors"),
        ("prepare.split.test", 0.95, r"prepare\.split: validation \+ test is 1\.05"),
        ("prepare.split.test", "2024-01-01", r"prepare\.split: validation and test are shares unless method is date"),
        ("prepare.split.test", "2024-13-99", r"prepare\.split\.test.*2024-13-99"),
        ("prepare.split.test", "2024-01-01 noon", r"prepare\.split\.test.*2024-01-01 noon"),
        ("prepare.split.fold", 10, r"prepare\.split: fold is 10, expected 0 to 9"),
        ("prepare.split.method", "held-out", r"prepare\.split: method held-out and the list held_out go together"),
        (
            "prepare.split.method",
            "random",
            r"prepare\.split\.method: got 'random'; input should be 'stratified', 'date'",
        ),
        ("prepare.near_duplicates", 1.5, r"prepare\.near_duplicates: got 1\.5"),
        ("polarity", {"negative": -1.0}, r"polarity: got \['negative'\], expected a number for each of"),
        ("polarity.negative", -2.0, r"polarity\.negative: got -2\.0; input should be greater than or equal to -1"),
        ("corpora.starter.split_files", {"train": "a.csv", "tests": "b.csv"}, r"corpora\.starter\.split_files\.tests"),
        ("corpora.starter.thresholds", {"negative": 0.0}, r"corpora\.starter: score and thresholds go together"),
        ("export.formats", ["onnx-int8", "onnx-int8"], r"export: formats names one twice: onnx-int8, onnx-int8"),
        ("export.formats", ["onnx-int4"], r"export\.formats\.0: got 'onnx-int4'; input should be 'onnx-fp32'"),
    ],
)
def test_refusals_name_the_key_and_what_is_allowed(tmp_path: Path, key: str, value: Any, says: str) -> None:
    with pytest.raises(ParamsError) as caught:
        load_params(changed(tmp_path, key, value))
    assert re.search(r"params\.yaml: " + says, str(caught.value)), str(caught.value)


def test_what_is_frozen_cannot_be_pushed(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.replace("frozen_layers: 0", "frozen_layers: 1").replace("adversarial: 0.0", "adversarial: 0.5"))
    with pytest.raises(ParamsError, match=r"train: adversarial pushes the embeddings, which frozen_layers keeps from learning"):
        load_params(path)


def test_single_zeros_are_not_held_in_divided_matrices(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.replace("sharded: false", "sharded: true").replace("magnitude: 0.0", "magnitude: 0.5"))
    with pytest.raises(ParamsError, match=r"train: prune\.magnitude holds zeros in whole matrices, which launch\.sharded divides"):
        load_params(path)


def test_a_file_that_is_older_than_a_switch_goes_on_working(tmp_path: Path) -> None:
    content = YAML(typ="safe").load(PARAMS)
    for name in ("adapt", "awp", "focal", "swa"):
        del content["train"][name]
    with (path := tmp_path / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(content, file)
    (shipped := tmp_path / "shipped.yaml").write_text(PARAMS)
    assert load_params(path) == load_params(shipped)


def test_the_finbert_split_is_refused_on_other_files_than_its_own(tmp_path: Path) -> None:
    path = changed(tmp_path, "corpora.phrasebank.split", "finbert")
    assert load_params(path).corpora["phrasebank"].split == "finbert"
    path.write_text(path.read_text().replace("agreement: 50", "agreement: 75"))
    with pytest.raises(ParamsError, match="finbert is defined on agreement 50, got 75"):
        load_params(path)


@pytest.mark.parametrize(("content", "says"), [(None, "no such file"), ("a: [", "not valid YAML"), ("- 1", "expected a mapping")])
def test_an_unreadable_file_is_one_line(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ParamsError, match=says) as caught:
        load_params(path)
    assert "\n" not in str(caught.value)


def test_scientific_notation_is_a_number_as_dvc_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(re.sub(r"  lr: \S+", "  lr: 3e-5", PARAMS, count=1))
    assert load_params(path).train.lr == 3e-5


def test_every_key_of_the_shipped_file_is_commented() -> None:
    lines = PARAMS.splitlines()
    for number, line in enumerate(lines):
        if not re.match(r" *[\w.-]+:( |$)", line) or re.match(r"      [\w.=-]+: [0-9a-f]{64}$", line):  # the digests are one list
            continue
        opens_a_section = line.rstrip().endswith(":")  # its own keys are commented
        assert opens_a_section or "#" in line or lines[number - 1].lstrip().startswith("#"), (
            f"params.yaml:{number + 1} has no comment: {line}"
        )


def test_a_label_map_is_one_value_for_a_tracker(tmp_path: Path) -> None:
    path = changed(tmp_path, "corpora.starter.label_map", {"Very (good)!": "positive"})
    assert flatten(load_params(path))["corpora.starter.label_map"] == "{'Very (good)!': 'positive'}"


@pytest.mark.parametrize(("key", "value"), [("train.adapt.epochs", 1), ("train.teacher", "mpnet")])
def test_texts_that_are_read_count_among_what_is_licensed(tmp_path: Path, key: str, value: Any) -> None:
    params = load_params(changed(tmp_path, key, value))
    read = params.model_copy(update={"ingest": params.ingest.model_copy(update={"unlabelled": ["phrasebank"]})})
    assert bootstrap.licences(read)["corpus phrasebank"] == params.corpora["phrasebank"].license
    assert "corpus phrasebank" not in bootstrap.licences(load_params(changed(tmp_path, "train.epochs", 1)))
