"""A hook of Schemathesis's: each case comes from an address of its own, and asks for tokens as a client that there is."""

import os
import secrets
from typing import Any

import schemathesis

ID, _, SECRET = os.environ["FUZZ_CLIENT"].partition(":")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    # Not by `random`, which Hypothesis seeds anew for each case.
    case.headers["X-Forwarded-For"] = ".".join(["10", *(str(secrets.randbelow(256)) for _ in range(3))])
    # No schema can say which id and secret are good; what is wrong with the rest of a form stays wrong.
    if case.operation.path == "/v1/auth/token" and isinstance(case.body, dict) and {"client_id", "client_secret"} <= case.body.keys():
        case.body |= {"client_id": ID, "client_secret": SECRET}
