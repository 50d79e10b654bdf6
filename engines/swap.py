"""Hot swap: another version takes over between two batches, while the old one serves on until then.

A watcher notices that the active version is another one, loads and warms it beside the old one in a thread that gives
way to those that score, and puts it in place. Who uses the old one finishes with it; then it is closed. A version that
cannot be opened is refused: the old one stays, the log and the caller's counter say so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from engines.bundle import ACTIVE, BundleError, active_folder
from engines.threads import give_way

log = logging.getLogger("tapewatch.swap")

EVERY = 1.0  # seconds between two looks at what is active
FINISH_WITHIN = 1.0  # seconds


class Model(Protocol):
    """What can be swapped."""

    @property
    def model(self) -> str:
        """Its name and version, for the log."""

    def warm(self) -> None:
        """Make the first real batch as fast as the next."""

    def close(self) -> None:
        """Let go of memory and threads."""


M = TypeVar("M", bound=Model)


class Version(NamedTuple):
    """What is active: the bundle's folder, and when it was activated (ns), so that activating it again counts."""

    folder: Path
    activated: int


def active_version(bundles: Path, task: str) -> Version:
    """The version that is to serve `task` now; raises BundleError where none is named."""
    folder = active_folder(bundles, task)
    try:
        return Version(folder, (bundles / task / ACTIVE).stat().st_mtime_ns)
    except OSError as error:
        raise BundleError(f"{bundles / task / ACTIVE}: {error.strerror}") from None


class _Held(Generic[M]):
    def __init__(self, model: M) -> None:
        self.model = model
        self.users = 0
        self.retired = False


class HotSwap(Generic[M]):
    """The model that serves, warm. `opens` loads the folder of a version, raising EngineError or BundleError.

    `opens` also refuses, by EngineError, a model that cannot stand in for the old one: one with other labels, say.
    `gives_way` says, of the model that serves, whether loading may run at a lower priority. Threads that an engine
    starts for itself inherit that for good: not for engines that keep such threads.
    """

    def __init__(
        self,
        opens: Callable[[Path], M],
        version: Callable[[], Version],
        gives_way: Callable[[M], bool] = lambda _: True,
    ) -> None:
        self._opens = opens
        self._version = version
        self._gives_way = gives_way
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._watcher: threading.Thread | None = None
        self._seen = version()
        self._told = False  # that none is active
        self._serves = self._seen.folder
        self._held = _Held(opens(self._serves))
        self._held.model.warm()

    @contextmanager
    def use(self) -> Iterator[M]:
        """The model that serves now, for one batch; it is not closed before the block ends."""
        with self._lock:
            held = self._held
            held.users += 1
        try:
            yield held.model
        finally:
            with self._lock:
                held.users -= 1
                last = held.retired and not held.users
            if last:
                held.model.close()

    @property
    def now(self) -> M:
        """The model that serves now, to look at its name; a batch is run under `use`."""
        return self._held.model

    def refresh(self) -> bool | None:
        """Look once: True when another version took over, False when one was refused, None when nothing changed.

        A refused version is tried again when it is activated again.
        """
        try:
            found = self._version()
        except BundleError as error:
            told, self._told = self._told, True
            if not told:
                log.warning("%s serves on: %s", self.now.model, error)
            return None if told else False
        self._told = False
        changed, self._seen = found != self._seen, found
        if not changed or found.folder == self._serves:
            return None
        log.info("%s is to take over from %s", found.folder.name, self.now.model)
        try:
            fresh = self._load(found.folder)
        except Exception as error:
            log.error("%s serves on, %s is refused: %s", self.now.model, found.folder.name, error)
            return False
        with self._lock:
            closed = self._ended.is_set()
            if not closed:
                old, self._held = self._held, _Held(fresh)
                self._serves = found.folder
        if closed:
            fresh.close()
            return None
        self._retire(old)
        log.info("%s has taken over from %s", fresh.model, old.model.model)
        return True

    def watch(self, noted: Callable[[bool], object], every: float = EVERY) -> None:
        """Look again and again in a thread; `noted` is told of each version that took over (True) or was refused."""

        def look() -> None:
            while not self._ended.wait(every):
                try:
                    found = self.refresh()
                    if found is not None:
                        noted(found)
                except Exception:  # this look failed; without a watcher no later version would ever serve
                    log.exception("%s serves on: looking for another version failed", self.now.model)

        self._watcher = threading.Thread(target=look, name="swap", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stop watching, and close the model when its last user is done."""
        with self._lock:
            self._ended.set()
        if self._watcher is not None:
            self._watcher.join(FINISH_WITHIN)  # a version that is being loaded is left to the process's end
        self._retire(self._held)

    def _load(self, folder: Path) -> M:
        """The model of a folder, warm; raises what opening or warming raises."""
        loaded: Future[M] = Future()

        def load() -> None:
            if self._gives_way(self.now):
                give_way()
            try:
                model = self._opens(folder)
                try:
                    model.warm()
                except BaseException:
                    model.close()
                    raise
            except BaseException as error:
                loaded.set_exception(error)
            else:
                loaded.set_result(model)

        threading.Thread(target=load, name="load", daemon=True).start()
        return loaded.result()

    def _retire(self, held: _Held[M]) -> None:
        with self._lock:
            held.retired = True
            idle = not held.users
        if idle:
            held.model.close()
