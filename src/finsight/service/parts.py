"""What the routes work with."""

from __future__ import annotations

from dataclasses import dataclass, field

from finsight.pipeline.predict import Model
from finsight.service.access import Gate
from finsight.service.slots import Slots
from finsight.service_ports import Sessions


@dataclass(frozen=True, slots=True)
class Parts:
    """Made once, before the app; the app keeps it as ``app.state.parts``."""

    model: Model
    gate: Gate
    slots: Slots = field(default_factory=Slots)
    """For comparisons and verifications."""
    sessions: Sessions | None = None
    """Who has signed in to the page; there is no signing in without."""
