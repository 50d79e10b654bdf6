"""How commands find the `up` that runs on this machine: a small file it keeps while it runs."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
from msgspec import Struct

from streams.settings import Settings, SettingsError


class NothingRuns(RuntimeError):
    """No `tapewatch up` runs on this machine, and no broker and store are set."""


class Running(Struct):
    """What `up` tells others about itself."""

    pid: int
    kafka: str
    redis: str
    prefix: str
    started_at: float
    dashboard: str = ""
    metrics: dict[str, str] = {}


def run_folder(settings: Settings) -> Path:
    """The folder of the run files; it must be this user's own."""
    if str(settings.run_dir) not in ("", "."):
        return settings.run_dir
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base) / "tapewatch" if base else Path(tempfile.gettempdir()) / f"tapewatch-{os.getuid()}"


def announce(settings: Settings, running: Running) -> Path:
    """Write (or replace) the run file of this process; returns its path, for removal at the end."""
    folder = run_folder(settings)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(folder):
        raise SettingsError(f"TAPEWATCH_RUN_DIR: {folder} belongs to another user; name a folder of your own")
    path = folder / f"up-{running.pid}.json"
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.encode(running))
    fresh.replace(path)
    return path


def running_here(settings: Settings) -> list[Running]:
    """Every `up` of this user that is alive, the newest first; what a killed one left is removed."""
    found: list[Running] = []
    if not _is_ours(run_folder(settings)):
        return found  # what another user says there is not believed
    for path in run_folder(settings).glob("up-*.json"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            running = msgspec.json.decode(path.read_bytes(), type=Running)
            if _alive(running.pid):
                found.append(running)
            else:
                path.unlink(missing_ok=True)
    return sorted(found, key=lambda running: running.started_at, reverse=True)


def joined(settings: Settings) -> Settings:
    """The settings with broker and store filled in: as they are set, or those of the `up` that runs here.

    Raises NothingRuns with one line that says what to do.
    """
    if not settings.embedded:
        return settings
    for running in running_here(settings):
        if running.prefix == settings.prefix:
            return replace(settings, kafka=running.kafka, redis=running.redis)
    raise NothingRuns(
        "no `tapewatch up` runs on this machine: start one, or set TAPEWATCH_KAFKA and TAPEWATCH_REDIS"
    )


@contextlib.contextmanager
def announced(settings: Settings, running: Running) -> Iterator[None]:
    """While the block runs, others find this process."""
    path = announce(settings, running)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # leaves nothing behind when it was the last


def _is_ours(folder: Path) -> bool:
    """Whether the folder is this user's and nobody else can write in it."""
    try:
        status = folder.stat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
