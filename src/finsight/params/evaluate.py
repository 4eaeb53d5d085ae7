"""``evaluate``: measuring on the test rows."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from finsight.params.base import Count, Section, Share

Metric = Literal[
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "weighted_f1",
    "mcc",
    "kappa",
    "ordinal_error",
    "nll",
    "brier",
    "ece",
    "adaptive_ece",
    "auroc",
]


class SliceParams(Section):
    """Rows that are looked at by themselves: those whose text matches ``pattern``, or those of each value of ``column``."""

    pattern: str | None = None
    column: str | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.pattern is None) == (self.column is None):
            raise ValueError("expected either pattern or column")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"pattern: {self.pattern!r} is no regular expression: {error}") from None
        return self


class EvaluateParams(Section):
    """Settings of the intervals, the calibration errors and the slices."""

    primary: Metric
    bootstrap_resamples: Annotated[int, Field(ge=1000)]
    """Fewer could not show a difference in one of the thirty metrics and more that a comparison corrects for."""
    seed: Annotated[int, Field(ge=0)]
    calibration_bins: Count
    abstain_precision: Share
    slices: dict[str, SliceParams]
    min_slice_rows: Count
    behaviour_rows: Count
