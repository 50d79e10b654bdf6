"""A supervisor of child processes: starts them, starts them again, ends them all.

A child says by its exit status what to do: `START_AGAIN` at once, `STAY_DOWN` never (it would do harm again),
anything else after a pause that grows while it keeps failing.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from streams.launch.embedded import spawn

log = logging.getLogger("tapewatch.supervise")

START_AGAIN = 75  # EX_TEMPFAIL: the world has changed, a fresh start puts it right
STAY_DOWN = 78  # EX_CONFIG: starting again would not help, or make more dead letters
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds
STEADY = 30.0  # seconds after which a failure is a new one
STOP_WITHIN = 6.0  # seconds; with broker and store `up` ends within ten


@dataclass
class Child:
    """One supervised process."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = FIRST_PAUSE
    again_at: float | None = None
    down: bool = False  # it is not started any more

    def start(self, now: float) -> None:
        """Start the process; `now` is a monotonic clock in seconds."""
        self.process = spawn(list(self.command), env=dict(self.environment), stdout=subprocess.DEVNULL)
        self.started, self.again_at = now, None


@dataclass
class Supervisor:
    """Children in the order in which they are started; they end in the reverse order."""

    children: list[Child] = field(default_factory=list)

    def add(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start a child and keep it running."""
        child = Child(name, command, environment)
        child.start(time.monotonic())
        self.children.append(child)
        return child

    def remove(self, child: Child) -> None:
        """End a child and forget it."""
        self.children.remove(child)
        _end([child])

    def check(self, now: float) -> None:
        """Notice who has ended, and start again whose time has come; call it a few times a second."""
        for child in self.children:
            if child.down:
                continue
            if child.again_at is not None:
                if now >= child.again_at:
                    child.start(now)
                continue
            status = child.process.poll() if child.process else None
            if status is not None:
                self._ended(child, status, now)

    def stop(self) -> None:
        """End all children: politely, then by force."""
        _end(list(reversed(self.children)))
        self.children.clear()

    def _ended(self, child: Child, status: int, now: float) -> None:
        if status == STAY_DOWN:
            child.down = True
            log.error("%s stays down: mend the cause that it named, then start again", child.name)
            return
        if status == START_AGAIN:
            child.pause = FIRST_PAUSE
            child.again_at = now
            log.info("%s starts afresh", child.name)
            return
        if now - child.started > STEADY:
            child.pause = FIRST_PAUSE
        child.again_at = now + child.pause
        why = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        log.warning("%s ended with %s; starting it again in %.1f s", child.name, why, child.pause)
        child.pause = min(2 * child.pause, LONGEST_PAUSE)


def _end(children: Sequence[Child]) -> None:
    alive = [child.process for child in children if child.process and child.process.poll() is None]
    for process in alive:
        process.terminate()
    deadline = time.monotonic() + STOP_WITHIN
    for process in alive:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
