"""What the routes work with."""

from __future__ import annotations

from dataclasses import dataclass

from finsight.pipeline.predict import Model
from finsight.service.access import Gate
from finsight.service.jobs import Jobs


@dataclass(frozen=True, slots=True)
class Parts:
    """Made once, before the app; the app keeps it as ``app.state.parts``."""

    model: Model
    gate: Gate
    jobs: Jobs | None = None
