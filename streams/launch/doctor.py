"""`tapewatch doctor`: what this machine has, what is missing, and how to get it. Changes nothing."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from engines.backends import BACKENDS, missing, open_chosen
from engines.bundle import BundleError, active_folder, list_bundles, open_bundle
from engines.engine import EngineError
from engines.machine import has_gpu
from streams import topics
from streams.launch.footprint import installed
from streams.launch.join import NothingRuns, joined, running_here
from streams.pipelines import PIPELINES, all_topics
from streams.settings import Settings
from streams.state.store import Refused, Store, Unavailable
from streams.state.vitals import health

DISTRIBUTIONS = {  # whose versions say what an engine is
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-rtx-cu13-bindings"),
    "onnxruntime-cuda": ("onnxruntime-gpu",),
    "torch": ("torch",),
}


def examine(settings: Settings) -> list[dict[str, Any]]:
    """One row a thing: what, whether it is well, what is known of it and what to do."""
    rows = [
        _row(
            "machine",
            True,
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        )
    ]
    rows += list(_engines(settings))
    rows.append(_row("serving environment", True, _size()))
    rows += list(_bundles(settings))
    try:
        live = joined(settings)
    except NothingRuns as error:
        return [*rows, _row("broker and store", False, str(error))]
    if settings.embedded:
        running = running_here(settings)[0]
        rows.append(_row("up", True, f"process {running.pid}, dashboard {running.dashboard or 'none'}"))
    rows.append(_tried("broker", lambda: _broker(live)))
    rows.append(_tried("store", lambda: _store(live)))
    rows += list(_workers(live))
    return rows


def _engines(settings: Settings) -> Iterator[dict[str, Any]]:
    for name, distributions in DISTRIBUTIONS.items():
        found = [told for distribution in distributions if (told := _version(distribution))]
        lack = missing(name)
        if lack is None and not found:
            lack = f"{' or '.join(distributions)} is not installed: {BACKENDS[name].remedy}"
        note = ", ".join(found)
        if lack is None and name in ("tensorrt", "onnxruntime-cuda") and not has_gpu():
            note += "; no NVIDIA GPU with a driver here, so it can build plans but not run them"
        yield _row(f"engine {name}", None if lack else True, lack or note)
    for task in sorted({spec.bundle for spec in PIPELINES.values() if spec.bundle}):
        yield _tried(f"engine for {task}", lambda task=task: _chosen(settings, task))  # type: ignore[misc]


def _size() -> str:
    found = installed()
    largest = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in found.largest)
    return f"{found.bytes / 1e6:.0f} MB in {found.distributions} distributions (the largest: {largest})"


def _chosen(settings: Settings, task: str) -> str:
    """Which engine serves a task and why, opened and warmed as a worker does it."""
    if settings.engine == "tiny":
        return "tiny, named by TAPEWATCH_ENGINE: for tests"
    bundle = open_bundle(active_folder(settings.bundles, task))
    began = time.monotonic()
    told = []
    for part in ("", *bundle.manifest.parts) if bundle.manifest.engines else tuple(bundle.manifest.parts):
        engine, choice = open_chosen(bundle, settings.engine, threads=settings.threads or 1, part=part)
        engine.warm()
        where = f"{part}: " if part else ""
        told.append(f"{where}{choice.wanted} takes {engine.name()} ({choice.why})")
        told += [f"{name} was preferred and failed: {why}" for name, why in choice.refused.items()]
        engine.close()
    return f"{'; '.join(told)}; warm in {time.monotonic() - began:.1f} s"


def _version(distribution: str) -> str:
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return ""


def _bundles(settings: Settings) -> Iterator[dict[str, Any]]:
    count = 0
    for listed in list_bundles(settings.bundles):
        count += 1
        note = listed.problem or ("active" if listed.active else "not active")
        yield _row(f"bundle {listed.task}/{listed.version}", not listed.problem, note)
    if not count:
        yield _row("bundles", False, f"none in {settings.bundles}; set TAPEWATCH_BUNDLES")
    for spec in PIPELINES.values():
        if spec.bundle:
            yield _tried(f"bundle files {spec.bundle}", lambda task=spec.bundle: _hashes(settings, task))  # type: ignore[misc]


def _hashes(settings: Settings, task: str) -> str:
    bundle = open_bundle(active_folder(settings.bundles, task))
    for name in bundle.manifest.files:
        bundle.read(name)
    return f"{bundle.model}: {len(bundle.manifest.files)} files, every hash right"


def _broker(settings: Settings) -> str:
    names = all_topics(settings)
    missing = [name for name, life in topics.topic_ids(settings.kafka, names).items() if life is None]
    if missing:
        raise topics.TopicsError(f"no topic {', '.join(missing)}: run `tapewatch topics create`")
    return f"{settings.kafka} answers, all {len(names)} topics exist"


def _store(settings: Settings) -> str:
    store = Store(settings.redis, settings.prefix)
    info: Any = store.call(lambda: store.client.info())
    policy: Any = store.call(lambda: store.client.config_get("maxmemory-policy"))
    kind = (
        f"valkey {info['valkey_version']}" if "valkey_version" in info else f"redis {info['redis_version']}"
    )
    if policy.get("maxmemory-policy") != "noeviction":
        raise Unavailable(f"{kind} may evict keys and count twice: set maxmemory-policy noeviction")
    return f"{kind}, {info['used_memory'] / 2**20:.1f} MB used"


def _workers(settings: Settings) -> Iterator[dict[str, Any]]:
    store = Store(settings.redis, settings.prefix)
    try:
        beats = health(store, PIPELINES).workers
    except Unavailable:
        return
    for name in PIPELINES:
        mine = [beat for beat in beats if beat.pipeline == name]
        for beat in mine:
            told = f"process {beat.pid} on {beat.host}, {beat.behind} records behind"
            yield _row(f"worker {name}", True, f"{told}, metrics http://{beat.metrics}/metrics")
        if not mine:
            yield _row(f"worker {name}", False, f"none runs: `tapewatch worker {name}`")


def _tried(what: str, work: Callable[[], str]) -> dict[str, Any]:
    try:
        return _row(what, True, work())
    except (BundleError, EngineError, topics.TopicsError, Refused, Unavailable) as error:
        return _row(what, False, str(error))


def _row(what: str, ok: bool | None, note: str) -> dict[str, Any]:
    return {"what": what, "ok": ok, "note": note}
