"""``validate``: what the raw corpus must look like."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finsight.params.base import Count, Section


class ValidateParams(Section):
    """Thresholds of the expectation suite."""

    min_rows: Count
    min_rows_per_label: Annotated[int, Field(ge=3)]
    max_characters: Count
    max_label_share: Annotated[float, Field(gt=0, le=1)]
    max_duplicate_share: Annotated[float, Field(ge=0, le=1)]
    max_conflicting_share: Annotated[float, Field(ge=0, le=1)]
