"""``evaluate``: measuring on the test rows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finsight.params.base import Count, Section


class EvaluateParams(Section):
    """Settings of the intervals and of the calibration error."""

    bootstrap_resamples: Annotated[int, Field(ge=100)]
    seed: Annotated[int, Field(ge=0)]
    calibration_bins: Count
