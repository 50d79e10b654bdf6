"""`tapewatch up`: everything on this machine, in one command.

Broker and store (embedded ones unless set), topics, workers, dashboard, samples; supervised until a signal ends it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

from engines.threads import share
from streams.launch.commands import create_topics
from streams.launch.embedded import EmbeddedBroker, EmbeddedStore, free_port, port_taken
from streams.launch.join import Running, announced
from streams.launch.supervise import Child, Supervisor
from streams.pipelines import PIPELINES
from streams.settings import Settings
from streams.state.store import Store, Unavailable
from streams.topics import partition_counts

log = logging.getLogger("tapewatch.up")

READY_WITHIN = 120.0  # seconds
POLL = 0.25
USUAL_PORT = 8501  # of the dashboard
WATCH_EVERY = 2.0  # seconds between two looks at the broker's memory
REPLAY_KEPT = 15  # seconds that the word about the replay lasts


class NotReady(RuntimeError):
    """Workers or dashboard did not come up in time; the message says which."""


def run(settings: Settings, *, dashboard: bool, replay: Sequence[str], workers: int, port: int) -> None:
    """Run all until SIGINT or SIGTERM; prints one JSON line on standard output when ready.

    `port` 0 is a free one. Raises EmbeddedError or NotReady.
    """
    stopping = _stop_on_signals()
    with contextlib.ExitStack() as stack:
        broker, store_server, settings = _servers(settings, stack)
        supervisor = Supervisor()
        stack.callback(supervisor.stop)
        store = Store(settings.redis, settings.prefix)
        stack.callback(store.close)
        up = _Up(settings, supervisor, store, broker, store_server, stopping)
        up.make_topics()
        for name in PIPELINES:
            for number in range(workers):
                up.start_worker(name, number, workers)
        address = up.start_dashboard(port) if dashboard else ""
        if replay:
            up.start_replay(replay)
        running = Running(
            pid=os.getpid(),
            kafka=settings.kafka,
            redis=settings.redis,
            prefix=settings.prefix,
            started_at=time.time(),
            dashboard=address,
        )
        stack.enter_context(announced(settings, running))
        up.wait_until_ready(address)
        if not stopping.is_set():
            _say_ready(settings, address)
        up.watch()
        print("tapewatch: stopping", file=sys.stderr)


class _Up:
    """What runs, and the loop that watches it."""

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        store: Store,
        broker: EmbeddedBroker | None,
        store_server: EmbeddedStore | None,
        stopping: threading.Event,
    ) -> None:
        self.settings = settings
        self.supervisor = supervisor
        self.store = store
        self.broker = broker
        self.store_server = store_server
        self.stopping = stopping
        self.replay: Child | None = None
        self.partitions: dict[str, int] = {}
        self.replaying: dict[str, Any] = {}
        self._environment = {
            **os.environ,
            **settings.environment(),
            "TAPEWATCH_EMBEDDED": str(int(broker is not None)),
        }

    def make_topics(self) -> None:
        create_topics(self.settings)
        sources = [self.settings.topic(source) for spec in PIPELINES.values() for source in spec.sources]
        self.partitions = partition_counts(
            self.settings.kafka, sources
        )  # those of topics that were there stay

    def start_worker(self, name: str, number: int, workers: int) -> None:
        inferring = sum(bool(spec.bundle) for spec in PIPELINES.values())
        threads = self.settings.threads or share(workers * inferring)
        environment = {**self._environment, "TAPEWATCH_THREADS": str(threads), "TAPEWATCH_METRICS_PORT": "0"}
        command = [sys.executable, "-m", "streams.launch.worker", name]
        self.supervisor.add(f"{name}-{number + 1}", command, environment)

    def start_dashboard(self, port: int) -> str:
        port = port or (free_port() if port_taken(USUAL_PORT) else USUAL_PORT)
        command = [sys.executable, "-m", "tapewatch", "dashboard", "--port", str(port)]
        self.supervisor.add("dashboard", command, self._environment)
        return f"http://127.0.0.1:{port}"

    def start_replay(self, samples: Sequence[str]) -> None:
        command = [sys.executable, "-m", "streams.launch.replay", *samples]
        self.replaying = {"sample": ", ".join(samples), "since": time.time(), "paused": None}
        self.replay = self.supervisor.add("replay", command, self._environment)

    def wait_until_ready(self, dashboard: str) -> None:
        deadline = time.monotonic() + READY_WITHIN
        missing = ["everything"]
        while missing and not self.stopping.is_set():
            if time.monotonic() > deadline:
                raise NotReady(f"not ready after {READY_WITHIN:.0f} s: {', '.join(missing)}")
            self.supervisor.check(time.monotonic())
            if down := [child.name for child in self.supervisor.children if child.down]:
                raise NotReady(f"{', '.join(down)} cannot run; the reason stands above")
            missing = [name for name in PIPELINES if not self._assigned(name)]
            if dashboard and not _answers(dashboard + "/_stcore/health"):
                missing.append("dashboard")
            self.stopping.wait(0.05)

    def watch(self) -> None:
        """Until a signal: children, servers, the broker's memory."""
        next_watch = 0.0
        while not self.stopping.wait(POLL):
            now = time.monotonic()
            self._revive_servers()
            self.supervisor.check(now)
            if now >= next_watch:
                next_watch = now + WATCH_EVERY
                self._watch_memory()

    def _assigned(self, name: str) -> bool:
        """Whether the workers of this pipeline own all partitions of its topics."""
        try:
            known: Any = self.store.client.zrange(self.store.keys.workers(), 0, -1)
            kept: Any = self.store.client.mget(known) if known else []
            beats = [json.loads(beat) for beat in kept if beat]
        except Exception as error:
            log.debug("store: %s", error)
            return False
        owned = sum(beat["assigned"] for beat in beats if beat["pipeline"] == name)
        wanted = sum(self.partitions[self.settings.topic(source)] for source in PIPELINES[name].sources)
        return bool(owned >= wanted)

    def _revive_servers(self) -> None:
        if self.store_server is not None and not self.store_server.alive():
            log.error("the embedded store died; a new one starts empty and is filled again from the broker")
            self.store_server.start()
        if self.broker is not None and not self.broker.alive():
            log.error(
                "the embedded broker died and its topics with it; new ones are made, workers start afresh"
            )
            self.broker.start()
            self.make_topics()

    def _watch_memory(self) -> None:
        if self.broker is not None:
            held, bound = self.broker.rss_bytes() / 2**20, self.settings.broker_memory_mb
            self.replaying |= {"broker_mb": round(held), "bound_mb": bound}
            if held > bound and self.replay is not None:
                reason = (
                    f"sources paused: the embedded broker holds {held:.0f} MB of {bound} and never frees any; "
                    "start `tapewatch up` again, or set TAPEWATCH_KAFKA and TAPEWATCH_REDIS"
                )
                log.warning("%s", reason)
                self.supervisor.remove(self.replay)
                self.replay = None
                self.replaying["paused"] = reason
        if "sample" in self.replaying:
            key, word = self.store.keys.replay(), json.dumps(self.replaying)
            with contextlib.suppress(Unavailable):
                self.store.call(lambda: self.store.client.set(key, word, ex=REPLAY_KEPT))


def _servers(
    settings: Settings, stack: contextlib.ExitStack
) -> tuple[EmbeddedBroker | None, EmbeddedStore | None, Settings]:
    if not settings.embedded:
        return None, None, settings
    store = stack.enter_context(EmbeddedStore(maxmemory_mb=settings.store_memory_mb))
    broker = stack.enter_context(EmbeddedBroker())
    return broker, store, replace(settings, kafka=broker.bootstrap, redis=store.url)


def _say_ready(settings: Settings, dashboard: str) -> None:
    line = {"event": "ready", "kafka": settings.kafka, "redis": settings.redis, "dashboard": dashboard}
    print(json.dumps(line), flush=True)
    where = f"the dashboard is at {dashboard}" if dashboard else "no dashboard"
    print(f"tapewatch: ready; {where}; Ctrl-C ends it", file=sys.stderr, flush=True)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as reply:  # noqa: S310 - our own child on loopback
            return bool(reply.status == 200)
    except OSError:
        return False


def _stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set; a second SIGINT ends the process at once."""
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if stopping.is_set() and number == signal.SIGINT:
            os._exit(130)  # children get their death signal from the kernel
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return stopping
