"""Every error that a user can cause. The edges (stages, CLI, service) turn one into one line; nothing else is caught there.

FinsightError
├── ParamsError        params.yaml or the environment says something that can't be
├── GateError          a result is outside the limits that params.yaml sets
│   └── UndecidedError all that is lacking is test rows to tell
├── UnreachableError   a server does not answer or fails
│   └── RefusedError   it answers, and refuses who we are
├── StoppedError       a signal ended a training, which can go on
│   └── LostError      another process of it is gone
├── DataError          a corpus or a table is missing, malformed or unfit
└── ArtifactError      a backbone, checkpoint or bundle is missing, damaged or not what its digest says
"""

from __future__ import annotations

import re


class FinsightError(Exception):
    """A failure with a message for the user: what was got, what was expected, what to do next, on one line.

    Libraries put whole addresses into their messages; what stands before the @ of one is taken out here, once for all.
    """

    exit_code = 1
    """What a command ends with."""

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(r"://[^/?#\s]+@", "://", message))


class ParamsError(FinsightError):
    """A parameter or a setting is unknown, of the wrong type, or contradicts another."""


class DataError(FinsightError):
    """A corpus or a table can't be read, or its content is unfit for the stage."""


class ArtifactError(FinsightError):
    """A backbone, checkpoint or bundle is missing, damaged, or differs from its digest."""


class GateError(FinsightError):
    """A measured result lies outside its limit."""

    exit_code = 3


class UndecidedError(GateError):
    """A model has to be better, and there are not enough test rows to tell."""

    exit_code = 4


class UnreachableError(FinsightError):
    """An outside system does not answer, or fails."""


class RefusedError(UnreachableError):
    """An outside system refuses our credentials, or shows none that we trust: waiting does not help."""


class StoppedError(FinsightError):
    """A training was told to end before its time; its state is kept."""


class LostError(StoppedError):
    """A process that trained with this one is gone."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: whoever started this process may do so again
