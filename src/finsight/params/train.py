"""``train``: fine-tuning."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from finsight.params.base import Count, Section

Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]


class DistillationParams(Section):
    """How ``train.teacher`` is trained and listened to; what is not here it takes from ``train``.

    Teachers are not adapted, unfrozen, pushed or passed twice (``adapt``, ``unfreeze_every``, ``adversarial``, ``awp``, ``r_drop``).
    """

    seeds: Count
    """Teachers, each from a seed of its own, whose probabilities are averaged."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None
    """Of the first teacher, the next ones count on from it: students of other seeds learn from the same. Empty: from ``train.seed``."""
    epochs: Count
    lr: Annotated[float, Field(gt=0)]
    frozen_layers: Annotated[int, Field(ge=0)]
    """Lowest layers of the teachers that don't learn, the embeddings counting as the first."""
    weight: Annotated[float, Field(gt=0, le=1)]
    """The teacher's share in the target of a labelled row; an unlabelled one has the teacher's alone."""
    temperature: Annotated[float, Field(gt=0)]
    """Divides the teacher's logits: above 1 its probabilities are softer."""
    variants: Annotated[int, Field(ge=0)]
    """Altered copies of each training text that the teachers label too."""


class AdaptParams(Section):
    """How the backbone reads the prepared texts before it is fine-tuned; what is not here it takes from ``train``."""

    epochs: Annotated[int, Field(ge=0)] = 0
    """Passes over the texts of train and ``ingest.unlabelled`` as a masked language model; 0: none."""
    lr: Annotated[float, Field(gt=0)] = 1.0e-4
    mask: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens that are to be told."""


class PruneParams(Section):
    """What is taken out of the fitted model, and how it recovers."""

    layers: Annotated[int, Field(ge=0)]
    """Encoder layers that are dropped, from the top."""
    heads: Share
    """Of the attention heads of each layer."""
    feed_forward: Share
    """Of the neurons of each layer's feed-forward network."""
    magnitude: Share
    """Of the weights of the layers' matrices, which are set to zero and stay so."""
    epochs: Annotated[int, Field(ge=0)]
    """Passes over train from which the pruned model recovers; 0: it is kept as it is."""

    @property
    def on(self) -> bool:
        """Whether anything is taken out."""
        return bool(self.layers or self.heads or self.feed_forward or self.magnitude)


class LaunchParams(Section):
    """Processes that train together."""

    processes: Count
    """On this machine: one a GPU, or CPU processes."""
    nodes: Count
    node_rank: Annotated[int, Field(ge=0)]
    rendezvous: Annotated[str, Field(pattern=r"^(.+:\d+)?$")]
    """``host:port`` of the first node; empty on one machine."""
    wait: Annotated[float, Field(gt=0)]
    """Seconds that a node waits for the others, at the beginning and when one is lost."""
    restarts: Annotated[int, Field(ge=0)]
    """Times that all begin again from the last state after a process was killed or a node was lost."""
    sharded: bool
    """Whether weights and optimizer state are divided among the processes (FSDP), not held by each (DDP)."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.node_rank >= self.nodes:
            raise ValueError(f"node_rank is {self.node_rank}, expected 0 to {self.nodes - 1}")
        if self.nodes > 1 and not self.rendezvous:
            raise ValueError("several nodes need rendezvous, host:port of the first")
        return self


class StreamParams(Section):
    """Training rows that are too many to be held in memory."""

    shards: str
    """A folder or ``s3://bucket/prefix`` that `finsight shards` wrote, whose rows are learned from; empty: those of the prepared folder."""
    above: Annotated[int, Field(ge=0)]
    """Prepared rows above which they are read while they are learned from; shards always are."""
    shuffle_buffer: Count
    """Rows that are in memory at a time, and shuffled together."""


class TrainParams(Section):
    """Hyperparameters, in the words of the field."""

    backbone: Name
    """A name under ``backbones``, a folder, an ``s3://`` folder, or a hub id with its revision, ``owner/name@revision``."""
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    determinism: Literal["strict", "fast"]
    threads: Annotated[int, Field(ge=0)]
    """Of the CPU; 0: one a core."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    epochs: Count
    patience: Annotated[int, Field(ge=0)]
    """Epochs without a better validation macro-F1 after which training ends; 0: never."""
    lr: Annotated[float, Field(gt=0)]
    head_lr_multiplier: Annotated[float, Field(gt=0)]
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    schedule: Literal["linear", "cosine", "constant"]
    warmup_ratio: Share
    batch_tokens: Annotated[int, Field(ge=8)]
    """Most tokens in a batch, padding included."""
    accumulation: Count
    """Batches a step, divided among the processes."""
    auto_batch: bool
    """Whether a batch that does not fit into memory is halved, and ``accumulation`` doubled, until it does."""
    gradient_checkpointing: bool
    weight_decay: Weight
    max_grad_norm: Annotated[float, Field(gt=0)]
    dropout: Share | None
    """Of hidden states and attention; empty: what the backbone's configuration says."""
    frozen_layers: Annotated[int, Field(ge=0)]
    """Lowest layers that don't learn, the embeddings counting as the first."""
    unfreeze_every: Annotated[int, Field(ge=0)]
    """Epochs after which the highest frozen layer begins to learn, again and again; 0: never."""
    label_smoothing: Share
    class_weights: Literal["none", "balanced"]
    soft_labels: bool
    """Whether a row's target follows its annotators' agreement, where the corpus has it."""
    r_drop: Weight
    """Weight of the divergence between two passes with different dropout; 0: one pass."""
    adversarial: Weight
    """Length of a step against the gradient of the word embeddings, whose loss is learned from too (FGM); 0: none."""
    awp: Weight = 0.0
    """Length of a push of each matrix along its gradient, in its own norm, under which the step's gradient is taken (AWP); 0: none."""
    ema: Share
    """Decay of the moving average of the weights, which is what is kept; 0 keeps the last weights."""
    swa: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the steps, the last ones, whose weights are averaged equally, in place of ``ema``; 0: none."""
    focal: Weight = 0.0
    """γ of the focal loss: how much less a class counts the surer the model is of it; 0: cross-entropy."""
    adapt: AdaptParams = AdaptParams()
    teacher: Name | None
    """A larger backbone, trained first on the same rows, whose probabilities ``backbone`` learns from."""
    distillation: DistillationParams
    prune: PruneParams
    stream: StreamParams
    save_every: Annotated[float, Field(ge=0)]
    """Seconds between two states from which a killed run goes on."""
    launch: LaunchParams

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.determinism == "strict" and not self.threads:
            raise ValueError("determinism strict needs a number of threads: sums come out differently on each; set threads, or fast")
        if self.auto_batch and self.launch.processes * self.launch.nodes > 1:
            raise ValueError("auto_batch is for one process: of several, one may have memory left where another has none")
        if self.adversarial and self.frozen_layers:
            raise ValueError("adversarial pushes the embeddings, which frozen_layers keeps from learning; set one of them to 0")
        if self.teacher and self.stream.shards:
            raise ValueError(
                "teacher holds what it says of each row in memory, which stream.shards are too many for; set one of them to empty"
            )
        if self.prune.magnitude and self.launch.sharded:
            raise ValueError(
                "prune.magnitude holds zeros in whole matrices, which launch.sharded divides; set it to 0, or sharded to false"
            )
        return self
