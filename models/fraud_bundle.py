"""From a trained fraud model to a bundle: graphs, leaves, settings, parity with what was trained, model card."""

from __future__ import annotations

import os
import platform
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.bundle import FORMAT, Artefact, Bundle, Manifest, Parity, discard, hashed, publish
from engines.onnx_cpu import OnnxCpu
from models import fraud_sequence, trees
from models.figures import macro_f1
from models.fraud_fit import Fitted
from models.train import TrainingError
from streams.payments.features import FEATURES, STEP, STEPS
from streams.payments.model import LEAVES, SETTINGS, Serving

TREES, SEQUENCE, HALF, CARD = "trees.onnx", "sequence-fp32.onnx", "sequence-fp16.onnx", "card.md"
LABELS = ("legitimate", "fraud")
MOST = {TREES: 1e-4, SEQUENCE: 1e-4, HALF: 0.02}  # a probability may differ from the reference by this much
PARITY_ROWS = 20_000
TOOLS = ("lightgbm", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")


class Origin(NamedTuple):
    """What a bundle says of its making."""

    version: str
    base: str
    data: str  # where it came from, with its licence
    data_sha256: str
    recipe: str


def write_bundle(
    fitted: Fitted,
    features: NDArray[np.float32],
    steps: NDArray[np.float32],
    figures: dict[str, float],
    costs: dict[str, float],
    origin: Origin,
    folder: Path,
) -> Bundle:
    """Export, prove parity on these rows, and publish; raises TrainingError and writes nothing otherwise."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        staged.chmod(0o755)
        return _stage(fitted, features, steps, figures, costs, origin, staged, folder)
    finally:
        discard(staged)


def _stage(
    fitted: Fitted,
    features: NDArray[np.float32],
    steps: NDArray[np.float32],
    figures: dict[str, float],
    costs: dict[str, float],
    origin: Origin,
    staged: Path,
    folder: Path,
) -> Bundle:
    if fitted.network is None:
        raise TrainingError("a bundle needs the sequence model too")
    (staged / TREES).write_bytes(trees.graph(fitted.ensemble).SerializeToString())
    (staged / LEAVES).write_bytes(trees.leaves(fitted.ensemble).dump())
    (staged / SEQUENCE).write_bytes(fraud_sequence.graph(fitted.network).SerializeToString())
    (staged / HALF).write_bytes(fraud_sequence.graph(fitted.network, half=True).SerializeToString())
    serving = Serving(FEATURES, STEP, STEPS, fitted.blend, costs)
    (staged / SETTINGS).write_bytes(msgspec.json.format(msgspec.json.encode(serving), indent=1) + b"\n")
    parity = prove(fitted, features, steps, staged)
    manifest = Manifest(
        format=FORMAT,
        task="transactions",
        version=origin.version,
        labels=LABELS,
        temperature=1.0,
        max_tokens=STEPS,
        buckets=(),
        engines={},
        files={},
        base=origin.base,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        data_sha256=origin.data_sha256,
        tools={"python": platform.python_version(), **{name: installed(name) for name in TOOLS}},
        parity=parity,
        figures={name: round(value, 6) for name, value in figures.items()},
        parts={
            "trees": {"onnxruntime": Artefact(TREES, "fp32")},
            "sequence": {
                "onnxruntime": Artefact(SEQUENCE, "fp32"),
                "tensorrt": Artefact(HALF, "fp16"),
            },
        },
    )
    (staged / CARD).write_text(card(manifest, fitted, origin, costs), encoding="utf-8")
    for path in staged.iterdir():
        os.chmod(path, 0o644)
    fields = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
    return publish(staged, Manifest(**{**fields, "files": hashed(staged)}), folder)


def prove(
    fitted: Fitted, features: NDArray[np.float32], steps: NDArray[np.float32], folder: Path
) -> dict[str, Parity]:
    """How far each graph is from LightGBM and torch, in the blended probability; raises TrainingError if too far."""
    rows = np.linspace(0, len(features) - 1, min(len(features), PARITY_ROWS)).astype(int)
    features, steps = features[rows], steps[rows]
    tree, other = fitted.parts(features, steps)
    truth = fitted.blend.probability(tree, other, features)
    found = {}
    for name in (TREES, SEQUENCE, HALF):
        engine = OnnxCpu((folder / name).read_bytes(), "fp32", len(FEATURES))
        made = engine.infer({"features": features} if name == TREES else {"steps": steps})[:, 0]
        engine.close()
        served = (made, other) if name == TREES else (tree, made)
        found[name] = _parity(truth, fitted.blend.probability(served[0], served[1], features))
        if found[name].max_difference > MOST[name]:
            raise TrainingError(
                f"{name} differs by {found[name].max_difference}, at most {MOST[name]} is allowed"
            )
    return found


def _parity(truth: NDArray[Any], served: NDArray[Any]) -> Parity:
    gaps = np.abs(truth - served)
    before, after = (truth > 0.5).astype(np.intp), (served > 0.5).astype(np.intp)
    return Parity(
        n=len(truth),
        max_difference=round(float(gaps.max()), 6),
        mean_difference=round(float(gaps.mean()), 6),
        label_flips=int((before != after).sum()),
        macro_f1_loss=round(macro_f1(before, before, 2) - macro_f1(before, after, 2), 6),
    )


def card(manifest: Manifest, fitted: Fitted, origin: Origin, costs: dict[str, float]) -> str:
    """The model card, after Mitchell et al. 2019."""
    blend, size = fitted.blend, sum(1 for _ in fitted.ensemble.trees())
    figures = [f"| {name} | {value:.4f} |" for name, value in manifest.figures.items()]
    parity = [
        f"| {name} | {p.n} | {p.max_difference:.6f} | {p.mean_difference:.6f} | {p.label_flips} |"
        for name, p in manifest.parity.items()
    ]
    lines = [
        f"# {manifest.task}/{manifest.version}",
        "",
        "The probability that a card payment is fraudulent, from its account's and its terminal's history.",
        "",
        "## Made of",
        "",
        f"- Data: {origin.data}; SHA-256 of the table `{origin.data_sha256}`",
        f"- Recipe: {origin.recipe}",
        f"- {size} trees on {len(FEATURES)} features (`streams/payments/features.py`); attention over the"
        f" account's last {STEPS} payments; a logistic regression of both: trees {blend.trees:.3f},"
        f" sequence {blend.sequence:.3f}, offset {blend.offset:.3f}; for accounts without habits"
        f" {blend.cold_offset:+.3f} and trees {blend.cold_trees:+.3f}, no sequence.",
        f"- Costs that the default thresholds come from: {', '.join(f'{k} {v:g}' for k, v in costs.items())}.",
        f"- Made on {manifest.created} with {', '.join(f'{k} {v}' for k, v in manifest.tools.items())}.",
        "",
        "## How good",
        "",
        "On payments of the training span, each judged by a model that had not seen its third of the span.",
        "",
        "| figure | value |",
        "|---|---|",
        *figures,
        "",
        "## Parity with LightGBM and torch (blended probability)",
        "",
        "| artefact | n | largest difference | mean | decisions at 0.5 that flip |",
        "|---|---|---|---|---|",
        *parity,
        "",
        "## Limits",
        "",
        "- It knows the fraud of its training data. Real fraud differs: train it on your own payments.",
        "- In the first days after a terminal is compromised, before anybody complains, its payments look like others.",
        "- It decides nothing: thresholds, costs and rules do. A decline harms an honest customer.",
        "",
    ]
    return "\n".join(lines)
