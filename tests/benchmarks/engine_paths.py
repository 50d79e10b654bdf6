"""Throughput rows of `tapewatch bench engine`: our path against other ways to run the same weights on the same texts.

One inference thread each, interleaved within each round. Ours takes raw texts by the batch of a pipeline. The bare loop
is what a specialist would write without us: runtime and batch size are tried out first and the best is taken, tokens,
order and padded arrays are ready before its clock starts.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engines.bundle import Bundle
from engines.engine import Engine
from engines.text import TextClassifier
from tests.benchmarks.engine_texts import headlines
from tests.benchmarks.rows import row

BATCH = 256  # texts at once, as the news pipeline hands them over
SIZES = (4, 8, 16, 32, 64)  # batches that the specialist tries
PADDED = 24  # texts of a round, padded to 128
PER_EVENT = 12  # texts of a round through the pipeline of transformers
SHORT = 64  # texts of a round of each further engine

Run = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[Any]]
Arrays = tuple[NDArray[np.int64], NDArray[np.int64]]


class Bare(NamedTuple):
    """A runtime without us, and the batch at which it was fastest."""

    name: str
    run: Run
    rows: int


def by_onnxruntime(bundle: Bundle) -> Run:
    """The CPU graph in a plain session with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    graph = bundle.read(bundle.manifest.engines["onnxruntime"].file)
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


def by_openvino(bundle: Bundle) -> Run:
    """The CPU graph compiled for latency with one thread."""
    import openvino

    core = openvino.Core()
    model = core.read_model(bundle.read(bundle.manifest.engines["onnxruntime"].file))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    return lambda ids, mask: request.infer({"input_ids": ids, "attention_mask": mask})[0]


def tokenizer(bundle: Bundle, pad_to: int | None = None) -> Tokenizer:
    """The bundle's tokeniser, padding to the longest of a batch or to a fixed length."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    made = Tokenizer.from_buffer(bundle.read("tokenizer.json"))
    made.enable_truncation(bundle.manifest.max_tokens)
    made.enable_padding(length=pad_to)
    return made


def arrays(made: Tokenizer, texts: Sequence[str]) -> Arrays:
    """Token ids and mask of one batch."""
    found = made.encode_batch(list(texts))
    return np.array([one.ids for one in found], np.int64), np.array(
        [one.attention_mask for one in found], np.int64
    )


def sorted_batches(bundle: Bundle, texts: Sequence[str], rows: int) -> list[Arrays]:
    """All texts sorted by their tokens, cut into batches of equal size, padded to each batch's longest."""
    made = tokenizer(bundle)
    made.no_padding()
    lengths = [len(one.ids) for one in made.encode_batch(list(texts))]
    order = sorted(range(len(texts)), key=lengths.__getitem__)
    made = tokenizer(bundle)
    return [arrays(made, [texts[i] for i in order[at : at + rows]]) for at in range(0, len(texts), rows)]


def best_bare(bundle: Bundle, texts: Sequence[str], engine: Engine) -> Bare:
    """The fastest of the runtimes here and of batch sizes on these texts, tried three times in turn.

    A GPU's runtime is `engine`, called without the rest of us.
    """
    runs = {"onnxruntime": by_onnxruntime(bundle)}
    if find_spec("openvino"):
        runs["openvino"] = by_openvino(bundle)
    if not engine.name().startswith(("onnxruntime-int8", "openvino-")):
        runs[engine.name()] = lambda ids, mask: engine.infer({"input_ids": ids, "attention_mask": mask})
    sizes = [rows for rows in SIZES if rows <= engine.limits().rows]
    batches = {rows: sorted_batches(bundle, texts, rows) for rows in sizes}
    taken: dict[tuple[str, int], list[float]] = {(name, rows): [] for name in runs for rows in sizes}
    for _ in range(3):
        for (name, rows), times in taken.items():
            times.append(seconds(lambda n=name, r=rows: [runs[n](*one) for one in batches[r]]))  # type: ignore[misc]
    name, rows = min(taken, key=lambda key: min(taken[key]))
    return Bare(name, runs[name], rows)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def run(
    bundle: Bundle, ours: TextClassifier, engine: Engine, others: dict[str, TextClassifier], rounds: int
) -> list[dict[str, Any]]:
    """The rows; `engine` is what `ours` runs on, `others` are further engines of ours on the same bundle, by name."""
    name, texts = headlines(BATCH * (rounds + 1))
    bare = best_bare(bundle, texts[-BATCH:], engine)
    ready = sorted_batches(bundle, texts[: BATCH * rounds], bare.rows)
    print(f"the best bare loop: {bare.name}, batches of {bare.rows}", file=sys.stderr)
    fixed = tokenizer(bundle, 128)
    plain = _pipeline()
    rates: dict[str, list[float]] = {"ours": [], "bare": [], "padded": [], "plain": [], "tokens": []}
    speeds: dict[str, list[float]] = {engine: [] for engine in others}
    for number in range(rounds):
        chosen = texts[number * BATCH : (number + 1) * BATCH]
        sorted_share = ready[number::rounds]  # every length, as in the texts of a round
        mine = theirs = 0.0
        for _ in range(2):
            mine += seconds(lambda c=chosen: ours.probabilities(c))  # type: ignore[misc]
            theirs += seconds(lambda s=sorted_share: [bare.run(*one) for one in s])  # type: ignore[misc]
        rates["ours"].append(2 * BATCH / mine)
        rates["bare"].append(2 * sum(len(ids) for ids, _ in sorted_share) / theirs)
        rates["tokens"].append(2 * seconds(lambda c=chosen: ours.tokens(c)) / mine)  # type: ignore[misc]
        padded = [arrays(fixed, chosen[at : at + 8]) for at in range(0, PADDED, 8)]
        rates["padded"].append(PADDED / seconds(lambda p=padded: [bare.run(*one) for one in p]))  # type: ignore[misc]
        if plain is not None:
            rates["plain"].append(
                PER_EVENT / seconds(lambda c=chosen: [plain(t, truncation=True) for t in c[:PER_EVENT]])  # type: ignore[misc]
            )
        for engine_name, other in others.items():
            some = chosen[:SHORT]
            base = seconds(lambda s=some: ours.probabilities(s))  # type: ignore[misc]
            speeds[engine_name].append(base / seconds(lambda s=some, o=other: o.probabilities(s)))  # type: ignore[misc]
    return [
        row("engine.texts_per_second", rates["ours"], "1/s", against=f"{name}, one thread, {ours.engine}"),
        _ratio(
            "engine.path_to_bare_loop",
            rates,
            "bare",
            f"{bare.name}, tokenised, sorted, batches of {bare.rows}",
            0.95,
        ),
        _ratio(
            "engine.path_to_padded_128",
            rates,
            "padded",
            f"{bare.name}, every text padded to 128, {name}",
            5.0,
        ),
        *(
            [_ratio("engine.path_to_transformers", rates, "plain", "transformers pipeline per event", 5.0)]
            if plain
            else []
        ),
        row("engine.tokenising_share", rates["tokens"], "share", against="our path's time"),
        *(
            row(f"engine.speed.{engine}", found, against=f"{ours.engine}, same path")
            for engine, found in speeds.items()
        ),
    ]


def _ratio(name: str, rates: dict[str, list[float]], other: str, against: str, bar: float) -> dict[str, Any]:
    ratios = [mine / theirs for mine, theirs in zip(rates["ours"], rates[other], strict=True)]
    return row(name, ratios, against=against, at_least=bar)


def _pipeline() -> Any:
    """The pipeline of transformers on the same weights with one thread, or None with the reason on standard error."""
    if not (find_spec("torch") and find_spec("transformers")):
        print("transformers not measured: the extra `train` is not installed", file=sys.stderr)
        return None
    import torch

    from streams.settings import read_settings
    from tests.benchmarks.plain_agent import classify

    torch.set_num_threads(1)
    found = classify(read_settings())
    found("warm up", truncation=True)
    return found
