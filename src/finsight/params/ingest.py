"""``ingest``: which corpora make up the data."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finsight.params.base import Section


class IngestParams(Section):
    """Names under ``corpora`` and what may be wrong with their rows."""

    corpora: Annotated[list[str], Field(min_length=1)]
    unlabelled: list[str]
    """Corpora of which only the texts are read, for a teacher to label (``train.teacher``) and the backbone to read (``train.adapt``)."""
    max_quarantined: Annotated[float, Field(ge=0, le=1)]
    """Share of a corpus's rows that may be quarantined; beyond it, ingest refuses."""
