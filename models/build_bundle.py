"""`tapewatch models build`: a bundle's artefacts made anew from its weights, proved, and published.

The weights are those of the half-precision graph. From them come the torch reference, exported anew (dynamo) and
checked; the CPU's int8 graph; the GPU's half-precision graph and, where it keeps parity, one with explicit int8. Every
artefact is compared with the reference on labelled headlines and on made-up inputs; the GPU's are built into plans
where TensorRT-RTX is installed. A bundle that fails is not written.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.bundle import (
    FORMAT,
    Artefact,
    Bundle,
    Manifest,
    active_folder,
    discard,
    hashed,
    open_bundle,
    publish,
)
from engines.engine import EngineError
from engines.tensorrt_build import Profile, build_plan, builds_anywhere, library, profiles
from models.train import Period, TrainingError, next_version, official_splits, user_splits
from streams.settings import Settings

if TYPE_CHECKING:
    from models.splits import Splits

TARGETS = ("cpu", "gpu")
MOST_BYTES = 75_000_000  # of all files of a bundle
ARCHITECTURES = (80, 86, 89)  # for which plans are built as a check
CPU, HALF, INT8 = "cpu-int8.onnx", "gpu-fp16.onnx", "gpu-int8.onnx"
TOKENIZER, CARD = "tokenizer.json", "card.md"


class BuildError(Exception):
    """A bundle cannot be built, or failed its proof and was not written; the message is one line."""


@dataclass(frozen=True)
class Request:
    """What `tapewatch models build` was asked for."""

    task: str
    targets: tuple[str, ...]
    source: Path
    out: Path
    threads: int


def build(
    task: str,
    targets: str,
    source: str | None,
    files: Sequence[str],
    mapping: Mapping[str, str],
    out: str | None,
    settings: Settings,
) -> Path:
    """Build the next version of `task` (or the folder `out`) from the bundle `source` (by default the active one).

    `targets` are among cpu and gpu, separated by commas; what is not named is taken over. `files` are labelled
    headlines for calibration and parity, by default the sets in TAPEWATCH_DATA. Returns the bundle's folder;
    raises BuildError, BundleError, TrainingError or DataFileError.
    """
    wanted = tuple(dict.fromkeys(name.strip() for name in targets.split(",")))
    if unknown := set(wanted) - set(TARGETS):
        raise BuildError(
            f"--targets {targets}: {', '.join(sorted(unknown))!r} is none of {', '.join(TARGETS)}"
        )
    for needed in ("torch", "onnx", "onnxscript"):
        if find_spec(needed) is None:
            raise BuildError(f"building a bundle needs {needed}: run `make setup-train`")
    folder = Path(out) if out else next_version(settings.bundles / task, datetime.now(UTC))
    if folder.exists():
        raise BuildError(
            f"{folder} exists; a published bundle is never changed, name another folder with --out"
        )
    bundle = open_bundle(Path(source) if source else active_folder(settings.bundles, task))
    if "tensorrt" not in bundle.manifest.engines or TOKENIZER not in bundle.manifest.files:
        raise BuildError(f"{bundle.folder}: no half-precision graph and tokenizer to build from")
    splits = user_splits(files, mapping, Period()) if files else official_splits(None)
    request = Request(task, wanted, bundle.folder, folder, settings.threads or 1)
    return build_from(bundle, splits, request).folder


def build_from(bundle: Bundle, splits: Splits, request: Request) -> Bundle:
    """Stage, prove and publish; nothing is left behind otherwise."""
    folder = request.out
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        staged.chmod(0o755)
        manifest = _stage(bundle, splits, request, staged)
        size = sum(file.bytes for file in manifest.files.values())
        if size > MOST_BYTES:
            raise BuildError(
                f"{folder.name} has {size / 1e6:.1f} MB, a bundle has at most {MOST_BYTES / 1e6:.0f}"
            )
        return publish(staged, manifest, folder)
    except (EngineError, TrainingError) as error:
        raise BuildError(f"{folder.name} is not written: {error}") from None
    finally:
        discard(staged)


def _stage(bundle: Bundle, splits: Splits, request: Request, staged: Path) -> Manifest:
    import onnx

    from models import parity
    from models.export import TOOLS, calibration_batches, graph_of, reference
    from models.quantise import quantise
    from models.quantise_gpu import completed, with_scales

    old = bundle.manifest
    half_file = old.engines["tensorrt"].file
    model = reference(onnx.load_from_string(bundle.read(half_file)))
    tokenizer = bundle.read(TOKENIZER)
    (staged / TOKENIZER).write_bytes(tokenizer)
    calibration = calibration_batches(splits.train, tokenizer)
    engines: dict[str, Artefact] = {}
    half = (
        graph_of(model, half=True)
        if "gpu" in request.targets
        else onnx.load_from_string(bundle.read(half_file))
    )
    content = half.SerializeToString() if "gpu" in request.targets else bundle.read(half_file)
    onnx.checker.check_model(half, full_check=True)
    (staged / HALF).write_bytes(content)
    engines["tensorrt"] = Artefact(HALF, "fp16")
    _say(f"{HALF}: exported and checked")
    if "cpu" in request.targets:
        whole = graph_of(model)
        onnx.checker.check_model(whole, full_check=True)
        quantise(whole, calibration)
        onnx.save(whole, staged / CPU)
        engines["onnxruntime"] = Artefact(CPU, "int8")
        _say(f"{CPU}: exported, checked, quantised on {len(calibration)} batches")
    elif "onnxruntime" in old.engines:
        (staged / CPU).write_bytes(bundle.read(old.engines["onnxruntime"].file))
        engines["onnxruntime"] = Artefact(CPU, old.engines["onnxruntime"].precision)

    proof = parity.Proof(model, tokenizer, splits, old, request.threads)
    found = {}
    for key in ("onnxruntime", "tensorrt"):
        if key in engines:
            file = engines[key].file
            found[file] = proof.of((staged / file).read_bytes(), engines[key].precision)
            parity.demand(file, found[file], parity.LIMITS[engines[key].precision])
            _say(f"{file}: {found[file].told()}")
    if "gpu" in request.targets:
        _stage_int8(with_scales(half, calibration), content, proof, staged, engines, found)
    elif (kept := old.engines.get("tensorrt-int8")) is not None:
        _stage_int8(completed(bundle.read(kept.file), content), content, proof, staged, engines, found)
    wanted = profiles(old.buckets, old.max_tokens)
    fields = {name: getattr(old, name) for name in old.__struct_fields__}
    tools = {"python": platform.python_version(), **{name: installed(name) for name in TOOLS}}
    served = engines["onnxruntime"].file if "onnxruntime" in engines else HALF
    changed = {
        "format": FORMAT,
        "task": request.task,
        "version": request.out.name,
        "engines": engines,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "tools": tools,
        "parity": {name: one.parity for name, one in found.items()},
        "probes": {name: one.probes for name, one in found.items()},
        "figures": found[served].figures,
        "profiles": tuple(tuple(profile) for profile in wanted),
        "built": _plans(engines, staged, wanted),
    }
    (staged / CARD).write_text(_card(bundle, request, found), encoding="utf-8")
    for path in staged.iterdir():
        path.chmod(0o644)
    return Manifest(**{**fields, **changed, "files": hashed(staged)})


def _stage_int8(
    graph: Any,
    content: bytes,
    proof: Any,
    staged: Path,
    engines: dict[str, Artefact],
    found: dict[str, Any],
) -> None:
    """The GPU's int8 graph, where it keeps parity; where it does not, a line says so."""
    from models import parity
    from models.quantise_gpu import sharing

    one = proof.of(graph.SerializeToString(), "int8")
    try:
        parity.demand(INT8, one, parity.LIMITS["int8"])
    except TrainingError as error:
        _say(f"left out: {error}")
        return
    (staged / INT8).write_bytes(sharing(graph, content, HALF))
    engines["tensorrt-int8"] = Artefact(INT8, "int8", (HALF,))
    found[INT8] = one
    _say(f"{INT8}: {one.told()}")


def _plans(
    engines: Mapping[str, Artefact], staged: Path, wanted: Sequence[Profile]
) -> dict[str, tuple[str, ...]]:
    """Build a plan of each GPU graph for all architectures, to see that it can be; plans are not kept."""
    try:
        trt = library()
    except EngineError as error:
        _say(f"no plans were built: {error}")
        return {}
    built = {}
    for key, artefact in engines.items():
        if not key.startswith("tensorrt"):
            continue
        data = {name: (staged / name).read_bytes() for name in artefact.data}
        # the RTX library builds for any architecture, the other one for the GPU that is here
        for_all = ARCHITECTURES if builds_anywhere(trt) else ()
        plan = build_plan(trt, (staged / artefact.file).read_bytes(), wanted, data, for_all)
        names = tuple(f"SM{architecture}" for architecture in for_all) or ("this GPU",)
        built[artefact.file] = (f"{trt.__name__} {trt.__version__}", *names)
        _say(f"{artefact.file}: a plan of {len(plan) / 1e6:.1f} MB builds for {', '.join(names)}")
    return built


def _card(bundle: Bundle, request: Request, found: Mapping[str, Any]) -> str:
    """The source's card, and below it what this build proved."""
    card = bundle.read(CARD).decode() if CARD in bundle.manifest.files else f"# {request.task}\n"
    card = card.partition("\n## This build\n")[0].rstrip()
    lines = [f"- {name}: {one.told()}" for name, one in found.items()]
    made = f"From {bundle.model} by `tapewatch models build`, against the float32 reference in torch:"
    return "\n".join([card, "", "## This build", "", made, "", *lines, ""])


def _say(what: str) -> None:
    sys.stderr.write(f"{what}\n")
    sys.stderr.flush()
