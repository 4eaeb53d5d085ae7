"""What is minimised, and how that is made harder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from finsight.modeling.distributed import local, whole


def soft_cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor, r_drop: float = 0.0, focal: float = 0.0
) -> torch.Tensor:
    """Cross-entropy with probabilities as targets, weighted and summed over the rows.

    Of several passes with different dropout it is the mean; ``r_drop`` weighs how far two passes are from each other, as half the sum
    of both Kullback-Leibler divergences. ``focal`` is the focal loss's γ: the term of each class, ``-target * log p``, is multiplied by
    ``(1 - p) ** γ``, which with one label a row is the loss of the paper, and with soft targets no longer least where ``p`` is the target.

    :param logits: (passes * b, k), one pass after the other.
    :param target: (b, k).
    :param weights: (b,).
    :source: Liang et al. 2021, "R-Drop: Regularized Dropout for Neural Networks"; Lin et al. 2017, "Focal Loss for Dense Object Detection".
    """
    log_probs = logits.float().log_softmax(dim=-1).view(-1, *target.shape)  # (passes, b, k)
    terms = target * log_probs
    if focal:  # p = 1 has no slope below γ = 1
        terms = terms * (-log_probs.expm1()).clamp_min(1e-6) ** focal
    loss = -terms.sum(dim=-1).mean(dim=0)  # (b,)
    if r_drop:
        p, q = log_probs
        loss = loss + r_drop * ((p.exp() - q.exp()) * (p - q)).sum(dim=-1) / 2
    return (loss * weights).sum()


class Push:
    """A step of the word embeddings' output in the direction of its gradient, row by row, so that the loss grows.

    :param length: of the step, in the embeddings' Euclidean norm.
    :source: Miyato, Dai & Goodfellow 2017, "Adversarial Training Methods for Semi-Supervised Text Classification" (FGM).
    """

    def __init__(self, model: PreTrainedModel, length: float) -> None:
        self._embeddings, self._length = model.get_input_embeddings(), length
        self._output: torch.Tensor | None = None

    def watched(self) -> AbstractContextManager[Any]:
        """A context in which the forward and backward pass find the gradient."""

        def keep(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            output.retain_grad()
            self._output = output

        return hooked(self._embeddings, keep)

    def pushed(self) -> AbstractContextManager[Any]:
        """A context in which the forward pass sees the embeddings pushed."""
        gradient = self._output.grad if self._output is not None else None
        if gradient is None:
            raise RuntimeError("no gradient reached the word embeddings")
        step = self._length * gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None]  # (b, t, d)
        return hooked(self._embeddings, lambda _, __, output: output + step)


@contextmanager
def pushed_weights(weights: Sequence[torch.Tensor], size: float) -> Iterator[None]:
    """While the block runs, let each matrix stand a step further along its gradient, so that the loss grows; its gradients begin at zero.

    :param weights: with their gradients; those of a vector (a bias, a norm) is no direction for it.
    :param size: of the step, in the matrix's own Euclidean norm.
    :source: Wu, Xia & Wang 2020, "Adversarial Weight Perturbation Helps Robust Generalization" (AWP).
    """
    kept = [weight.detach().clone() for weight in weights]
    for weight in weights:
        if weight.grad is not None:
            if weight.ndim > 1:
                length = whole(weight.detach().norm()) / whole(weight.grad.norm()).clamp_min(1e-12)
                local(weight.detach()).add_(local(weight.grad) * length, alpha=size)
            weight.grad.zero_()
    try:
        yield
    finally:
        for weight, was in zip(weights, kept, strict=True):
            weight.detach().copy_(was)


@contextmanager
def hooked(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    """While the block runs, let ``hook`` see, and perhaps replace, what a module puts out."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
