"""``validate``: what the raw corpus must look like."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finsight.params.base import Count, Section

Limit = Annotated[float, Field(ge=0, le=1)]


class ValidateParams(Section):
    """Thresholds of the expectation suites; shares are of a corpus's rows."""

    min_rows: Count
    min_rows_per_label: Annotated[int, Field(ge=3)]
    min_characters: Count
    max_characters: Count
    min_label_share: Annotated[float, Field(ge=0, lt=1)]
    max_label_share: Annotated[float, Field(gt=0, le=1)]
    max_duplicate_share: Limit
    max_conflicting_share: Limit
    max_damaged_share: Limit
    language: Annotated[str, Field(pattern="^([a-z]{2,3})?$")]
    """ISO 639 code; empty: texts may be in any language."""
    language_sample: Count
    """Rows of a corpus that are looked at, at most."""
    max_foreign_share: Limit
    max_label_drift: Annotated[float, Field(ge=0)]
    """Population stability index; ``max_length_drift`` likewise."""
    max_length_drift: Annotated[float, Field(ge=0)]
    max_word_drift: Limit
    """Jensen-Shannon distance."""
    noise_sample: Annotated[int, Field(ge=0)]
    """Rows that are examined for wrong labels, at most; 0: none."""
