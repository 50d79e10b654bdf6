"""Texts in, calibrated probabilities out: cleaning, tokens, length buckets, engine, temperature.

Padding is work for nothing, so texts are sorted by length and run in small batches of nearly equal length;
the answers are put back in order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.bundle import Bundle, active_folder, open_bundle
from engines.engine import Engine, EngineError
from engines.tiny import LABELS as TINY_LABELS
from engines.tiny import TinyEngine
from engines.tiny import tokenise as tiny_tokenise

BATCH = 8  # rows: as good as 32 per sentence, and a batch of 32 waits for its longest text
CHARACTERS_A_TOKEN = 64  # beyond max_tokens times this, a text is cut before it is tokenised
ENGINES = ("auto", "onnxruntime", "openvino", "tensorrt", "torch")

_LINK = re.compile(r"(?:https?://|www\.)\S*")

Tokenise = Callable[[Sequence[str]], list[list[int]]]


def clean(text: str, longest: int = 8192) -> str:
    """The text as models see it, in training too: no links, single spaces, at most `longest` characters."""
    cut = text[:longest].encode("utf-8", "ignore").decode("utf-8")  # a lone surrogate has no UTF-8
    return " ".join(_LINK.sub(" ", cut).split())


def plan(lengths: Sequence[int], rows: int = BATCH) -> list[NDArray[np.intp]]:
    """Which texts run together: batches of at most `rows` positions, each position once, by length."""
    order = np.argsort(np.asarray(lengths, np.intp), kind="stable")
    return [order[start : start + rows] for start in range(0, len(order), rows)]


def padded(ids: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int64]]:
    """Token ids as `input_ids` and `attention_mask`, both [n, longest], padded with 0 on the right."""
    lengths = np.fromiter(map(len, ids), np.intp, len(ids))
    mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
    grid = np.zeros(mask.shape, np.int64)
    grid[mask] = np.concatenate([np.asarray(row, np.int64) for row in ids]) if len(ids) else 0
    return {"input_ids": grid, "attention_mask": mask.astype(np.int64)}


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Rows that sum to one; a temperature above one flattens them (Guo et al. 2017, calibration)."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


class TextClassifier:
    """A loaded model: `labels` of its columns, `model` (`news/2026.11.1`) and `engine` as records name them.

    Not thread-safe: one caller at a time.
    """

    def __init__(
        self,
        runtime: Engine,
        tokenise: Tokenise,
        labels: tuple[str, ...],
        model: str,
        temperature: float = 1.0,
    ) -> None:
        self.labels = labels
        self.model = model
        self.engine = runtime.name()
        self._runtime = runtime
        self._tokenise = tokenise
        self._temperature = temperature
        limits = runtime.limits()
        self._rows = min(BATCH, limits.rows)
        self._longest = limits.columns * CHARACTERS_A_TOKEN

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Calibrated probabilities [n, len(labels)], finite, rows sum to 1, in the order of `texts`.

        A text of any length is taken: what is beyond the model's reach is cut off. Raises EngineError.
        """
        logits = np.zeros((len(texts), len(self.labels)), np.float32)
        if not len(texts):
            return logits
        ids = self._tokenise([clean(text, self._longest) for text in texts])
        for rows in plan([len(row) for row in ids], self._rows):
            logits[rows] = self._runtime.infer(padded([ids[i] for i in rows]))
        if not np.isfinite(logits).all():
            raise EngineError(f"{self.model} on {self.engine} gave a number that is not finite")
        return softmax(logits, self._temperature)

    def warm(self) -> None:
        """Make the first real batch as fast as the next."""
        self._runtime.warm()
        self.probabilities(["Shares rise after the company reports a record quarter"])

    def close(self) -> None:
        """Let go of the engine."""
        self._runtime.close()


def open_classifier(bundles: Path, task: str, engine: str = "auto", threads: int = 1) -> TextClassifier:
    """The active model of `task` on the engine named, or on the fastest that this machine has (`auto`).

    `tiny` needs no bundle and is for tests. Raises EngineError or BundleError, one line each.
    """
    if engine == "tiny":
        if task not in TINY_LABELS:
            raise EngineError(f"the engine `tiny` knows no task {task!r}, only {', '.join(TINY_LABELS)}")
        return TextClassifier(TinyEngine(), tiny_tokenise, TINY_LABELS[task], f"{task}/tiny")
    if engine not in ENGINES:
        raise EngineError(f"unknown engine {engine!r}; known are {', '.join(ENGINES)}")
    return from_bundle(open_bundle(active_folder(bundles, task)), engine, threads)


def from_bundle(bundle: Bundle, engine: str = "auto", threads: int = 1) -> TextClassifier:
    """The model of one bundle; raises EngineError where it has no graph for the engine."""
    manifest = bundle.manifest
    wanted = "onnxruntime" if engine == "auto" else engine
    artefact = manifest.engines.get(wanted)
    if wanted != "onnxruntime" or artefact is None:
        raise EngineError(f"no backend of this build runs {bundle.model} on {wanted!r}; use onnxruntime")
    from engines.onnx_cpu import OnnxCpu  # a test with `tiny` loads no runtime

    runtime = OnnxCpu(bundle.read(artefact.file), artefact.precision, manifest.max_tokens, threads)
    tokenise = wordpieces(bundle.read("tokenizer.json"), manifest.max_tokens)
    return TextClassifier(runtime, tokenise, manifest.labels, bundle.model, manifest.temperature)


def wordpieces(definition: bytes, max_tokens: int) -> Tokenise:
    """A function from texts to token ids, at most `max_tokens` each, special tokens included."""
    from tokenizers import Tokenizer

    # a thread pool for 100 us of work costs more than it gains, and takes the cores of other workers
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizer = Tokenizer.from_buffer(definition)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)

    def tokenise(texts: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in tokenizer.encode_batch_fast(list(texts))]

    return tokenise
