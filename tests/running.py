"""`tapewatch up` as a child process of a test, and the little that a test needs to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN = 90.0
STOP_WITHIN = 10.0


@dataclass
class Up:
    """A running `up`: its process, its environment, and the addresses of its ready line."""

    process: subprocess.Popen[str]
    environment: dict[str, str]
    kafka: str
    redis: str
    dashboard: str
    seconds: float  # until the ready line

    def tapewatch(self, *arguments: str, data: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command that joins this `up`."""
        return tapewatch(*arguments, environment=self.environment, data=data)

    def table(self, *arguments: str) -> list[dict[str, Any]]:
        """What a command prints with `--json`."""
        done = self.tapewatch(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    def produce(self, records: Sequence[tuple[str, bytes | None]], topic: str = "tapewatch.news") -> None:
        """Put raw (key, value) pairs on a topic."""
        with ThreadPoolExecutor(
            1
        ) as aside:  # the caller's thread may run a loop of its own (Playwright does)
            aside.submit(asyncio.run, produce(self.kafka, topic, records)).result()


def tapewatch(
    *arguments: str, environment: dict[str, str] | None = None, data: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command of the front door."""
    return subprocess.run(
        [sys.executable, "-m", "tapewatch", *arguments],
        env=environment or dict(os.environ),
        cwd=ROOT,
        input=data,
        capture_output=True,
        text=True,
        timeout=240,
    )


@contextlib.contextmanager
def running_up(run_dir: Path, *flags: str, **settings: str) -> Iterator[Up]:
    """`tapewatch up FLAGS`, ended at the end of the block; `settings` such as engine="tiny"."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TAPEWATCH_")}
    environment |= {f"TAPEWATCH_{name.upper()}": value for name, value in settings.items()}
    environment["TAPEWATCH_RUN_DIR"] = str(run_dir)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "tapewatch", "up", *flags],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        ready = json.loads(_first_line(process))
        assert ready["event"] == "ready"
        seconds = time.monotonic() - began
        yield Up(process, environment, ready["kafka"], ready["redis"], ready["dashboard"], seconds)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_WITHIN + 5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def produce(bootstrap: str, topic: str, records: Sequence[tuple[str, bytes | None]]) -> None:
    """Publish raw (key, value) pairs in order."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_request_size=1_500_000)
    await producer.start()
    try:
        for future in [await producer.send(topic, value, key=key.encode()) for key, value in records]:
            await future
    finally:
        await producer.stop()


def headline(identity: str, title: str, at: float, **fields: Any) -> tuple[str, bytes]:
    """A headline as (key, value); `at` in unix seconds."""
    ts = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z"
    return identity, json.dumps(
        {"id": identity, "ts": ts, "source": "wire", "title": title, **fields}
    ).encode()


def children_of(pid: int) -> set[int]:
    """The process ids of all descendants."""
    found: set[int] = set()
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    fresh = {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def resident_bytes(pids: set[int]) -> int:
    """Resident memory of processes; shared pages count once for each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return total


def alive(pids: set[int]) -> set[int]:
    """Those that still run (a zombie does not)."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split())[0] != "Z":
                found.add(pid)
    return found


def _first_line(process: subprocess.Popen[str]) -> str:
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout
    threading.Thread(target=lambda out=process.stdout: lines.put(out.readline()), daemon=True).start()
    line = lines.get(timeout=READY_WITHIN)
    assert line, f"`up` ended with status {process.wait()} before it was ready"
    return line
