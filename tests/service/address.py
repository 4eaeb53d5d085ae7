"""A hook of Schemathesis's: each case comes from an address of its own."""

import secrets
from typing import Any

import schemathesis


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    # Not by `random`, which Hypothesis seeds anew for each case.
    case.headers["X-Forwarded-For"] = ".".join(["10", *(str(secrets.randbelow(256)) for _ in range(3))])
