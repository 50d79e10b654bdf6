"""What serving costs before its first record: the size of what is installed, and the time until an engine is ready."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from engines.engine import EngineError
from streams.settings import Settings

# a fresh interpreter, from its first import to a warm engine, as a worker has it
READY = """
import sys, time
began = time.perf_counter()
from pathlib import Path
from engines.text import open_classifier
opened = open_classifier(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
opened.warm()
print(time.perf_counter() - began, opened.engine)
"""


class Installed(NamedTuple):
    """What the serving environment holds on disk."""

    distributions: int
    bytes: int
    largest: tuple[tuple[str, int], ...]  # the five that take most


def installed(root: str = "tapewatch") -> Installed:
    """Size of a distribution's dependencies and of theirs, without any extra: what `make setup` installs."""
    sizes: dict[str, int] = {}
    waiting = [root]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in sizes:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:  # for another platform
            continue
        sizes[name] = _bytes(found)
        for line in found.requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                waiting.append(needed.name)
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    return Installed(len(sizes), sum(sizes.values()), tuple(largest))


def ready_seconds(settings: Settings, task: str, engine: str = "auto", threads: int = 1) -> tuple[float, str]:
    """Seconds from the first import of a new process to a warm engine, and that engine's name; raises EngineError."""
    command = [sys.executable, "-c", READY, str(settings.bundles), task, engine, str(threads)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        told = ended.stderr.strip().splitlines()[-1:] or ["no word"]
        raise EngineError(f"the engine {engine!r} of {task!r} did not become ready: {told[0]}")
    seconds, name = ended.stdout.split()
    return float(seconds), name


def _bytes(found: Distribution) -> int:
    total = 0
    for path in found.files or ():
        try:
            total += path.locate().stat().st_size  # type: ignore[attr-defined]  # a pathlib.Path where files are
        except OSError:
            continue
    return total
