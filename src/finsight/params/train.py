"""``train``: fine-tuning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finsight.params.base import Count, Section


class TrainParams(Section):
    """Hyperparameters, in the words of the field."""

    backbone: Annotated[str, Field(min_length=1)]
    """A name under ``backbones``, a folder, an ``s3://`` folder, or a hub id with its revision, ``owner/name@revision``."""
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "bf16"]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    epochs: Count
    lr: Annotated[float, Field(gt=0)]
    head_lr_multiplier: Annotated[float, Field(gt=0)]
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    batch_tokens: Annotated[int, Field(ge=8)]
    """Most tokens in a step, padding included."""
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    ema: Annotated[float, Field(ge=0, lt=1)]
    """Decay of the moving average of the weights, which is what is kept; 0 keeps the last weights."""
    soft_labels: bool
    """Whether a row's target follows its annotators' agreement, where the corpus has it."""
    max_grad_norm: Annotated[float, Field(gt=0)]
