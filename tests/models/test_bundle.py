"""The committed bundle keeps what its manifest says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines.bundle import Bundle, active_folder, open_bundle
from engines.text import from_bundle, softmax, wordpieces

BUNDLES = Path(__file__).parents[2] / "models" / "bundles"
FLOORS = {  # a little below the released figures; models/LOG.md says which goals they miss
    "twitter-financial-news-sentiment.accuracy": 0.86,
    "twitter-financial-news-sentiment.macro_f1": 0.82,
    "sentfin.accuracy": 0.87,
    "sentfin.macro_f1": 0.87,
}
TEXTS = [
    "Shares plunge after the bank reports a record loss",
    "$AAPL - Apple beats on revenue, raises outlook",
    "Sensex ends flat; Infosys, TCS in focus ahead of results",
    "Crude oil futures slip on weak demand",
    "Downgrades this morning: $F $GM $TSLA",
    "RBI to keep repo rate unchanged: poll",
    "Company wins order worth Rs 500 crore",
    "Why gold is the best bet for this Diwali",
]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(active_folder(BUNDLES, "news"))


def test_the_bundle_fits_in_the_repository(bundle: Bundle) -> None:
    """All files together are at most 75 MB."""
    assert sum(file.bytes for file in bundle.manifest.files.values()) <= 75_000_000


def test_no_release_falls_behind(bundle: Bundle) -> None:
    """Accuracy and macro F1 of the served int8 graph on both test parts stay above the floors."""
    assert {name for name, floor in FLOORS.items() if bundle.manifest.figures[name] < floor} == set()


def test_int8_lost_little(bundle: Bundle) -> None:
    """The recorded parity: at most half a point of macro F1."""
    assert bundle.manifest.parity["cpu-int8.onnx"].macro_f1_loss <= 0.005


def test_the_card_has_the_report(bundle: Bundle) -> None:
    """The model card is among the hashed files, with licences and limits."""
    card = bundle.read("card.md").decode()
    assert "| negative |" in card
    assert "MIT" in card
    assert "## Limits" in card


@pytest.mark.train
def test_int8_is_near_the_reference_made_from_the_half_precision_graph(bundle: Bundle) -> None:
    """The torch reference, rebuilt from the bundle, agrees with what is served within the recorded parity."""
    pytest.importorskip("torch", reason="needs the extra `train`")
    import onnx
    import torch

    from models.export import reference

    model = reference(onnx.load_from_string(bundle.read("gpu-fp16.onnx")))
    tokenise = wordpieces(bundle.read("tokenizer.json"), bundle.manifest.max_tokens)
    with torch.no_grad():
        logits = np.concatenate(
            [
                model(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64)).numpy()
                for ids in tokenise(TEXTS)
            ]
        )
    truth = softmax(logits, bundle.manifest.temperature)
    served = from_bundle(bundle).probabilities(TEXTS)
    recorded = bundle.manifest.parity["cpu-int8.onnx"]
    assert np.abs(truth - served).max() <= recorded.max_difference + 0.01
    sure = truth.max(axis=1) > 0.7
    assert (truth.argmax(axis=1) == served.argmax(axis=1))[sure].all()


def test_the_half_precision_graph_is_half_throughout(bundle: Bundle) -> None:
    """A strongly typed network takes its precision from the graph: weights half, logits float32."""
    onnx = pytest.importorskip("onnx", reason="needs the extra `train`")
    graph = onnx.load_from_string(bundle.read("gpu-fp16.onnx")).graph
    kinds = {put.data_type for put in graph.initializer if len(put.dims) == 2}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
