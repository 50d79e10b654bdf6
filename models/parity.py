"""Parity: how far a graph is from the float32 reference in torch, on labelled texts and on made-up inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.backends import BACKENDS, missing, open_engine
from engines.bundle import Bundle, Manifest, Parity, active_folder, open_bundle
from engines.engine import Arrays, Engine, EngineError
from engines.onnx_cpu import OnnxCpu
from engines.text import clean, padded, softmax, wordpieces
from models.figures import macro_f1
from models.splits import Splits, official
from models.train import TrainingError
from streams.headlines.text import normalise

Probabilities = NDArray[np.float32]
BATCH = 8


class Limit(NamedTuple):
    """What an artefact of one precision may lose: share of labels that flip, macro F1, and by probe a probability."""

    flips: float
    macro_f1_loss: float
    probes: Mapping[str, float]


FEW = 1000  # texts; of fewer, two flips and what they cost are allowed: they are no sign of anything

# made-up tokens lie outside all that the scales were fixed on: int8 may differ there, but not by its neighbours
LIMITS = {
    "fp16": Limit(0.002, 0.001, {"one row": 0.02, "ragged": 0.02, "longest": 0.02, "padded tail": 0.02}),
    "int8": Limit(0.01, 0.003, {"one row": 0.6, "ragged": 0.6, "longest": 0.6, "padded tail": 0.02}),
}


@dataclass(frozen=True)
class Found:
    """What was measured of one artefact."""

    parity: Parity
    probes: dict[str, float]
    figures: dict[str, float]

    def told(self) -> str:
        """One line for a reader."""
        p = self.parity
        probes = ", ".join(f"{name} {value:.4f}" for name, value in self.probes.items())
        return (
            f"{p.label_flips} of {p.n} labels flip, {p.macro_f1_loss:.4f} macro F1 lost, largest difference "
            f"{p.max_difference:.4f}; made-up inputs: {probes}"
        )


class Proof:
    """The reference's answers, taken once, against which artefacts are compared."""

    def __init__(
        self, model: Any, tokenizer: bytes, splits: Splits, manifest: Manifest, threads: int
    ) -> None:
        import torch

        self._examples = splits.test
        self._manifest = manifest
        self._threads = threads
        tokenise = wordpieces(tokenizer, manifest.max_tokens)
        self._ids = tokenise([clean(normalise(example.text)) for example in self._examples])
        self._probes = probes(len(model.words), manifest.max_tokens)
        torch.set_num_threads(threads)

        def answer(inputs: Arrays) -> Probabilities:
            with torch.inference_mode():
                logits = model(*(torch.from_numpy(inputs[name]) for name in ("input_ids", "attention_mask")))
            return softmax(logits.numpy(), manifest.temperature)

        self._truth = by_length(answer, self._ids)
        self._probed = {name: answer(inputs) for name, inputs in self._probes.items()}

    def of(self, graph: bytes, precision: str) -> Found:
        """Compare a complete graph, on ONNX Runtime's CPU provider, with the reference."""
        from models.export import by_corpus, compare

        engine = OnnxCpu(graph, precision, self._manifest.max_tokens, self._threads)

        def answer(inputs: Arrays) -> Probabilities:
            return softmax(engine.infer(inputs), self._manifest.temperature)

        labels = np.array([example.label for example in self._examples], np.intp)
        try:
            found = by_length(answer, self._ids)
            if not np.isfinite(found).all():
                raise EngineError("it gives numbers that are not finite")
            differences = {
                name: round(float(np.abs(answer(inputs) - self._probed[name]).max()), 6)
                for name, inputs in self._probes.items()
                if name != "padded tail"
            }
            differences["padded tail"] = round(tail(answer, self._probes["padded tail"]), 6)
        finally:
            engine.close()
        return Found(
            compare(self._truth, found, labels, self._examples),
            differences,
            by_corpus(found, labels, self._examples),
        )


def probes(vocabulary: int, columns: int, seed: int = 11) -> dict[str, Arrays]:
    """Made-up token ids: one row, ragged lengths, the longest length, and rows whose tail is all padding."""
    chance = np.random.default_rng(seed)

    def ids(length: int) -> list[int]:
        return [int(i) for i in chance.integers(1, vocabulary, length)]

    short = padded([ids(max(2, columns // 8)) for _ in range(4)])
    width = columns - short["input_ids"].shape[1]
    return {
        "one row": padded([ids(max(2, columns // 4))]),
        "ragged": padded([ids(length) for length in (2, 3, columns // 4, columns // 2, columns)]),
        "longest": padded([ids(columns) for _ in range(4)]),
        "padded tail": {name: np.pad(array, ((0, 0), (0, width))) for name, array in short.items()},
    }


def tail(answer: Callable[[Arrays], Probabilities], inputs: Arrays) -> float:
    """How far an answer moves when a tail of nothing but padding is added: by rights, not at all."""
    length = int(inputs["attention_mask"].sum(axis=1).max())
    without = {name: np.ascontiguousarray(array[:, :length]) for name, array in inputs.items()}
    return float(np.abs(answer(inputs) - answer(without)).max())


def by_length(answer: Callable[[Arrays], Probabilities], ids: Sequence[Sequence[int]]) -> Probabilities:
    """Answers in the order of `ids`, taken in batches of nearly equal length."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    rows = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    found = np.concatenate([answer(padded([ids[i] for i in batch])) for batch in rows])
    placed = np.empty_like(found)
    placed[order] = found
    return placed


def demand(file: str, found: Found, limit: Limit) -> None:
    """Raise TrainingError where an artefact lost more than it may."""
    p = found.parity
    chance = 0.0 if p.n >= FEW else 2.0
    if p.label_flips > limit.flips * p.n + chance:
        raise TrainingError(
            f"{file} flips {p.label_flips} of {p.n} labels, at most {limit.flips:.1%} may flip"
        )
    if p.macro_f1_loss > limit.macro_f1_loss + 2 * chance / p.n:
        raise TrainingError(
            f"{file} loses {p.macro_f1_loss:.4f} macro F1, at most {limit.macro_f1_loss} is allowed"
        )
    for name, most in limit.probes.items():
        if not found.probes[name] <= most:
            raise TrainingError(
                f"{file} is {found.probes[name]:.4f} from the reference on made-up input ({name}), at most {most}"
            )


class BackendParity(NamedTuple):
    """A backend against torch on real headlines; `reason` says why it could not run, and the rest is nothing then."""

    engine: str
    n: int
    max_difference: float
    label_flips: int
    macro_f1_loss: float
    reason: str


def of_backends(
    bundles: Path | Bundle, data: Path, n: int = 5000, threads: int = 1, task: str = "news"
) -> list[BackendParity]:
    """Each backend of the table against the torch reference, on `n` labelled headlines of SEntFiN and TFNS.

    Headlines of all parts, test first: what is asked is whether two programs agree, and not how good they are.
    """
    bundle = bundles if isinstance(bundles, Bundle) else open_bundle(active_folder(bundles, task))
    manifest = bundle.manifest
    splits = official(data)
    examples = [*splits.test, *splits.validation, *splits.train][:n]
    labels = np.array([example.label for example in examples], np.intp)
    ids = wordpieces(bundle.read("tokenizer.json"), manifest.max_tokens)(
        [clean(normalise(example.text)) for example in examples]
    )

    def answers(engine: Engine) -> Probabilities:
        try:
            return by_length(lambda inputs: softmax(engine.infer(inputs), manifest.temperature), ids)
        finally:
            engine.close()

    truth = answers(open_engine(bundle, "torch", manifest.max_tokens, threads))
    classes = len(manifest.labels)
    best = macro_f1(labels, truth.argmax(axis=1), classes)
    listed = []
    runs = [(name, "") for name in BACKENDS if name != "torch"]
    runs += [("tensorrt", "int8")] if "tensorrt-int8" in manifest.engines else []
    for name, precision in runs:
        try:
            if lack := missing(name):
                raise EngineError(lack)
            engine = open_engine(bundle, name, manifest.max_tokens, threads, precision=precision)
            told = engine.name()
            found = answers(engine)
        except EngineError as error:
            listed.append(BackendParity(f"{name} {precision}".strip(), 0, 0.0, 0, 0.0, str(error)))
            continue
        listed.append(
            BackendParity(
                told,
                len(ids),
                float(np.abs(found - truth).max()),
                int((found.argmax(axis=1) != truth.argmax(axis=1)).sum()),
                best - macro_f1(labels, found.argmax(axis=1), classes),
                "",
            )
        )
    return listed
