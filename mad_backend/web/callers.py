"""Whether whoever sent a request is still there to be answered."""

from collections.abc import Mapping
from typing import Any, Final

from mad_backend.serving.targets import IsAbandoned, never

_HUNG_UP: Final = "waitress.client_disconnected"


def hung_up(environ: Mapping[str, Any]) -> IsAbandoned:
    """True once the client's connection is closed, or its sending half, which waitress cannot tell apart.

    Waitress sees it while a request runs only if it looks ahead (`channel_request_lookahead`); other servers never.
    """
    found: IsAbandoned = environ.get(_HUNG_UP, never)
    return found
