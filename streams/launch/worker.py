"""One worker: one pipeline in this process (`python -m streams.launch.worker news`); or several, supervised.

Exit status: 0 after a signal, START_AGAIN when broker or store have changed under it, STAY_DOWN when most
records failed or what it needs cannot be opened, 1 otherwise.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

from engines.bundle import BundleError
from engines.engine import EngineError
from engines.threads import cores, share
from streams import topics, transport
from streams.agent import Agent, StartAgain
from streams.endpoint import Answer, Lookup
from streams.guard import TooManyFailures
from streams.headlines.entities import GazetteerError
from streams.launch.logs import set_up_logging
from streams.launch.supervise import START_AGAIN, STAY_DOWN, Supervisor
from streams.metrics import Metrics
from streams.pipelines import PIPELINES, open_pipeline
from streams.publisher import Publisher
from streams.rulebook import RulebookError
from streams.settings import Settings, SettingsError, read_settings
from streams.state.store import LostPlace, Store

log = logging.getLogger("tapewatch.worker")

MAX_RECORDS = 512  # records that are handed to the guard at once
EMBEDDED_FETCH_WAIT = 10  # ms; Tansu holds a fetch half that long, records or not
WAIT_FOR_TOPICS = 1.0  # seconds between two looks


class AllDown(RuntimeError):
    """No pipeline can run, and starting again would not help."""


@runtime_checkable
class Swapping(Protocol):
    """A pipeline whose model is swapped when another version is activated."""

    def watch(self, noted: Callable[[bool], object]) -> None:
        """Look for it beside the stream, and tell what came of it."""


@runtime_checkable
class Answering(Protocol):
    """A pipeline that answers single callers over HTTP."""

    def posts(self) -> dict[str, Answer]:
        """Path -> answer to a POSTed body."""


@runtime_checkable
class LookedUp(Protocol):
    """A pipeline of whose state single things are looked up over HTTP."""

    def gets(self) -> dict[str, Lookup]:
        """Beginning of a path, with its last slash -> answer to a GET."""


def run_one(settings: Settings, name: str) -> int:
    """Run one pipeline until SIGTERM or SIGINT; returns the exit status."""
    store = Store(settings.redis, settings.prefix, dedupe_hours=settings.dedupe_hours)
    try:
        pipeline = open_pipeline(name, settings, store, settings.threads or cores())
    except (BundleError, EngineError, GazetteerError, RulebookError, SettingsError) as error:
        log.error("%s", error)
        return STAY_DOWN
    metrics = Metrics(name, store)
    posts = pipeline.posts() if isinstance(pipeline, Answering) else {}
    gets = pipeline.gets() if isinstance(pipeline, LookedUp) else {}
    try:
        address = metrics.serve(settings.metrics_host, settings.metrics_port, posts, gets)
    except OSError as error:
        log.error("TAPEWATCH_METRICS_PORT: %s cannot be used: %s", settings.metrics_port, error.strerror)
        return STAY_DOWN
    log.info("metrics at http://%s", ", ".join(f"{address}{path}" for path in ("/metrics", *posts, *gets)))
    if isinstance(pipeline, Swapping):
        pipeline.watch(partial(metrics.swap, name))
    sources = [settings.topic(source) for source in PIPELINES[name].sources]
    embedded = _is_embedded()
    publisher = Publisher(settings.kafka, idempotent=False if embedded else None)
    agent = Agent(name, pipeline, settings, store, publisher, metrics)
    app = transport.make_app(
        f"{settings.prefix}-{name}",
        bootstrap=settings.kafka,
        group=settings.group(name),
        max_batch_records=MAX_RECORDS,
        fetch_wait_ms=EMBEDDED_FETCH_WAIT if embedded else None,
        start_offsets=agent.start_offsets,
    )
    agent.bind(transport.Intake(app))
    transport.consume(app, sources, agent.handle, MAX_RECORDS)

    async def finish(*_: object, **__: object) -> None:
        await agent.finish()

    app.on_before_shutdown.connect(finish, weak=False)
    if not _wait_for_topics(settings, sources):
        return 0
    ended = transport.run(app, agent.run)
    agent.close()
    return _status(agent.failure, ended)


def run_many(settings: Settings, names: Sequence[str]) -> None:
    """Run each pipeline in a process of its own, until a signal; raises AllDown when none can run."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    supervisor = Supervisor()
    inferring = sum(bool(PIPELINES[name].bundle) for name in names)
    threads = settings.threads or share(inferring)
    for index, name in enumerate(names):
        port = settings.metrics_port and settings.metrics_port + index
        own = {"TAPEWATCH_METRICS_PORT": str(port), "TAPEWATCH_THREADS": str(threads)}
        environment = {**os.environ, **settings.environment(), **own}
        supervisor.add(name, [sys.executable, "-m", "streams.launch.worker", name], environment)
    try:
        while not stopping.wait(0.25):
            supervisor.check(time.monotonic())
            if all(child.down for child in supervisor.children):
                raise AllDown(f"{', '.join(names)}: cannot run; the reason stands above")
    finally:
        supervisor.stop()


def _is_embedded() -> bool:
    """Whether `up` says that the broker is the embedded one, which needs settings of its own."""
    return os.environ.get("TAPEWATCH_EMBEDDED") == "1"


def _wait_for_topics(settings: Settings, sources: Sequence[str]) -> bool:
    """Wait until the source topics exist; False when a signal came first."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    said = False
    while not stopping.is_set():
        try:
            missing = [
                name for name, life in topics.topic_ids(settings.kafka, sources).items() if life is None
            ]
            problem = f"no topic {', '.join(missing)}; `tapewatch topics create` makes it" if missing else ""
        except topics.TopicsError as error:
            problem = str(error)
        if not problem:
            return True
        if not said:
            log.warning("waiting: %s", problem)
            said = True
        stopping.wait(WAIT_FOR_TOPICS)
    return False


def _status(failure: Exception | None, status: int) -> int:
    """The exit status: by what ended the agent, or else the app's own."""
    match failure:
        case None:
            return status
        case StartAgain() | LostPlace():
            log.info("starting afresh: %s", failure)
            return START_AGAIN
        case TooManyFailures():
            log.error("stopped: %s", failure)
            return STAY_DOWN
        case _:
            log.error("the agent failed: %s", failure, exc_info=failure)
            return 1


def main() -> None:
    """The process of one worker; the pipeline is the only argument."""
    name = sys.argv[1]
    try:
        settings = read_settings()
    except SettingsError as error:
        sys.exit(f"{name}: {error}")
    set_up_logging(name, settings.log_level)
    sys.exit(run_one(settings, name))


if __name__ == "__main__":
    main()
