"""Texts in, calibrated probabilities out: cleaning, tokens, length buckets, engine, temperature.

Padding is work for nothing, so texts are sorted by length and run in small batches of nearly equal length;
the answers are put back in order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from engines.backends import open_engine
from engines.bundle import Bundle, active_folder, open_bundle
from engines.engine import Engine, EngineError
from engines.swap import HotSwap, Version, active_version
from engines.tiny import LABELS as TINY_LABELS
from engines.tiny import TinyEngine
from engines.tiny import tokenise as tiny_tokenise
from engines.turns import Turns

CHARACTERS_A_TOKEN = 64  # beyond max_tokens times this, a text is cut before it is tokenised

_LINK = re.compile(r"(?:https?://|www\.)\S*")

Tokenise = Callable[[Sequence[str]], list[list[int]]]

_in_use: WeakValueDictionary[tuple[str, int], Tokenise] = WeakValueDictionary()


def clean(text: str, longest: int = 8192) -> str:
    """The text as models see it, in training too: no links, single spaces, at most `longest` characters."""
    cut = text[:longest].encode("utf-8", "ignore").decode("utf-8")  # a lone surrogate has no UTF-8
    return " ".join(_LINK.sub(" ", cut).split())


def plan(lengths: Sequence[int], rows: int = 64, tokens: int = 128) -> list[NDArray[np.intp]]:
    """Which texts run together: positions by length, each once, in batches of at most `rows`.

    A batch of more than one is at most `tokens` large with its padding (rows times its longest).
    """
    order = np.argsort(np.asarray(lengths, np.intp), kind="stable")
    batches, start = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or end - start == rows or (end + 1 - start) * lengths[order[end]] > tokens:
            batches.append(order[start:end])
            start = end
    return batches


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

    May be called from several threads: they take turns at the engine, batch by batch, in the order of their asking, so
    that a single text never waits for all of another caller's.
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
        self.model: str = model
        self.engine = runtime.name()
        self.limits = runtime.limits()
        self._runtime = runtime
        self._tokenise = tokenise
        self._temperature = temperature
        self._turns = Turns()
        self._longest = self.limits.columns * CHARACTERS_A_TOKEN

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids, at least one and at most `limits.columns` a text."""
        return self._tokenise([clean(text, self._longest) for text in texts])

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Calibrated probabilities [n, len(labels)], finite, rows sum to 1, in the order of `texts`.

        A text of any length is taken: what is beyond the model's reach is cut off. Raises EngineError.
        """
        logits = np.zeros((len(texts), len(self.labels)), np.float32)
        if not len(texts):
            return logits
        ids = self.tokens(texts)
        for rows in plan([len(row) for row in ids], self.limits.rows, self.limits.tokens):
            arrays = padded([ids[i] for i in rows])
            with self._turns:
                logits[rows] = self._runtime.infer(arrays)
        if not np.isfinite(logits).all():
            raise EngineError(f"{self.model} on {self.engine} gave a number that is not finite")
        return softmax(logits, self._temperature)

    def warm(self) -> None:
        """Make the first real batch as fast as the next."""
        self._runtime.warm()
        self.probabilities(["Shares rise after the company reports a record quarter"])

    def close(self) -> None:
        """Let go of the engine, when the batch that runs now is done."""
        with self._turns:
            self._runtime.close()


def open_classifier(bundles: Path, task: str, engine: str = "auto", threads: int = 1) -> TextClassifier:
    """The active model of `task` on the engine named, or on the fastest that this machine has (`auto`).

    `tiny` needs no bundle and is for tests. Raises EngineError or BundleError, one line each.
    """
    if engine == "tiny":
        if task not in TINY_LABELS:
            raise EngineError(f"the engine `tiny` knows no task {task!r}, only {', '.join(TINY_LABELS)}")
        return TextClassifier(TinyEngine(), tiny_tokenise, TINY_LABELS[task], f"{task}/tiny")
    return from_bundle(open_bundle(active_folder(bundles, task)), engine, threads)


def open_serving(
    bundles: Path, task: str, engine: str, threads: int, labels: tuple[str, ...]
) -> HotSwap[TextClassifier]:
    """As `open_classifier`, warm, and swapped when another version is activated; its columns are always `labels`.

    Raises EngineError or BundleError.
    """

    if engine == "tiny":
        return serve_always(open_classifier(bundles, task, engine), labels)
    return HotSwap(
        lambda folder: _checked(from_bundle(open_bundle(folder), engine, threads), labels),
        lambda: active_version(bundles, task),
        lambda serving: threads == 1 and _keeps_no_threads(serving.engine),
    )


def serve_always(classifier: TextClassifier, labels: tuple[str, ...]) -> HotSwap[TextClassifier]:
    """A classifier that no other takes over from; raises EngineError where its columns are not `labels`."""
    version = Version(Path(), 0)
    return HotSwap(lambda _: _checked(classifier, labels), lambda: version)


def _keeps_no_threads(engine: str) -> bool:
    """Whether an engine of one thread runs in its caller's; OpenVINO and CUDA have threads of their own."""
    return engine.startswith("onnxruntime-") and "cuda" not in engine


def _checked(opened: TextClassifier, labels: tuple[str, ...]) -> TextClassifier:
    if opened.labels == labels:
        return opened
    opened.close()
    raise EngineError(f"{opened.model} has the labels {opened.labels}, not {labels}")


def from_bundle(bundle: Bundle, engine: str = "auto", threads: int = 1) -> TextClassifier:
    """The model of one bundle; raises EngineError where it has no graph for the engine."""
    manifest = bundle.manifest
    runtime = open_engine(bundle, engine, manifest.max_tokens, threads)
    tokenise = _tokeniser(bundle)
    return TextClassifier(runtime, tokenise, manifest.labels, bundle.model, manifest.temperature)


def _tokeniser(bundle: Bundle) -> Tokenise:
    """The bundle's tokeniser, or the one of a model in use with the same file.

    To make one takes 40 ms in which no other thread of Python runs: a hot swap should not cost that.
    """
    columns = bundle.manifest.max_tokens
    content = bundle.read("tokenizer.json")
    key = (bundle.manifest.files["tokenizer.json"].sha256, columns)
    found = _in_use.get(key)
    if found is None:
        found = _in_use[key] = wordpieces(content, columns)
    return found


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
