"""A check-up of this machine and its configuration: everything at once, with an end to its patience."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future

from finsight.adapters.bounded import begun
from finsight.bootstrap import check_machine, check_settings, check_systems
from finsight.domain.diagnosis import AdviceError, Diagnosis
from finsight.errors import FinsightError
from finsight.redaction import scrubbed

PATIENCE = 60.0  # seconds
CHECKS: Mapping[str, Callable[[], str]] = {
    "Python": check_machine.python,
    "packages": check_machine.packages,
    "processor": check_machine.processor,
    "GPU": check_machine.gpu,
    "memory": check_machine.memory,
    "disk": check_machine.disk,
    "folders": check_machine.folders,
    "settings": check_settings.settings,
    "git": check_systems.git,
    "DVC remote": check_systems.dvc_remote,
    "MLflow": check_systems.mlflow,
    "Redis": check_systems.redis,
    "S3": check_systems.objects,
    "issuer": check_systems.issuer,
    "clock": check_systems.clock,
    "bundle": check_systems.bundle,
}


def check_up(checks: Mapping[str, Callable[[], str]] = CHECKS, patience: float = PATIENCE) -> Iterator[Diagnosis]:
    """What each check says, in their order, as soon as it is known."""
    until = time.monotonic() + patience  # of all together: they are under way at the same time
    answers = {subject: begun(check) for subject, check in checks.items()}
    for subject, answer in answers.items():
        yield _diagnosis(subject, answer, until, patience)


def _diagnosis(subject: str, answer: Future[str], until: float, patience: float) -> Diagnosis:
    try:
        return Diagnosis(subject, "ok", scrubbed(answer.result(max(0.0, until - time.monotonic()))))
    except AdviceError as advice:
        return Diagnosis(subject, "advice", _line(advice))
    except TimeoutError:
        return Diagnosis(subject, "wrong", f"no answer within {patience:.0f} s; is the network there?")
    except (FinsightError, OSError) as error:
        return Diagnosis(subject, "wrong", _line(error))
    except Exception as error:  # noqa: BLE001  (an edge: the other checks are still worth their lines)
        return Diagnosis(subject, "wrong", f"{type(error).__name__}, which nobody foresaw: {_line(error)[:200]}; report it")


def _line(error: Exception) -> str:
    return scrubbed(" ".join(str(error).split()))
