"""The cache of TensorRT plans: a folder of this user's alone, every plan hashed, keyed by all that it depends on.

A plan is executable code. It is taken only from a folder that no other user can write to, and only if its SHA-256 is
the one that was noted when it was built here; anything else is built again from the bundle's verified graph.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

import msgspec

from engines.engine import EngineError
from engines.tensorrt_build import Profile

KEPT = 8  # plans; the one unused for longest goes


class PlanKey(msgspec.Struct, frozen=True):
    """What a plan depends on; another value of any of these is another plan."""

    graph: str  # SHA-256 over the hashes of the graph's files
    library: str  # `tensorrt 11.0.0`
    gpu: str  # the device's name
    capability: str  # `8.9`
    precision: str
    profiles: tuple[Profile, ...]

    def name(self) -> str:
        """The file's name: a hash of the whole key."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:32]


class _Noted(msgspec.Struct, frozen=True):
    key: PlanKey
    sha256: str


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/tapewatch/plans`, or the same in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tapewatch" / "plans"


class PlanCache:
    """Plans in a folder; raises EngineError where the folder cannot be trusted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise EngineError(f"{folder}: the cache of plans is not a folder of this user; remove it")
            folder.chmod(0o700)
        except OSError as error:
            raise EngineError(f"{folder}: no cache of plans: {error.strerror}") from None

    def read(self, key: PlanKey) -> bytes | None:
        """The plan built here for exactly this key, or None: there is none, or it is not as it was written."""
        path = self._folder / f"{key.name()}.plan"
        try:
            noted = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=_Noted)
            plan = path.read_bytes()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        if noted.key != key or hashlib.sha256(plan).hexdigest() != noted.sha256:
            return None
        os.utime(path)
        return plan

    def write(self, key: PlanKey, plan: bytes) -> None:
        """Keep a plan: whole or not at all, readable by this user alone; the oldest beyond KEPT go."""
        noted = _Noted(key, hashlib.sha256(plan).hexdigest())
        path = self._folder / f"{key.name()}.plan"
        path.with_suffix(".json").unlink(missing_ok=True)  # never a note beside another plan
        self._put(path, plan)
        self._put(path.with_suffix(".json"), msgspec.json.encode(noted))
        plans = sorted(self._folder.glob("*.plan"), key=lambda found: found.stat().st_mtime_ns)
        for old in plans[:-KEPT]:
            old.with_suffix(".json").unlink(missing_ok=True)
            old.unlink(missing_ok=True)

    def _put(self, path: Path, content: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=self._folder)  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
