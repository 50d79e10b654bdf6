"""TensorRT without a GPU: every bundle's plans are built, wrong graphs are refused, and the runtime runs simulated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.backends import Graph
from engines.bundle import Artefact, Bundle, open_bundle
from engines.engine import EngineError
from engines.plans import KEPT, PlanCache, PlanKey
from engines.ports import MAX_ROWS, Port
from engines.tensorrt_build import LIBRARIES, Profile, build_plan, builds_anywhere, fixed, library, profiles
from engines.tensorrt_gpu import Device, TensorRt, buffer_bytes, cached_plan, cell_of, find_device
from engines.text import padded
from tests.engines.simulated_gpu import Cuda, TensorRtLibrary

BUNDLES = Path(__file__).parents[2] / "models" / "bundles"
ARCHITECTURES = (80, 86, 89)
WANTED = profiles((16, 32, 64, 128), 128)


def gpu_graphs() -> Iterator[tuple[Bundle, str, Artefact]]:
    """Every graph for TensorRT in every bundle of the checkout, of the whole model or of a part."""
    for path in sorted(BUNDLES.glob("*/*/manifest.json")):
        bundle = open_bundle(path.parent)
        for part, engines in {"": bundle.manifest.engines, **bundle.manifest.parts}.items():
            for key, artefact in engines.items():
                if key.startswith("tensorrt"):
                    yield bundle, part, artefact


GRAPHS = [
    pytest.param(found, id=":".join(filter(None, (found[0].model, found[1], found[2].file))))
    for found in gpu_graphs()
]


@pytest.fixture(scope="module")
def trt() -> Any:
    """TensorRT-RTX, which builds with no GPU and no driver."""
    try:
        found = library()
    except EngineError as error:
        pytest.skip(f"{error}; the extra `dev` has the RTX library on Linux, x86-64")
    if not builds_anywhere(found):
        pytest.skip("this TensorRT builds for the GPU that is here; the RTX library builds for any")
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("found", GRAPHS)
def test_every_gpu_graph_becomes_a_plan(trt: Any, found: tuple[Bundle, str, Artefact]) -> None:
    """Each GPU graph of each bundle is parsed and built, with all its profiles, for SM 80, 86 and 89."""
    bundle, _, artefact = found
    data = {name: bundle.read(name) for name in artefact.data}
    wanted = profiles(bundle.manifest.buckets, bundle.manifest.max_tokens)
    plan = build_plan(trt, bundle.read(artefact.file), wanted, data, ARCHITECTURES)
    assert len(plan) > 1000


def test_the_library_that_is_installed_is_found(trt: Any) -> None:
    """One of the two packages with TensorRT's API is taken."""
    assert library().__name__ in LIBRARIES
    assert trt.__version__


def model(kind: str) -> bytes:
    """A graph of one product: right, with types that do not fit, or with an operator that nobody has."""
    onnx = pytest.importorskip("onnx", reason="needs the extra `train`")
    from onnx import helper, numpy_helper

    weight = np.ones((4, 3), np.float32 if kind == "types" else np.float16)
    cast = helper.make_node("Cast", ["ids"], ["x"], "cast", to=onnx.TensorProto.FLOAT16)
    operator = "Unheard" if kind == "operator" else "MatMul"
    nodes = [
        helper.make_node("Reshape", ["ids", "four"], ["square"], "square"),
        helper.make_node("Cast", ["square"], ["x"], "cast", to=cast.attribute[0].i),
        helper.make_node(operator, ["x", "weight"], ["product"], "the-product"),
        helper.make_node("Cast", ["product"], ["logits"], "out", to=onnx.TensorProto.FLOAT),
    ]
    put = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.array([-1, 4]), "four")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n", "length"])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["m", 3])],
        put,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    content: bytes = made.SerializeToString()
    return content


def test_a_small_graph_is_built(trt: Any) -> None:
    """The graph that the refusals below are made from is built."""
    assert build_plan(trt, model(""), profiles((), 8, 4), architectures=(89,))


@pytest.mark.parametrize(
    ("kind", "says"), [("types", "(?i)type|half|float"), ("operator", "(?i)unheard|plugin|operator")]
)
def test_a_wrong_graph_is_refused(trt: Any, kind: str, says: str) -> None:
    """Types that do not fit and an unknown operator fail on the CPU, with one line that tells what is wrong."""
    with pytest.raises(EngineError, match=says) as caught:
        build_plan(trt, model(kind), profiles((), 8, 4), architectures=(89,))
    assert "TensorRT" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("profile", [Profile(8, 4, 8), Profile(0, 4, 8), Profile(1, 4, 6)])
def test_a_bad_profile_is_refused(trt: Any, profile: Profile) -> None:
    """A usual size beyond the largest, a size of nothing, and a length that the graph cannot take fail on the CPU."""
    with pytest.raises(EngineError, match="TensorRT") as caught:
        build_plan(trt, model(""), [profile], architectures=(89,))
    assert "\n" not in str(caught.value)


def test_an_architecture_that_the_library_lacks_is_named(trt: Any) -> None:
    """A compute capability without a target is said."""
    with pytest.raises(EngineError, match="SM 13"):
        build_plan(trt, model(""), profiles((), 8, 4), architectures=(13,))


def test_bytes_that_are_no_graph_are_refused(trt: Any) -> None:
    """What is no ONNX is one line."""
    with pytest.raises(EngineError, match="does not take the graph"):
        build_plan(trt, b"no graph", WANTED, architectures=(89,))


@given(
    st.lists(st.integers(-3, 300), max_size=6),
    st.integers(1, 256),
    st.integers(1, MAX_ROWS),
    st.integers(1, 256),
)
def test_every_batch_has_a_shape(buckets: list[int], columns: int, rows: int, length: int) -> None:
    """A batch within the limits gets the smallest shape that holds it; a larger one is refused."""
    wanted = profiles(buckets, columns)
    assert [profile.columns for profile in wanted] == sorted({profile.columns for profile in wanted})
    if length > columns:
        with pytest.raises(EngineError, match="at most"):
            cell_of(wanted, rows, length)
        return
    cell = cell_of(wanted, rows, length)
    assert cell.rows >= rows
    assert cell.columns >= length
    assert cell.rows < 2 * rows or cell.rows == 1
    assert all(profile.columns < length for profile in wanted[: cell.profile])


def test_buffers_hold_the_largest_shape() -> None:
    """A buffer has the bytes of the largest profile, whatever the axes."""
    assert buffer_bytes(Port(np.dtype(np.int64), (0, 0)), WANTED) == 64 * 128 * 8
    assert buffer_bytes(Port(np.dtype(np.float32), (-1, 3)), WANTED) == 64 * 3 * 4
    assert fixed((-1, 5, -1), 2, 9) == (2, 5, 9)


KEY = PlanKey("graph", "tensorrt 11.0", "A GPU", "8.9", "fp16", WANTED)
OTHERS = [  # each differs in one field
    msgspec.structs.replace(KEY, **{field: value})
    for field, value in {
        "graph": "another",
        "library": "tensorrt 11.1",
        "gpu": "B GPU",
        "capability": "9.0",
        "precision": "int8",
        "profiles": WANTED[:2],
    }.items()
]


def test_a_plan_is_kept_for_its_key_alone(tmp_path: Path) -> None:
    """Another graph, library, GPU, capability, precision or set of profiles finds no plan."""
    cache = PlanCache(tmp_path / "plans")
    cache.write(KEY, b"plan")
    assert PlanCache(tmp_path / "plans").read(KEY) == b"plan"
    assert [cache.read(key) for key in OTHERS] == [None] * len(OTHERS)


@pytest.mark.parametrize("suffix", [".plan", ".json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_changed_plan_is_not_taken(tmp_path: Path, suffix: str, damage: str) -> None:
    """A plan is executable: one that is not as it was written, or has no note, is built again."""
    cache = PlanCache(tmp_path)
    cache.write(KEY, b"plan" * 9)
    path = tmp_path / f"{KEY.name()}{suffix}"
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])
    assert cache.read(KEY) is None


def test_plans_are_readable_by_their_user_alone(tmp_path: Path) -> None:
    """Folder and files are private, also where the folder was there and was not."""
    folder = tmp_path / "plans"
    folder.mkdir(mode=0o777)
    cache = PlanCache(folder)
    cache.write(KEY, b"plan")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_folder_behind_a_link_is_refused(tmp_path: Path) -> None:
    """A link could lead to what another user writes."""
    (tmp_path / "real").mkdir()
    (tmp_path / "plans").symlink_to(tmp_path / "real")
    with pytest.raises(EngineError, match="not a folder of this user"):
        PlanCache(tmp_path / "plans")


def test_old_plans_go(tmp_path: Path) -> None:
    """The cache is bounded."""
    cache = PlanCache(tmp_path)
    for i in range(KEPT + 3):
        cache.write(PlanKey(str(i), "l", "g", "8.9", "fp16", WANTED), b"plan")
    assert len(list(tmp_path.glob("*.plan"))) == len(list(tmp_path.glob("*.json"))) == KEPT


def graph(digest: str = "d") -> Graph:
    content = {"g.onnx": model("")}
    return Graph("news/1", Artefact("g.onnx", "fp16"), content.__getitem__, digest, 8, (8,), 1)


def test_a_plan_is_built_once(trt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second start takes the plan from the cache; another graph is built again."""
    built: list[bytes] = []

    def counted(*arguments: Any) -> bytes:
        built.append(arguments[1])
        return b"plan"

    monkeypatch.setattr("engines.tensorrt_gpu.build_plan", counted)
    wanted, device, cache = profiles((8,), 8), Device("A GPU", "8.9"), PlanCache(tmp_path)
    for digest in ("d", "d", "e"):
        assert cached_plan(trt, graph(digest), wanted, device, cache) == b"plan"
    assert len(built) == 2


def test_the_device_names_itself() -> None:
    """Name and compute capability of the first GPU; no GPU is one line."""
    assert find_device(Cuda()) == Device("Simulated", "8.9")
    with pytest.raises(EngineError, match="needs an NVIDIA GPU"):
        find_device(Cuda(count=0))


@pytest.fixture
def simulated() -> Iterator[tuple[TensorRt, Cuda]]:
    from tests.engines.test_engines import bundle

    cuda, found = Cuda(), bundle()
    content = found.read(found.manifest.engines["tensorrt"].file)
    engine = TensorRt(TensorRtLibrary(cuda, WANTED), cuda, content, WANTED, "fp16")
    yield engine, cuda
    engine.close()


def test_a_shape_is_recorded_once(simulated: tuple[TensorRt, Cuda]) -> None:
    """Batches of one shape of the grid replay one CUDA graph; another shape gets its own."""
    engine, cuda = simulated
    engine.infer(padded([[101, 102, 103]] * 3))
    engine.infer(padded([[101, 102, 103, 104]] * 4))
    assert (cuda.captures, cuda.launches) == (1, 2)
    engine.infer(padded([[101] * 20]))
    assert (cuda.captures, cuda.launches) == (2, 3)


def test_what_an_earlier_batch_left_is_not_seen(simulated: tuple[TensorRt, Cuda]) -> None:
    """A short batch after a full one of the same shape gets what it gets on its own."""
    engine, _ = simulated
    alone = engine.infer(padded([[101, 3661, 102]] * 3))
    engine.infer(padded([[101] * 16] * 4))
    np.testing.assert_allclose(engine.infer(padded([[101, 3661, 102]] * 3)), alone, atol=1e-6)


def test_closing_gives_all_memory_back(simulated: tuple[TensorRt, Cuda]) -> None:
    """No buffer is left on the host or the device."""
    engine, cuda = simulated
    engine.infer(padded([[101, 102]]))
    assert cuda.memory
    engine.close()
    assert not cuda.memory
