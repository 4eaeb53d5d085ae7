"""What the routes work with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from finsight.bootstrap.sign_in import SignIn
from finsight.service.access import Gate
from finsight.service.checks import Checks
from finsight.service.client_address import Network
from finsight.service.gate import Credentialing
from finsight.service.jobs import Jobs
from finsight.service.life import Life
from finsight.service.meters import Meters
from finsight.service.predictions import Predictions
from finsight.service.rules import Rules
from finsight.service.slots import Slots
from finsight.service.sockets import Sockets
from finsight.service.uploads import Scoring
from finsight.service_ports import Sessions


@dataclass(frozen=True, slots=True)
class Parts:
    """Made once, before the app; the app keeps it as ``app.state.parts``.

    :param own: makes the service's own credentials.
    :param proxies: networks whose word for a client's address is taken.
    :param jobs: None where the service has none.
    :param sessions: who has signed in to the page; there is no signing in without.
    :param scoring: None where the service keeps no tables.
    :param promoted: is told, from any thread, when an alias was moved here.
    :param sign_in: at an issuer; None where that is not set up.
    :param public_url: where browsers reach the service; empty where that is not said.
    :param slots: for comparisons and verifications.
    :param checks: of what the service depends on.
    :param running: each is entered when the service starts and left when it ends, in the reverse order.
    """

    predictions: Predictions
    gate: Gate
    rules: Rules
    own: Credentialing
    proxies: tuple[Network, ...] = ()
    jobs: Jobs | None = None
    sessions: Sessions | None = None
    scoring: Scoring | None = None
    promoted: Callable[[], None] = lambda: None
    sign_in: SignIn | None = None
    public_url: str = ""
    slots: Slots = field(default_factory=Slots)
    meters: Meters = field(default_factory=Meters)
    life: Life = field(default_factory=Life)
    sockets: Sockets = field(default_factory=Sockets)
    checks: Checks = field(default_factory=Checks)
    running: tuple[Callable[[], AbstractAsyncContextManager[None]], ...] = ()
