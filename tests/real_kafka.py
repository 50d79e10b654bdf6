"""A real Apache Kafka for tests and benchmarks, run by a script that stands beside the checkout.

`TAPEWATCH_TEST_KAFKA` names the script; by default `../shared/kafka/kafka`. It needs Java.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from streams.launch.embedded import free_port

ROOT = Path(__file__).resolve().parent.parent
START_WITHIN = 240  # seconds; on a loaded machine Java alone takes minutes


def missing() -> str:
    """Why no real Kafka can be had here, an empty string where one can."""
    if not script().is_file():
        return f"no Kafka script at {script()} (set TAPEWATCH_TEST_KAFKA)"
    return "" if shutil.which("java") else "a real Kafka needs Java"


def script() -> Path:
    """The script that starts and crashes it."""
    return Path(os.environ.get("TAPEWATCH_TEST_KAFKA") or ROOT.parent / "shared" / "kafka" / "kafka")


class RealKafka:
    """One broker on a port of its own, its data under `folder`."""

    def __init__(self, folder: Path, extra: Path | None = None) -> None:
        self._folder = folder
        self._port = _free_pair()
        self._extra = extra

    @property
    def bootstrap(self) -> str:
        """The bootstrap server, `127.0.0.1:PORT`."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> Self:
        """Start; returns when the broker answers."""
        more = ("--extra", str(self._extra)) if self._extra is not None else ()
        try:
            self._patiently("start", "--port", str(self._port), *more)
        except BaseException:
            self.wipe()  # it may have come up since
            raise
        return self

    def kill(self) -> None:
        """Crash it."""
        self._run("kill")

    def resume(self) -> None:
        """Start it again on the same data; returns when it answers."""
        self._patiently("resume")

    def wipe(self) -> None:
        """Kill it and delete its data."""
        self._run("wipe")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.wipe()

    def _patiently(self, command: str, *arguments: str) -> None:
        """The script gives up after a minute, for which Java alone may take on a loaded machine: then go on waiting."""
        deadline = time.monotonic() + START_WITHIN
        while True:
            try:
                self._run(command, *arguments)
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                command, arguments = "resume", ()
            else:
                return

    def _run(self, command: str, *arguments: str) -> None:
        subprocess.run(
            [str(script()), command, "--dir", str(self._folder / "kafka"), *arguments],
            check=True,
            timeout=START_WITHIN,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C at the terminal is for the test run, which then wipes
        )


class SharedKafka:
    """One broker for all processes of a test run: the first that needs it starts it, the last that leaves wipes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._users = folder / "kafka-users.json"

    def __enter__(self) -> str:
        """The bootstrap server."""
        with self._state() as state:
            if not state["users"]:
                kafka = RealKafka(self._folder).start()
                state["bootstrap"] = kafka.bootstrap
            state["users"].append(os.getpid())
            return str(state["bootstrap"])

    def __exit__(self, *exc: object) -> None:
        with self._state() as state:
            state["users"].remove(os.getpid())
            if not state["users"]:
                RealKafka(self._folder).wipe()

    @contextlib.contextmanager
    def _state(self) -> Iterator[dict[str, Any]]:
        """Who uses it, for one process at a time; those that died are taken off."""
        with self._users.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            state = json.loads(file.read() or '{"users": []}')
            state["users"] = [pid for pid in state["users"] if Path(f"/proc/{pid}").exists()]
            try:
                yield state
            finally:
                file.truncate(0)
                file.write(json.dumps(state))


def _free_pair() -> int:
    """A free port whose successor is free too: the controller listens there."""
    while True:
        port = free_port()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
