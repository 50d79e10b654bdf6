"""`models build`: artefacts made anew are proved and published, or nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engines.backends import open_engine
from engines.bundle import Bundle, hashed, open_bundle
from engines.engine import EngineError
from engines.text import padded
from models.build_bundle import BuildError, Request, build, build_from
from models.splits import Splits
from models.train import Period, user_splits
from streams.settings import read_settings
from tests.models.test_train import base as base  # the fixture
from tests.models.test_train import write

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return user_splits([write(tmp_path_factory.mktemp("data") / "own.csv", 600)], {}, Period())


@pytest.fixture(scope="module")
def source(base: Path, splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle as training leaves it, of one small layer."""
    from models import tuning_run
    from models.tuning import Recipe

    folder = tmp_path_factory.mktemp("source") / "2026.1.1"
    recipe = Recipe(epochs=3, rate=3e-3, depth_decay=1.0, averaging=0.9)
    return tuning_run.make(splits, {"own": "own"}, base, folder, 1, [recipe])


@pytest.fixture(scope="module")
def built(source: Bundle, splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("built") / "2026.1.2"
    return build_from(source, splits, Request("news", ("cpu", "gpu"), source.folder, out, 1))


def test_a_build_is_a_bundle_with_its_proofs(built: Bundle, source: Bundle) -> None:
    """Hashes, precisions, profiles, parity, probes, the data's hash: all stands in the manifest, and it opens."""
    manifest = open_bundle(built.folder).manifest
    assert set(manifest.engines) == {"onnxruntime", "tensorrt", "tensorrt-int8"}
    assert set(manifest.parity) == set(manifest.probes) == {"cpu-int8.onnx", "gpu-fp16.onnx", "gpu-int8.onnx"}
    assert set(manifest.probes["gpu-int8.onnx"]) == {"one row", "ragged", "longest", "padded tail"}
    assert manifest.parity["gpu-fp16.onnx"].label_flips == 0
    assert manifest.profiles[-1] == (8, 64, 128)
    assert manifest.data_sha256 == source.manifest.data_sha256
    assert manifest.version == "2026.1.2"
    assert "## This build" in built.read("card.md").decode()
    assert [path.name for path in built.folder.parent.iterdir()] == ["2026.1.2"]


def test_plans_were_built_where_the_library_is(built: Bundle) -> None:
    """With TensorRT-RTX the GPU's graphs, the one that shares its weights too, were built for every architecture."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs the RTX library: Linux, x86-64")
    assert {name: told[1:] for name, told in built.manifest.built.items()} == {
        "gpu-fp16.onnx": ("SM80", "SM86", "SM89"),
        "gpu-int8.onnx": ("SM80", "SM86", "SM89"),
    }


def test_the_weights_are_there_once(built: Bundle) -> None:
    """The GPU's int8 graph holds no large constant: it names places in the half-precision graph's file."""
    sizes = {name: file.bytes for name, file in built.manifest.files.items()}
    assert built.manifest.engines["tensorrt-int8"].data == ("gpu-fp16.onnx",)
    assert sizes["gpu-int8.onnx"] < 0.4 * sizes["gpu-fp16.onnx"]


def test_every_artefact_computes_the_same(built: Bundle) -> None:
    """The reference on the shared weights, and each served graph, agree on made-up tokens."""
    from engines.onnx_cpu import OnnxCpu
    from models.quantise_gpu import completed

    inputs = padded([[2, 7, 9, 3], [2, 11, 3]])
    truth = open_engine(built, "torch").infer(inputs)
    np.testing.assert_allclose(open_engine(built, "onnxruntime").infer(inputs), truth, atol=0.2)
    graph = completed(built.read("gpu-int8.onnx"), built.read("gpu-fp16.onnx"))
    kinds = {node.op_type for node in graph.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    found = OnnxCpu(graph.SerializeToString(), "int8", 128).infer(inputs)
    np.testing.assert_allclose(found, truth, atol=0.2)


def test_the_served_int8_graph_is_the_one_asked_for(built: Bundle) -> None:
    """A precision that the bundle has no graph in is one line."""
    with pytest.raises(EngineError, match="no graph in fp8"):
        open_engine(built, "torch", precision="fp8")


def test_what_is_not_a_target_is_taken_over(source: Bundle, splits: Splits, tmp_path: Path) -> None:
    """A graph that is not made anew is the very file of the source, and is proved all the same."""
    found = build_from(source, splits, Request("news", (), source.folder, tmp_path / "1", 1))
    for name in ("cpu-int8.onnx", "gpu-fp16.onnx"):
        assert found.read(name) == source.read(name)
    assert set(found.manifest.engines) == {"onnxruntime", "tensorrt"}
    assert set(found.manifest.parity) == set(found.manifest.probes) == {"cpu-int8.onnx", "gpu-fp16.onnx"}


def test_a_bundle_that_fails_parity_is_not_written(source: Bundle, splits: Splits, tmp_path: Path) -> None:
    """A CPU graph that computes something else is refused in one line, and leaves nothing behind."""
    onnx = pytest.importorskip("onnx", reason="needs the extra `train`")
    wrong = tmp_path / "wrong"
    shutil.copytree(source.folder, wrong)
    graph = onnx.load(str(wrong / "cpu-int8.onnx"))
    for put in graph.graph.initializer:
        if put.name == "head.weight":
            put.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(put), put.name))
    onnx.save(graph, str(wrong / "cpu-int8.onnx"))
    manifest = msgspec.structs.replace(source.manifest, files=hashed(wrong))
    (wrong / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    with pytest.raises(BuildError, match=r"is not written: cpu-int8\.onnx flips") as caught:
        build_from(open_bundle(wrong), splits, Request("news", (), wrong, tmp_path / "1", 1))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["wrong"]


def test_a_bundle_that_is_too_large_is_not_written(
    source: Bundle, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 75 MB: what is larger is refused."""
    monkeypatch.setattr("models.build_bundle.MOST_BYTES", 1000)
    with pytest.raises(BuildError, match="at most"):
        build_from(source, splits, Request("news", (), source.folder, tmp_path / "1", 1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("targets", "out", "says"), [("cpu,tpu", "new", "tpu"), ("cpu", ".", "never changed")]
)
def test_a_request_that_cannot_be_is_refused(tmp_path: Path, targets: str, out: str, says: str) -> None:
    """An unknown target and a folder that exists are refused before any work."""
    settings = read_settings(bundles=str(tmp_path))
    with pytest.raises(BuildError, match=says):
        build("news", targets, None, (), {}, str(tmp_path / out), settings)
