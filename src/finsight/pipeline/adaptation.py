"""The backbone, adapted to the prepared texts as a masked language model, in place of the one that was downloaded."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from finsight.errors import ParamsError
from finsight.modeling.adaptation import MaskedWords, Masks
from finsight.modeling.backbone import has_masked, load_masked, load_tokenizer
from finsight.modeling.batching import Data, Rows
from finsight.modeling.distributed import from_any
from finsight.modeling.resume import Keeper
from finsight.params.train import TrainParams
from finsight.pipeline.fitting import NOT_OF_A_FIT, Fitter, Start, digest, fresh
from finsight.pipeline.tables import TOKENIZER, UNLABELLED, read_rows

if TYPE_CHECKING:
    from finsight.ports import Backbone

ADAPTATION = "adaptation"


def check(backbone: Backbone, params: TrainParams) -> None:
    """Refuse before any work starts a backbone that can't be a masked language model.

    :raises ParamsError: which names the key.
    """
    if not params.adapt.epochs:
        return
    if not has_masked(backbone.folder):
        raise ParamsError(f"train.adapt: transformers has no masked language model of {backbone.name}'s kind; set train.adapt.epochs to 0")
    if load_tokenizer(backbone.folder).mask_token_id is None:
        raise ParamsError(f"train.adapt: {backbone.name}'s tokenizer has no mask token; set train.adapt.epochs to 0")


def adapters_recipe(params: TrainParams) -> TrainParams:
    """The recipe of the adaptation: the training's, but for what ``adapt`` says and what is of labels; all layers learn."""
    own = {"epochs": params.adapt.epochs, "lr": params.adapt.lr, "patience": 0, "frozen_layers": 0, "unfreeze_every": 0}
    labels = {"label_smoothing": 0.0, "class_weights": "none", "soft_labels": False, "focal": 0.0}
    return params.model_copy(update={**own, **labels, "r_drop": 0.0, "adversarial": 0.0, "awp": 0.0})


def adapt(work: Fitter, backbone: Backbone, prepared: Path, params: TrainParams) -> tuple[Start, dict[str, Any]]:
    """What the training begins with, and what was read: texts, and the loss of their masked tokens in each epoch (nats).

    Texts are those of train and of ``ingest.unlabelled``, never of validation or test. The adapted weights stay on this host.
    """
    ids = [row for file in ("train.parquet", UNLABELLED) for row in read_rows(prepared / file)[0].ids]
    tokenizer, recipe, device = load_tokenizer(prepared / TOKENIZER), adapters_recipe(params), work.hardware.device
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    words = np.array([token for token in range(len(tokenizer)) if token not in special], dtype=np.int64)
    masks = Masks(params.adapt.mask, int(tokenizer.mask_token_id or 0), words)
    none = np.zeros(0, dtype=np.int64)
    data = Data(
        Rows(ids, np.zeros(len(ids), dtype=np.int64)),
        np.zeros((len(ids), 1), dtype=np.float32),
        np.ones(len(ids), dtype=np.float32),
        Rows([], none),
        int(tokenizer.pad_token_id or 0),
    )
    asked = recipe.model_dump(exclude=NOT_OF_A_FIT)
    state = work.key(backbone, asked, masks.share, masks.token, digest(words, *ids))
    keeper = Keeper(work.scratch / f"adapted-{state}.safetensors", 0)
    if found := from_any(work.world, keeper.load()):
        encoder, losses = found[0], found[1]["losses"]
    else:

        def masked() -> Any:
            torch.manual_seed(recipe.seed)
            return load_masked(backbone.folder, "eager" if device.type == "cpu" else None, recipe.dropout)

        start = Start(masked, state, partial(MaskedWords, masks=masks))
        model, fitted, _ = work.fit(backbone, data, recipe, ADAPTATION, start=start)
        encoder = {name: tensor.detach().to("cpu") for name, tensor in model.base_model.state_dict().items()}
        losses = [epoch["train_loss"] for epoch in fitted.epochs]
        if work.world.first:
            keeper.save(encoder, {"losses": losses})
        work.clear()

    def make() -> Any:
        model = fresh(backbone.folder, work.labels, params, device)
        model.base_model.load_state_dict(encoder, strict=False)  # a pooler, where there is one, is of the classifier alone
        return model

    return Start(make, state), {"texts": len(ids), "losses": losses}
