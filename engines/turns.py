"""Who may use an engine next: threads take turns in the order of their asking.

Python's own locks let a thread that gives one up take it again before a waiting one wakes; a pipeline's long batch
would then keep a single caller waiting to its end.
"""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """A lock that is handed to the thread that has waited longest: `with turns: ...`."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        try:
            mine.acquire()  # until the one before hands it over
        except BaseException:
            self._withdraw(mine)
            raise

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False

    def _withdraw(self, mine: threading.Lock) -> None:
        """Leave the line; where the turn has come already, hand it on."""
        with self._guard:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return
        self.__exit__()
