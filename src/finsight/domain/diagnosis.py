"""What a check-up says of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finsight.errors import FinsightError


class AdviceError(FinsightError):
    """It will work, though not as well as it could."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One line.

    :param state: ``wrong`` where something will not work.
    :param said: what was found, or what to do.
    """

    subject: str
    state: Literal["ok", "advice", "wrong"]
    said: str
