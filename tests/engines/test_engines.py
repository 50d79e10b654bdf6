"""The contract of engines: every engine passes every check, on texts, trees and sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.backends import open_engine
from engines.bundle import Bundle, active_folder, open_bundle
from engines.engine import Arrays, Engine, EngineError
from engines.onnx_cpu import OnnxCpu
from engines.text import padded
from engines.tiny import TinyEngine

BUNDLES = Path(__file__).parents[2] / "models" / "bundles"
IDS = [[101, 3661, 4125, 102], [101, 2194, 102], [101, 6661, 5823, 2044, 9861, 102]]
CHANCE = np.random.default_rng(5)
FEATURES, STEPS = 12, 8


class Case(NamedTuple):
    """An engine and what it is fed: rows of one kind, and how they become a batch."""

    make: Callable[[], Engine]
    rows: Sequence[Any]
    batch: Callable[[Sequence[Any]], Arrays]
    classes: int = 3
    lacks: Callable[[], str] = lambda: ""  # why it cannot run here


def bundle() -> Bundle:
    return open_bundle(active_folder(BUNDLES, "news"))


def lacks(*modules: str) -> Callable[[], str]:
    def told() -> str:
        absent = [name for name in modules if find_spec(name) is None]
        return f"needs {', '.join(absent)}: the extras `dev` and `train`" if absent else ""

    return told


def no_gpu() -> str:
    if find_spec("cuda") is None:
        return "needs cuda-bindings"
    from cuda.bindings import runtime

    error, _ = runtime.cudaGetDeviceCount()
    return f"needs an NVIDIA GPU, CUDA says {error.name}" if int(error) else ""


def simulated() -> Engine:
    from engines.tensorrt_build import profiles
    from engines.tensorrt_gpu import TensorRt
    from tests.engines.simulated_gpu import Cuda, TensorRtLibrary

    found, cuda = bundle(), Cuda()
    wanted = profiles(found.manifest.buckets, found.manifest.max_tokens)
    artefact = found.manifest.engines["tensorrt"]
    trt = TensorRtLibrary(cuda, wanted)
    return TensorRt(trt, cuda, found.read(artefact.file), wanted, artefact.precision)


@cache
def trees() -> bytes:
    """A LightGBM classifier as ONNX, its probabilities as the first output."""
    import lightgbm
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    x = CHANCE.normal(size=(400, FEATURES)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    model = lightgbm.LGBMClassifier(n_estimators=8, verbose=-1, num_threads=1).fit(x, y)
    made = onnxmltools.convert_lightgbm(
        model, initial_types=[("features", FloatTensorType([None, FEATURES]))], zipmap=False
    )
    label = [put for put in made.graph.output if put.name == "label"]
    for put in label:
        made.graph.output.remove(put)
    content: bytes = made.SerializeToString()
    return content


@cache
def sequence() -> bytes:
    """Attention over a card's last payments, [n, steps, features] to [n, 3]."""
    from onnx import helper, numpy_helper

    weights = {
        name: CHANCE.normal(size=size).astype(np.float32) / 3
        for name, size in {"qk": (FEATURES, FEATURES), "v": (FEATURES, 16), "head": (16, 3)}.items()
    }
    constants: dict[str, Any] = {**weights, "axis": np.array([1], np.int64)}
    nodes = [
        helper.make_node("MatMul", ["steps", "qk"], ["asked"]),
        helper.make_node("Transpose", ["steps"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["asked", "turned"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["steps", "v"], ["values"]),
        helper.make_node("MatMul", ["shares", "values"], ["mixed"]),
        helper.make_node("ReduceMean", ["mixed", "axis"], ["pooled"], keepdims=0),
        helper.make_node("Tanh", ["pooled"], ["bent"]),
        helper.make_node("MatMul", ["bent", "head"], ["logits"]),
    ]
    put = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(
        nodes,
        "sequence",
        [helper.make_tensor_value_info("steps", 1, ["n", STEPS, FEATURES])],
        [helper.make_tensor_value_info("logits", 1, ["n", 3])],
        put,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    content: bytes = made.SerializeToString()
    return content


def opened(module: str, name: str, graph: Callable[[], bytes], *arguments: Any) -> Callable[[], Engine]:
    def make() -> Engine:
        from importlib import import_module

        made: Engine = getattr(import_module(module), name)(graph(), *arguments)
        return made

    return make


def stacked(name: str) -> Callable[[Sequence[NDArray[np.float32]]], Arrays]:
    return lambda rows: {name: np.stack(rows)}


TEXTS = (IDS, padded)
ROWS = ([*CHANCE.normal(size=(3, FEATURES)).astype(np.float32)], stacked("features"))
PASTS = ([*CHANCE.normal(size=(3, STEPS, FEATURES)).astype(np.float32)], stacked("steps"))
TREES, GRAPHS = lacks("lightgbm", "onnxmltools"), lacks("onnx")
CASES = {
    "tiny": Case(TinyEngine, *TEXTS),
    "onnxruntime": Case(lambda: open_engine(bundle(), "onnxruntime"), *TEXTS),
    "openvino": Case(lambda: open_engine(bundle(), "openvino"), *TEXTS, lacks=lacks("openvino")),
    "torch": Case(lambda: open_engine(bundle(), "torch"), *TEXTS, lacks=lacks("torch", "onnx")),
    "tensorrt-simulated": Case(simulated, *TEXTS),
    "tensorrt": Case(lambda: open_engine(bundle(), "tensorrt"), *TEXTS, lacks=no_gpu),
    "onnxruntime-cuda": Case(lambda: open_engine(bundle(), "onnxruntime-cuda"), *TEXTS, lacks=no_gpu),
    "trees-onnxruntime": Case(
        opened("engines.onnx_cpu", "OnnxCpu", trees, "fp32", FEATURES), *ROWS, lacks=TREES
    ),
    "sequence-onnxruntime": Case(
        opened("engines.onnx_cpu", "OnnxCpu", sequence, "fp32", STEPS), *PASTS, lacks=GRAPHS
    ),
    "sequence-openvino": Case(
        opened("engines.openvino_cpu", "OpenVino", sequence, "fp32", STEPS),
        *PASTS,
        lacks=lacks("openvino", "onnx"),
    ),
    "sequence-torch": Case(
        opened("engines.torch_reference", "TorchReference", sequence, STEPS),
        *PASTS,
        lacks=lacks("torch", "onnx"),
    ),
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES), scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    if reason := found.lacks():
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def engine(case: Case) -> Iterator[Engine]:
    made = case.make()
    yield made
    made.close()


def test_logits_have_a_row_for_each_input_row(case: Case, engine: Engine) -> None:
    """Logits are finite float32 of shape [n, k]."""
    logits = engine.infer(case.batch(case.rows))
    assert logits.shape == (3, case.classes)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_the_same_input_gives_the_same_logits(case: Case, engine: Engine) -> None:
    """An engine is deterministic, and an answer stays as it is when the next one is made."""
    first = engine.infer(case.batch(case.rows))
    kept = first.copy()
    engine.infer(case.batch(case.rows[:1]))
    assert np.array_equal(first, kept)
    assert np.array_equal(engine.infer(case.batch(case.rows)), kept)


def test_a_row_does_not_depend_on_its_neighbours(case: Case, engine: Engine) -> None:
    """A row alone, unpadded, gets the logits that it gets in a batch, up to rounding."""
    together = engine.infer(case.batch(case.rows))
    alone = np.concatenate([engine.infer(case.batch([row])) for row in case.rows])
    np.testing.assert_allclose(alone, together, atol=0.02)


def test_the_largest_input_fits(case: Case, engine: Engine) -> None:
    """A batch of the stated limits is answered."""
    limits = engine.limits()
    rows = min(limits.rows, 16)
    longest = [101] * limits.columns if case.batch is padded else case.rows[0]
    assert len(engine.infer(case.batch([longest] * rows))) == rows


def test_the_name_is_that_of_a_runtime(engine: Engine) -> None:
    """The name can stand in a record: short, no spaces."""
    assert engine.name()
    assert len(engine.name().split()) == 1


def test_warming_changes_no_answer(case: Case, engine: Engine) -> None:
    """Logits before and after `warm` are equal."""
    before = engine.infer(case.batch(case.rows))
    engine.warm()
    assert np.array_equal(before, engine.infer(case.batch(case.rows)))


def test_an_input_of_another_type_is_an_engine_error(case: Case, engine: Engine) -> None:
    """What the graph cannot take is refused with one line, and the engine goes on."""
    if isinstance(engine, TinyEngine):
        pytest.skip("the word list takes any numbers")
    wrong = {name: array.astype(np.float64) for name, array in case.batch(case.rows).items()}
    with pytest.raises(EngineError, match="float64") as caught:
        engine.infer(wrong)
    assert "\n" not in str(caught.value)
    assert len(engine.infer(case.batch(case.rows))) == 3


def test_a_missing_input_is_an_engine_error(case: Case, engine: Engine) -> None:
    """An input that is not there is named."""
    if isinstance(engine, TinyEngine):
        pytest.skip("the word list is given by one caller of ours")
    with pytest.raises(EngineError, match="needs the input"):
        engine.infer({"other": np.ones((1, 1), np.float32)})


def test_a_closed_engine_says_so(case: Case) -> None:
    """After `close`, `infer` raises EngineError, and closing again is harmless."""
    engine = case.make()
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(case.batch(case.rows))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch", "tensorrt-simulated"])
def test_engines_agree(name: str) -> None:
    """Every engine gives the reference's probabilities on the same texts, int8 within its rounding."""
    pytest.importorskip("torch", reason="the reference needs the extra `train`")
    if reason := CASES[name].lacks():
        pytest.skip(reason)
    truth = CASES["torch"].make().infer(padded(IDS))
    found = CASES[name].make().infer(padded(IDS))
    np.testing.assert_allclose(found, truth, atol=0.02 if name.startswith(("torch", "tensorrt")) else 0.6)


@pytest.mark.parametrize(
    ("module", "name", "says"),
    [
        ("onnx_cpu", "OnnxCpu", "ONNX Runtime does not take the graph"),
        ("openvino_cpu", "OpenVino", "OpenVINO does not take the graph"),
        ("torch_reference", "TorchReference", "torch does not take the graph"),
    ],
)
def test_bytes_that_are_no_graph_are_refused(module: str, name: str, says: str) -> None:
    """A runtime's failure to load is one EngineError of one line."""
    for needed in {"openvino_cpu": ["openvino"], "torch_reference": ["torch", "onnx"]}.get(module, []):
        pytest.importorskip(needed, reason="the extras `dev` and `train`")
    arguments = (128,) if name == "TorchReference" else ("int8", 128)
    with pytest.raises(EngineError, match=says) as caught:
        opened(f"engines.{module}", name, lambda: b"no graph", *arguments)()
    assert "\n" not in str(caught.value)


def test_a_failing_run_is_an_engine_error() -> None:
    """A runtime's exception leaves the engine as one EngineError of one line."""
    engine = open_engine(bundle(), "onnxruntime")
    assert isinstance(engine, OnnxCpu)
    beyond = np.full((1, 4), 10**9)
    with pytest.raises(EngineError, match="ONNX Runtime failed") as caught:
        engine.infer({"input_ids": beyond, "attention_mask": np.ones_like(beyond)})
    assert "\n" not in str(caught.value)
    engine.close()


def test_trees_are_not_for_openvino() -> None:
    """A graph that a runtime has no operators for is refused with one line that names it."""
    pytest.importorskip("openvino", reason="the extra `dev`")
    if reason := TREES():
        pytest.skip(reason)
    with pytest.raises(EngineError, match="OpenVINO does not take the graph") as caught:
        opened("engines.openvino_cpu", "OpenVino", trees, "fp32", FEATURES)()
    assert "\n" not in str(caught.value)
