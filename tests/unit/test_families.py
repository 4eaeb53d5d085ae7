"""Every backbone family on a tiny random model: it learns, freezes, is saved and loaded, and its rates fall with depth."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import HARDWARE, recipe_of, three_labels, toy, toy_data
from transformers import (
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    RobertaConfig,
)

from conftest import LABELS
from finsight.errors import ArtifactError, ParamsError
from finsight.modeling.backbone import load_model
from finsight.modeling.checkpoint import load_checkpoint, save_checkpoint
from finsight.modeling.device import Hardware, deterministic
from finsight.modeling.frozen import FrozenLayers
from finsight.modeling.inference import predict
from finsight.modeling.optimisation import ABOVE, EMBEDDINGS, level
from finsight.modeling.training import fit

SHAPE: dict[str, Any] = {
    "vocab_size": 500,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
FAMILIES: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**SHAPE),
    "finbert": BertConfig(**SHAPE, id2label={0: "positive", 1: "negative", 2: "neutral"}, architectures=["BertForSequenceClassification"]),
    "distilbert": DistilBertConfig(
        vocab_size=500, dim=32, n_layers=3, n_heads=2, hidden_dim=64, max_position_embeddings=64, pad_token_id=0
    ),
    "roberta": RobertaConfig(**SHAPE),
    "mpnet": MPNetConfig(**SHAPE),
    "deberta-v3": DebertaV2Config(
        **SHAPE,
        relative_attention=True,
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
    ),
    "electra": ElectraConfig(**SHAPE, embedding_size=24),
    "modernbert": ModernBertConfig(**SHAPE, global_attn_every_n_layers=2, local_attention=16, cls_token_id=2, sep_token_id=3),
}


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    from transformers import AutoModel, AutoModelForSequenceClassification

    config = FAMILIES[request.param]
    torch.manual_seed(0)
    made = AutoModelForSequenceClassification if config.architectures else AutoModel
    made.from_config(config).save_pretrained(tmp_path / request.param)
    return tmp_path / str(request.param)


def test_it_learns_and_is_saved_whole(family: Path, tmp_path: Path) -> None:
    slow = family.name == "electra"  # its embeddings are narrower than its layers
    recipe = recipe_of(epochs=16 if slow else 8, dropout=0.0, lr=5e-3 if slow else 3e-3)
    with deterministic(1, threads=1):
        model = load_model(family, LABELS, new_head=True)
        fitted = fit(model, toy_data(toy(600, 1)), recipe, HARDWARE, three_labels)
    assert max(epoch["validation_macro_f1"] for epoch in fitted.epochs) > 0.85
    (tmp_path / "tokenizer").mkdir()
    save_checkpoint(model, tmp_path / "tokenizer", tmp_path / "checkpoint")
    again, labels = load_checkpoint(tmp_path / "checkpoint")
    assert labels == LABELS
    rows = toy(20, 5).ids
    np.testing.assert_array_equal(predict(again, rows, 0, 500, HARDWARE), predict(model, rows, 0, 500, HARDWARE))


def test_frozen_layers_give_the_same_in_two_parts(family: Path) -> None:
    model = load_model(family, LABELS, new_head=True)
    tokens = torch.tensor([[2, 101, 300, 3, 0], [2, 102, 301, 77, 3]])
    mask = (tokens != 0).long()
    for layers in (1, 2, 3):
        frozen = FrozenLayers(model, layers)
        assert frozen.fits(tokens, mask)
        hidden = frozen.hidden([0, 1], tokens, mask)
        assert hidden.shape == (2, 5, 32)


def test_the_levels_of_its_parameters_are_known(family: Path) -> None:
    model = load_model(family, LABELS, new_head=True)
    levels = {name: level(name, model.base_model_prefix) for name, _ in model.named_parameters()}
    assert {at for at in levels.values() if at != ABOVE} == {EMBEDDINGS, 1, 2, 3}
    above = {name.split(".")[0] for name, at in levels.items() if at == ABOVE} - {model.base_model_prefix}
    assert above, "its head learns fastest"


def test_it_loads_with_what_is_fastest_on_a_gpu(family: Path) -> None:
    assert load_model(family, LABELS, None, new_head=True).config._attn_implementation in ("sdpa", "eager")


def test_weights_of_another_shape_are_refused(family: Path) -> None:
    path = family / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"intermediate_size": 72, "hidden_dim": 72}))
    with pytest.raises(ArtifactError, match="its weights are not those of its config.json"):
        load_model(family, LABELS, new_head=True)


def test_dropout_can_be_set_for_all_of_it(family: Path) -> None:
    tokens = torch.tensor([[2, 101, 300, 3]])
    model = load_model(family, LABELS, new_head=True, dropout=0.0).train()
    assert torch.equal(model(input_ids=tokens).logits, model(input_ids=tokens).logits)
    model = load_model(family, LABELS, new_head=True, dropout=0.5).train()
    assert not torch.equal(model(input_ids=tokens).logits, model(input_ids=tokens).logits)


def test_gradient_checkpointing_and_bf16_run(family: Path) -> None:
    model = load_model(family, LABELS, new_head=True)
    recipe = recipe_of(epochs=1, gradient_checkpointing=True, frozen_layers=1)
    hardware = Hardware(torch.device("cpu"), torch.bfloat16)
    if family.name == "mpnet":
        with pytest.raises(ParamsError, match=r"train\.gradient_checkpointing: MPNet.* does not support .* Set it to false"):
            fit(model, toy_data(toy(60, 1)), recipe, hardware, three_labels)
        return
    with deterministic(1):
        fitted = fit(model, toy_data(toy(60, 1)), recipe, hardware, three_labels)
    assert np.isfinite(fitted.epochs[0]["train_loss"])
