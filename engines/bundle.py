"""A bundle: the folder of one published model, with a manifest that names and hashes every file in it.

    <bundles>/<task>/<version>/manifest.json, card.md, tokenizer.json, cpu-int8.onnx, gpu-fp16.onnx, ...
    <bundles>/<task>/active                   the version that serves, and below it the one that served before

No file is deserialised before its SHA-256 was compared; a bundle is never changed after it was published.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

FORMAT = 1
MANIFEST = "manifest.json"
ACTIVE = "active"

_PlainName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]


class BundleError(Exception):
    """A bundle is missing, damaged or not what it says; the message is one line."""


class File(msgspec.Struct, frozen=True):
    """What the manifest says of one file."""

    sha256: str
    bytes: int


class Artefact(msgspec.Struct, frozen=True):
    """A graph for one kind of engine, and the files that it needs beside it."""

    file: _PlainName
    precision: str
    data: tuple[_PlainName, ...] = ()


class Parity(msgspec.Struct, frozen=True):
    """How far an artefact is from the float32 reference on `n` test texts (calibrated probabilities)."""

    n: int
    max_difference: float
    mean_difference: float
    label_flips: int
    macro_f1_loss: float


class Manifest(msgspec.Struct, frozen=True):
    """Everything that serving and audit need to know of a model; `figures` are of its CPU artefact."""

    format: int
    task: str
    version: str
    labels: tuple[str, ...]
    temperature: Annotated[float, msgspec.Meta(gt=0)]
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=8192)]
    buckets: tuple[int, ...]
    engines: dict[str, Artefact]
    files: dict[_PlainName, File]
    base: str
    created: str
    data_sha256: str
    tools: dict[str, str]
    parity: dict[str, Parity]
    figures: dict[str, float]
    parts: dict[
        _PlainName, dict[str, Artefact]
    ] = {}  # of a model of several graphs: part -> engine -> artefact
    thresholds: dict[str, float] = {}  # of decisions that were tuned with the model
    profiles: tuple[tuple[int, int, int], ...] = ()  # TensorRT's: usual rows, most rows, columns
    probes: dict[str, dict[str, float]] = {}  # file -> made-up input -> largest difference of a probability
    built: dict[str, tuple[str, ...]] = {}  # file -> architectures for which a plan was built, with the tool

    def artefacts(self) -> Iterator[Artefact]:
        """Every graph of the bundle, the only one or those of its parts."""
        for engines in (self.engines, *self.parts.values()):
            yield from engines.values()


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: every file was there with the size and hash that the manifest names."""

    folder: Path
    manifest: Manifest

    @property
    def model(self) -> str:
        """`<task>/<version>`, as derived records name it."""
        return f"{self.manifest.task}/{self.manifest.version}"

    def read(self, name: str) -> bytes:
        """The verified bytes of a file: what is returned is what was hashed. Raises BundleError."""
        expected = self.manifest.files.get(name)
        if expected is None:
            raise BundleError(f"{self.folder}: the manifest names no file {name}")
        try:
            content = (self.folder / name).read_bytes()
        except OSError as error:
            raise BundleError(f"{self.folder / name}: {error.strerror}; restore it or train again") from None
        if len(content) != expected.bytes:
            raise BundleError(
                f"{self.folder / name}: {len(content)} bytes, the manifest says {expected.bytes}"
            )
        if hashlib.sha256(content).hexdigest() != expected.sha256:
            raise BundleError(f"{self.folder / name}: its SHA-256 is not the manifest's; it was changed")
        return content


def open_bundle(folder: Path) -> Bundle:
    """Open and verify a bundle; raises BundleError with one line that names the file at fault."""
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; not a bundle") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: not a manifest: {error}") from None
    if manifest.format != FORMAT:
        raise BundleError(f"{path}: format {manifest.format}, this program reads format {FORMAT}")
    needed = {name for artefact in manifest.artefacts() for name in (artefact.file, *artefact.data)}
    if unknown := needed - set(manifest.files):
        raise BundleError(f"{path}: no hash for {', '.join(sorted(unknown))}")
    bundle = Bundle(folder, manifest)
    for name in manifest.files:
        bundle.read(name)
    return bundle


def active_folder(bundles: Path, task: str) -> Path:
    """The folder of the version that serves `task`; raises BundleError where none is named."""
    return bundles / task / _versions(bundles, task)[0]


def _versions(bundles: Path, task: str) -> list[str]:
    """The version that serves and, where one is remembered, the one before it."""
    path = bundles / task / ACTIVE
    try:
        versions = path.read_text(encoding="utf-8").split("\n", 2)[:2]
    except OSError:
        raise BundleError(f"no active bundle for {task!r} in {bundles} (set TAPEWATCH_BUNDLES)") from None
    except UnicodeDecodeError:
        raise BundleError(f"{path}: it is no text; activate a version again") from None
    versions = [version.strip() for version in versions]
    if versions[1:] == [""]:
        del versions[1]
    for version in versions:
        if not version or "/" in version or version.startswith(".") or not version.isprintable():
            raise BundleError(f"{path}: {version!r} is not the name of a version")
    return versions


class Listed(msgspec.Struct, frozen=True):
    """One line of `tapewatch models list`; `problem` is empty where the bundle is whole."""

    task: str
    version: str
    active: bool
    labels: tuple[str, ...]
    engines: tuple[str, ...]
    bytes: int
    figures: dict[str, float]
    problem: str


def list_bundles(bundles: Path) -> Iterator[Listed]:
    """Every bundle in a folder, verified, by task and version; a damaged one comes with its problem."""
    for folder in sorted(path.parent for path in bundles.glob(f"*/[!.]*/{MANIFEST}")):
        task, version = folder.parent.name, folder.name
        try:
            active = active_folder(bundles, task) == folder
        except BundleError:
            active = False
        try:
            manifest = open_bundle(folder).manifest
        except BundleError as error:
            yield Listed(task, version, active, (), (), 0, {}, str(error))
            continue
        size = sum(file.bytes for file in manifest.files.values())
        engines = tuple(f"{name}-{artefact.precision}" for name, artefact in manifest.engines.items())
        yield Listed(task, version, active, manifest.labels, engines, size, manifest.figures, "")


def hashed(folder: Path) -> dict[str, File]:
    """Size and hash of every file in a folder but the manifest."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST:
            content = path.read_bytes()
            found[path.name] = File(hashlib.sha256(content).hexdigest(), len(content))
    return found


def publish(staged: Path, manifest: Manifest, destination: Path) -> Bundle:
    """Write the manifest into `staged`, and make the folder `destination` of it in one atomic step.

    `staged` must be on the same file system. What is published was read back and verified; an existing
    bundle is never replaced. Raises BundleError.
    """
    if destination.exists():
        raise BundleError(f"{destination} exists; a published bundle is never changed, name another version")
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (staged / MANIFEST).write_bytes(text + b"\n")
    for path in (*staged.iterdir(), staged):
        _to_disk(path)
    open_bundle(staged)
    destination.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(destination)
    _to_disk(destination.parent)
    return open_bundle(destination)


def activate(bundles: Path, task: str, version: str) -> None:
    """Let `version` serve `task`; running workers change over. Raises BundleError if it is not whole.

    The version that served until now is remembered in the same atomic step, for `rollback`.
    """
    if "/" in version or version.startswith("."):
        raise BundleError(f"{version!r} is not the name of a version")
    manifest = open_bundle(bundles / task / version).manifest
    if manifest.task != task:
        raise BundleError(f"{bundles / task / version} is a bundle of {manifest.task!r}, not of {task!r}")
    try:
        before = _versions(bundles, task)
    except BundleError:
        before = []
    kept = [name for name in before if name != version][:1]
    path = bundles / task / ACTIVE
    fresh = path.with_name(f".{ACTIVE}.{os.getpid()}")
    fresh.write_text("".join(f"{name}\n" for name in (version, *kept)), encoding="utf-8")
    _to_disk(fresh)
    fresh.replace(path)
    _to_disk(path.parent)


def rollback(bundles: Path, task: str) -> str:
    """Activate the version that served before, and return its name; a second call goes back again.

    Raises BundleError where none is remembered or it is not whole; what serves stays then.
    """
    versions = _versions(bundles, task)
    if len(versions) < 2:
        raise BundleError(f"no earlier version of {task!r} is remembered; activate one by name")
    activate(bundles, task, versions[1])
    return versions[1]


def discard(staged: Path) -> None:
    """Remove a folder that was not published."""
    shutil.rmtree(staged, ignore_errors=True)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def as_builtins(listed: Listed) -> Mapping[str, object]:
    """A line of the list as plain JSON values."""
    plain: Mapping[str, object] = msgspec.to_builtins(listed)
    return plain
