"""From a fine-tuned classifier to a bundle: half-precision graph, int8 graph, parity, manifest, model card.

The model is what the half-precision graph holds: weights are rounded to half first, and the float32 reference, the
int8 graph and every figure are made from the rounded weights. So all of it can be made again from the bundle.
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import platform
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from engines.bundle import FORMAT, Artefact, Bundle, Manifest, Parity, discard, hashed, publish
from engines.onnx_cpu import OnnxCpu
from engines.text import TextClassifier, clean, padded, plan, softmax, wordpieces
from models.card import card
from models.encoder import Classifier, Shape
from models.figures import Labels, classification, macro_f1
from models.quantise import quantise
from models.splits import LABELS, Example, Splits
from models.train import TrainingError
from models.tuning import Corpus, logits
from streams.headlines.text import normalise

OPSET = 20
MAX_TOKENS = 128
BUCKETS = (16, 32, 64, 128)  # tokens: the shapes for which an engine with fixed profiles is built
CALIBRATION = 512  # training texts that fix the int8 scales and weights
PARITY = 5000  # texts on which the artefacts are compared with the float32 reference
INT8, HALF, TOKENIZER, CARD = "cpu-int8.onnx", "gpu-fp16.onnx", "tokenizer.json", "card.md"
MOST_LOSS = {INT8: 0.003, HALF: 0.001}  # of macro F1, each corpus
MOST_FLIPS = {INT8: 0.01, HALF: 0.002}  # share of texts whose label changes
TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "tokenizers", "numpy")


@dataclass(frozen=True)
class Origin:
    """What a bundle says of its making."""

    task: str
    version: str
    base: str
    recipe: str
    corpora: dict[str, str]  # name -> licence and source


def graph_of(model: Classifier, *, half: bool = False) -> onnx.ModelProto:
    """The ONNX graph of a classifier, float32 or half precision throughout, logits float32 in both."""
    model = copy.deepcopy(model).eval()
    model = model.half() if half else model.float()
    ids = torch.ones(2, 7, dtype=torch.int64)
    rows = torch.export.Dim("n", min=1, max=1024)
    length = torch.export.Dim("length", min=2, max=model.shape.positions)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's talk of its own inside
        program = torch.onnx.export(
            model,
            (ids, torch.ones_like(ids)),
            dynamo=True,
            opset_version=OPSET,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes=({0: rows, 1: length}, {0: rows, 1: length}),
        )
    if program is None:
        raise TrainingError("torch gave no ONNX program")
    graph = without_traces(program.model_proto)
    shape = model.shape
    onnx.helper.set_model_props(graph, {"heads": str(shape.heads), "epsilon": repr(shape.epsilon)})
    return graph


def without_traces(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The exported graph without what the exporter noted in it: the paths of the machine, shapes it had seen."""
    del graph.graph.value_info[:]
    for node in (graph, graph.graph, *graph.graph.node):
        del node.metadata_props[:]
        node.doc_string = ""
    return graph


def reference(graph: onnx.ModelProto) -> Classifier:
    """The torch classifier, in float32, whose weights a graph of `graph_of` holds."""
    found = {put.name: torch.from_numpy(numpy_helper.to_array(put).copy()) for put in graph.graph.initializer}
    properties = {item.key: item.value for item in graph.metadata_props}
    vocabulary, hidden = found["words"].shape
    shape = Shape(
        vocabulary=vocabulary,
        hidden=hidden,
        layers=len([name for name in found if name.endswith(".qkv.weight")]),
        heads=int(properties["heads"]),
        inner=found["layers.0.up.weight"].shape[1],
        positions=found["positions"].shape[0],
        epsilon=float(properties["epsilon"]),
    )
    model = Classifier(shape, found["head.weight"].shape[1])
    model.load_state_dict({name: found[name].float() for name in model.state_dict()})
    return model.eval()


def write_bundle(model: Classifier, tokenizer: Path, splits: Splits, origin: Origin, folder: Path) -> Bundle:
    """Export, prove parity on `parity_examples`, and publish; raises TrainingError and writes nothing otherwise."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        staged.chmod(0o755)
        return _stage(model, tokenizer, splits, origin, staged, folder)
    finally:
        discard(staged)


def _stage(
    model: Classifier, tokenizer: Path, splits: Splits, origin: Origin, staged: Path, folder: Path
) -> Bundle:
    (staged / TOKENIZER).write_bytes(tokenizer.read_bytes())
    half = graph_of(model, half=True)
    onnx.save(half, staged / HALF)
    rounded = reference(half)
    tokenise = wordpieces(tokenizer.read_bytes(), MAX_TOKENS)
    validation = Corpus(splits.validation, tokenise)
    temperature = best_temperature(logits(rounded, validation, exact=True), validation.labels)
    whole = graph_of(rounded)
    quantise(whole, calibration_batches(splits.train, tokenizer.read_bytes()))
    onnx.save(whole, staged / INT8)

    compared = parity_examples(splits)
    corpus = Corpus(compared, tokenise)
    truth = softmax(logits(rounded, corpus, exact=True), temperature)
    served: dict[str, NDArray[np.float32]] = {}
    parity: dict[str, Parity] = {}
    for name, precision in ((INT8, "int8"), (HALF, "fp16")):
        engine = OnnxCpu((staged / name).read_bytes(), precision, MAX_TOKENS, torch.get_num_threads())
        classifier = TextClassifier(engine, tokenise, LABELS, "staged", temperature)
        served[name] = classifier.probabilities([normalise(example.text) for example in compared])
        parity[name] = compare(truth, served[name], corpus.labels, compared)
        prove(name, parity[name])
    tested = served[INT8][: len(splits.test)]
    figures = by_corpus(tested, np.array([e.label for e in splits.test], np.intp), splits.test)
    manifest = Manifest(
        format=FORMAT,
        task=origin.task,
        version=origin.version,
        labels=LABELS,
        temperature=round(temperature, 4),
        max_tokens=MAX_TOKENS,
        buckets=BUCKETS,
        engines={"onnxruntime": Artefact(INT8, "int8"), "tensorrt": Artefact(HALF, "fp16")},
        files={},
        base=origin.base,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        data_sha256=splits.digest(),
        tools={"python": platform.python_version(), **{name: installed(name) for name in TOOLS}},
        parity=parity,
        figures=figures,
    )
    text = card(manifest, origin.recipe, origin.corpora, splits, tested)
    (staged / CARD).write_text(text, encoding="utf-8")
    for path in staged.iterdir():
        os.chmod(path, 0o644)
    return publish(staged, _with_files(manifest, staged), folder)


def _with_files(manifest: Manifest, staged: Path) -> Manifest:
    fields = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
    return Manifest(**{**fields, "files": hashed(staged)})


def calibration_batches(train: Sequence[Example], tokenizer: bytes) -> list[dict[str, NDArray[np.int64]]]:
    """Model inputs of CALIBRATION training texts, spread over the corpora."""
    texts = [clean(normalise(train[i].text)) for i in _calibrating(train)]
    ids = wordpieces(tokenizer, MAX_TOKENS)(texts)
    return [padded([ids[i] for i in rows]) for rows in plan([len(row) for row in ids], 16)]


def _calibrating(train: Sequence[Example]) -> list[int]:
    return np.unique(np.linspace(0, len(train) - 1, min(CALIBRATION, len(train)), dtype=int)).tolist()


def parity_examples(splits: Splits) -> list[Example]:
    """PARITY texts that calibration did not see: the test part first, then validation, then training texts."""
    calibrating = set(_calibrating(splits.train))
    rest = [example for i, example in enumerate(splits.train) if i not in calibrating]
    chosen = [*splits.test, *splits.validation]
    missing = max(0, min(PARITY - len(chosen), len(rest)))
    return [*chosen, *(rest[i] for i in np.linspace(0, len(rest) - 1, missing, dtype=int))]


def best_temperature(found: NDArray[np.float32], labels: Labels) -> float:
    """The temperature with the least cross-entropy (Guo et al. 2017), between 0.3 and 5."""
    grid = np.geomspace(0.3, 5.0, 200)
    rows = np.arange(len(labels))
    losses = [-np.log(np.maximum(softmax(found, float(t))[rows, labels], 1e-12)).mean() for t in grid]
    return float(grid[int(np.argmin(losses))])


def compare(
    truth: NDArray[np.float32], found: NDArray[np.float32], labels: Labels, examples: Sequence[Example]
) -> Parity:
    """How far `found` is from the reference's probabilities `truth`; the loss is that of the worst corpus."""
    gaps = np.abs(truth - found).max(axis=1)
    sources = np.array([example.corpus for example in examples])
    losses = []
    for source in sorted(set(sources)):
        part = sources == source
        before, after = (
            macro_f1(labels[part], p[part].argmax(axis=1), truth.shape[1]) for p in (truth, found)
        )
        losses.append(before - after)
    return Parity(
        n=len(labels),
        max_difference=round(float(gaps.max()), 6),
        mean_difference=round(float(gaps.mean()), 6),
        label_flips=int((truth.argmax(axis=1) != found.argmax(axis=1)).sum()),
        macro_f1_loss=round(max(losses), 6),
    )


def prove(name: str, parity: Parity) -> None:
    """Raise TrainingError where an artefact lost more than it may."""
    if parity.macro_f1_loss > MOST_LOSS[name]:
        raise TrainingError(
            f"{name} loses {parity.macro_f1_loss:.4f} macro F1, at most {MOST_LOSS[name]} is allowed"
        )
    if parity.label_flips > MOST_FLIPS[name] * parity.n:
        raise TrainingError(f"{name} flips {parity.label_flips} of {parity.n} labels, too many to publish")


def by_corpus(
    probabilities: NDArray[np.float32], labels: Labels, examples: Sequence[Example]
) -> dict[str, float]:
    """`<corpus>.accuracy` and so on of each corpus in the test part."""
    sources = np.array([example.corpus for example in examples])
    figures = {}
    for source in sorted(set(sources)):
        part = sources == source
        for name, value in classification(labels[part], probabilities[part]).items():
            figures[f"{source}.{name}"] = round(value, 6)
    return figures
