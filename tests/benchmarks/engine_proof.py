"""Rows of `tapewatch bench engine` that prove rather than race: parity of backends, plans built, what serving costs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engines.bundle import Artefact, Bundle, BundleError, active_folder, open_bundle
from engines.engine import EngineError
from engines.tensorrt_build import build_plan, library, profiles
from engines.threads import cores
from models.splits import data_folder
from streams.launch.footprint import installed, ready_seconds
from streams.settings import Settings
from tests.benchmarks.rows import row

HEADLINES = 5000
ARCHITECTURES = (80, 86, 89)
FLIPS, LOSS = 0.01, 0.003  # of labels; of macro F1 (0.3 points)


def parity(bundle: Bundle) -> list[dict[str, Any]]:
    """Each backend that runs here against torch: largest difference, label flips, loss of macro F1."""
    if not (find_spec("torch") and data_folder().is_dir()):
        print("parity not measured: it takes the extra `train` and the data folder", file=sys.stderr)
        return []
    from models.parity import of_backends

    found = []
    for one in of_backends(bundle, data_folder(), HEADLINES, cores()):
        if one.reason:
            print(f"parity of {one.engine} not measured: {one.reason}", file=sys.stderr)
            continue
        name, against = f"engine.parity.{one.engine}", f"torch, {one.n} real headlines"
        flips, loss = one.label_flips / one.n, one.macro_f1_loss
        found += [
            row(f"{name}.max_difference", [one.max_difference], "probability", n=one.n, against=against),
            row(f"{name}.label_flips", [flips], "share", n=one.n, against=against, at_most=FLIPS),
            row(f"{name}.macro_f1_loss", [loss], "macro F1", n=one.n, against=against, at_most=LOSS),
        ]
    return found


def plans(bundles: Path) -> list[dict[str, Any]]:
    """How many GPU graphs of active bundles TensorRT builds here, each with every profile for each architecture."""
    try:
        trt = library()
    except EngineError as error:
        print(f"plans not built: {error}", file=sys.stderr)
        return []
    # the RTX library builds for any architecture, the other one for the GPU that is here
    wanted = ARCHITECTURES if trt.__name__.startswith("tensorrt_rtx") else ()
    built = asked = 0
    for bundle, artefact in _gpu_graphs(bundles):
        asked += 1
        data = {name: bundle.read(name) for name in artefact.data}
        buckets = profiles(bundle.manifest.buckets, bundle.manifest.max_tokens)
        try:
            build_plan(trt, bundle.read(artefact.file), buckets, data, wanted)
            built += 1
        except EngineError as error:
            print(f"{bundle.model}/{artefact.file}: {error}", file=sys.stderr)
    where = ", ".join(f"SM {number}" for number in wanted) or "the GPU that is here"
    against = f"{trt.__name__} {trt.__version__}, {where}, all profiles"
    return (
        [row("engine.plans_built", [built / asked], "share", n=asked, against=against, at_least=1.0)]
        if asked
        else []
    )


def footprint(settings: Settings, rounds: int) -> list[dict[str, Any]]:
    """Size of the serving environment, and how long a new process takes from its first import to a warm engine."""
    taken = installed()
    times, engine = [], ""
    for _ in range(rounds):
        seconds, engine = ready_seconds(settings, "news", settings.engine)
        times.append(seconds)
    largest = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in taken.largest)
    return [
        row(
            "engine.install_size",
            [taken.bytes / 1e6],
            "MB",
            n=taken.distributions,
            against=f"largest: {largest}",
        ),
        row("engine.import_to_ready", times, "s", against=f"a new process, {engine}", at_most=3.0),
    ]


def _gpu_graphs(bundles: Path) -> Iterator[tuple[Bundle, Artefact]]:
    """The GPU graphs of each active bundle, those of its parts too."""
    for path in sorted(bundles.glob("*/active")):
        try:
            bundle = open_bundle(active_folder(bundles, path.parent.name))
        except BundleError as error:
            print(error, file=sys.stderr)
            continue
        for engines in (bundle.manifest.engines, *bundle.manifest.parts.values()):
            yield from ((bundle, found) for key, found in engines.items() if key.startswith("tensorrt"))
