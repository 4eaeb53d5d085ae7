"""What the routes work with."""

from __future__ import annotations

from dataclasses import dataclass

from finsight.pipeline.predict import Model
from finsight.service.access import Gate
from finsight.service.client_address import Network
from finsight.service.gate import Credentialing
from finsight.service.rules import Rules


@dataclass(frozen=True, slots=True)
class Parts:
    """Made once, before the app; the app keeps it as ``app.state.parts``.

    :param own: makes the service's own credentials.
    :param proxies: networks whose word for a client's address is taken.
    """

    model: Model
    gate: Gate
    rules: Rules
    own: Credentialing
    proxies: tuple[Network, ...] = ()
