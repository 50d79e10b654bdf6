"""Full garbage collections by the clock, between batches.

CPython starts one by the count of objects made, which holds every thread up in mid-batch. A consumer makes objects by
the hundred thousand: of the time of a worker that only decodes, two fifths went into looking again at what had been
loaded once and stays for good.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

EVERY = 10.0  # seconds between two full collections, at a moment without a batch
AFTER = 60.0  # seconds after which such a moment is not waited for any more
# Objects more, young collections, middle ones: until the next older one. The last: never by itself.
THRESHOLDS = (10_000, 20, 1_000_000)


class Collector:
    """Takes full collections over from CPython when it is made; `look` decides about each."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        gc.collect()
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)
        self._collected = clock()

    def look(self, idle: bool) -> bool:
        """Collect if it is time; `idle`: nothing waits for it. Call it about once a second. Returns whether it did."""
        if self._clock() - self._collected < (EVERY if idle else AFTER):
            return False
        gc.collect()
        self._collected = self._clock()
        return True
