"""The contract of engines: every engine passes every check."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines.bundle import active_folder, open_bundle
from engines.engine import Engine, EngineError
from engines.onnx_cpu import OnnxCpu
from engines.text import padded
from engines.tiny import TinyEngine

BUNDLES = Path(__file__).parents[2] / "models" / "bundles"
IDS = [[101, 3661, 4125, 102], [101, 2194, 102], [101, 6661, 5823, 2044, 9861, 102]]


def onnxruntime() -> Engine:
    bundle = open_bundle(active_folder(BUNDLES, "news"))
    artefact = bundle.manifest.engines["onnxruntime"]
    return OnnxCpu(bundle.read(artefact.file), artefact.precision, bundle.manifest.max_tokens)


@pytest.fixture(params=[TinyEngine, onnxruntime], ids=["tiny", "onnxruntime"], scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made: Engine = request.param()
    yield made
    made.close()


def test_logits_have_a_row_for_each_input_row(engine: Engine) -> None:
    """Logits are finite float32 of shape [n, k]."""
    logits = engine.infer(padded(IDS))
    assert logits.shape == (3, 3)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_the_same_input_gives_the_same_logits(engine: Engine) -> None:
    """An engine is deterministic."""
    assert np.array_equal(engine.infer(padded(IDS)), engine.infer(padded(IDS)))


def test_a_row_does_not_depend_on_its_neighbours(engine: Engine) -> None:
    """A row alone, unpadded, gets the logits that it gets in a batch, up to rounding."""
    together = engine.infer(padded(IDS))
    alone = np.concatenate([engine.infer(padded([ids])) for ids in IDS])
    np.testing.assert_allclose(alone, together, atol=0.02)


def test_the_largest_input_fits(engine: Engine) -> None:
    """A batch of the stated limits is answered."""
    limits = engine.limits()
    rows, columns = min(limits.rows, 16), limits.columns
    assert len(engine.infer(padded([[101] * columns] * rows))) == rows


def test_the_name_is_that_of_a_runtime(engine: Engine) -> None:
    """The name can stand in a record: short, no spaces."""
    assert engine.name()
    assert len(engine.name().split()) == 1


def test_warming_changes_no_answer(engine: Engine) -> None:
    """Logits before and after `warm` are equal."""
    before = engine.infer(padded(IDS))
    engine.warm()
    assert np.array_equal(before, engine.infer(padded(IDS)))


@pytest.mark.parametrize("make", [TinyEngine, onnxruntime])
def test_a_closed_engine_says_so(make: type[TinyEngine]) -> None:
    """After `close`, `infer` raises EngineError, and closing again is harmless."""
    engine = make()
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(padded(IDS))


def test_bytes_that_are_no_graph_are_refused() -> None:
    """ONNX Runtime's failure to load is one EngineError of one line."""
    with pytest.raises(EngineError, match="does not take the graph") as caught:
        OnnxCpu(b"no graph", "int8", 128)
    assert "\n" not in str(caught.value)


def test_a_failing_run_is_an_engine_error() -> None:
    """A runtime's exception leaves the engine as one EngineError of one line."""
    engine = onnxruntime()
    with pytest.raises(EngineError, match="ONNX Runtime failed") as caught:
        engine.infer({name: np.ones((1, 4), np.float64) for name in ("input_ids", "attention_mask")})
    assert "\n" not in str(caught.value)
    engine.close()
