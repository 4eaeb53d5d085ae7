"""Weights rounded to few bits so that what comes out of a layer changes least, rather than the weights themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 128  # rows whose errors are passed on together: a matrix product in place of many sums
DAMPING = 0.01  # of the mean diagonal, so that inputs which hardly vary don't make the moments singular


def round_weights(weights: NDArray[np.float32], moments: NDArray[np.float64], largest: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Integers (k, n) in [-largest, largest] and a scale (n,) for each column, their product being near ``weights`` (k, n).

    Rows are rounded one after another, those first whose inputs are largest; what the rounding of one changes in the outputs is made good
    in the rows not yet rounded. Source: Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
    Transformers" (with the order by activation of its code).

    :param moments: sum of the outer products x xᵀ (k, k) of the layer's inputs on calibration rows.
    """
    scale = np.maximum(np.abs(weights).max(axis=0) / largest, np.finfo(np.float32).tiny)
    order = np.argsort(-np.diag(moments), kind="stable")
    damped = moments[np.ix_(order, order)] + DAMPING * np.mean(np.diag(moments)) * np.eye(len(order))
    # A layer whose inputs were all zero has nothing to be minded: each weight is rounded by itself then.
    inverse = np.linalg.inv(damped) if moments.any() else np.eye(len(order))
    passed_on = np.linalg.cholesky(inverse).T  # upper triangle
    left = weights[order].astype(np.float64)
    found = np.zeros(left.shape, dtype=np.int8)
    for begin in range(0, len(order), BLOCK):
        end = min(begin + BLOCK, len(order))
        errors = np.zeros((end - begin, left.shape[1]))
        for row in range(begin, end):
            found[row] = np.clip(np.rint(left[row] / scale), -largest, largest)
            errors[row - begin] = (left[row] - found[row] * scale) / passed_on[row, row]
            left[row + 1 : end] -= np.outer(passed_on[row, row + 1 : end], errors[row - begin])
        left[end:] -= passed_on[begin:end, end:].T @ errors
    back = np.empty_like(found)
    back[order] = found
    return back, scale.astype(np.float32)
