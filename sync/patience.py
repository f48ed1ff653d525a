"""Bounded tries with growing pauses, for a server that is away for a while."""

import logging
import time
from typing import Final

from mad_backend.errors import LabelStudioError

log = logging.getLogger(__name__)

RESTART: Final = 9
"""Tries: from half a second on, pauses of more than a minute and a half together, in which a server can restart."""
_LONGEST: Final = 60
"""Times the first pause."""
_TIMEOUT, _TOO_EARLY, _TOO_MANY = 408, 425, 429


def is_passing(error: LabelStudioError) -> bool:
    """True where the same request may succeed later: no answer or half of one, 5xx, and "too many requests"."""
    status = error.status
    return (
        status is None
        or status >= 500
        or status in (_TIMEOUT, _TOO_EARLY, _TOO_MANY)
        # Said to have succeeded, and yet unreadable: cut in the middle, or a proxy's page for maintenance.
        or status in (200, 201)
    )


class Patience:
    """`tries` in a row without progress; pauses double from `first_pause_s` on, up to 60 times of it."""

    def __init__(self, tries: int, first_pause_s: float) -> None:
        self._tries = tries
        self._first_pause_s = first_pause_s
        self._failed = 0

    def restore(self) -> None:
        """There was progress: whatever failed before no longer counts."""
        self._failed = 0

    def wait(self, wanted: str, error: LabelStudioError) -> None:
        """Pauses before the next try; raises `error` where waiting is no help, or when all tries are used up."""
        self._failed += 1
        if self._failed >= self._tries or not is_passing(error):
            raise error
        pause_s = self._first_pause_s * min(_LONGEST, 2 ** (self._failed - 1))
        log.info("%s: trying again in %.1f s (%s)", wanted, pause_s, error)
        time.sleep(pause_s)
