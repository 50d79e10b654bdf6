"""The choice of an engine: named ones run or say why not, `auto` takes the fastest and falls back aloud."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from engines import backends, machine
from engines.backends import BACKENDS, FALLBACKS, missing, open_chosen, open_engine, preferred
from engines.bundle import Artefact, Bundle, active_folder, open_bundle
from engines.engine import EngineError
from engines.machine import measured, processor

BUNDLES = Path(__file__).parents[2] / "models" / "bundles"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(active_folder(BUNDLES, "news"))


def test_auto_takes_what_measured_best(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is that of the figures for this kind of processor, and the reason names them."""
    monkeypatch.setattr(machine, "processor", lambda: "a kind")
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    monkeypatch.setitem(machine.SPEEDS, "a kind", {"openvino": 2.0})
    first, second = measured(["onnxruntime", "openvino", "tensorrt"])
    assert (first.engine, second.engine) == ("openvino", "onnxruntime")
    assert first.why == "measured on a kind: 2.00 times onnxruntime"


def test_a_machine_without_figures_gets_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing was measured, ONNX Runtime is taken, and that is said."""
    monkeypatch.setattr(machine, "processor", lambda: "another kind")
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    (found,) = measured(["onnxruntime", "openvino"])
    assert found.engine == "onnxruntime"
    assert "nothing was measured on another kind" in found.why


def test_a_gpu_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an NVIDIA GPU TensorRT is tried first, except for small parts."""
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    able = ["onnxruntime", "tensorrt"]
    assert [found.engine for found in measured(able)] == ["tensorrt", "onnxruntime"]
    assert [found.engine for found in measured(able, "trees")] == ["onnxruntime"]


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ("fpu avx2 avx512f avx512_vnni amx_int8", "x86-64 amx"),
        ("fpu avx2 avx512f avx512_vnni", "x86-64 avx512-vnni"),
        ("fpu avx2 avx_vnni", "x86-64 avx-vnni"),
        ("fpu avx2", "x86-64 avx2"),
        ("fpu sse4_2", "x86-64"),
    ],
)
def test_the_kind_of_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, kind: str
) -> None:
    """What matters to integer products tells kinds apart."""
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert processor() == kind


def test_other_processors_have_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """On arm64 there is a kind as well."""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert processor() == "arm64"


def test_auto_falls_back_aloud(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An engine that is preferred and fails is named in the log, counted, and told by the choice."""
    monkeypatch.setattr(machine, "has_gpu", lambda: True)  # the driver is only said to be there
    monkeypatch.setattr(
        backends, "missing", lambda name: None if name in ("tensorrt", "onnxruntime") else "no"
    )
    monkeypatch.setitem(sys.modules, "cuda", None)
    before = FALLBACKS["tensorrt", "onnxruntime"]
    with caplog.at_level(logging.WARNING, "tapewatch.engines"):
        engine, choice = open_chosen(bundle, "auto")
    assert engine.name() == "onnxruntime-int8"
    assert (choice.wanted, choice.engine, set(choice.refused)) == ("auto", "onnxruntime", {"tensorrt"})
    assert "auto falls back from tensorrt" in caplog.text
    assert FALLBACKS["tensorrt", "onnxruntime"] == before + 1
    engine.close()


@pytest.mark.parametrize("engine", ["warp", "tensorrt", "onnxruntime-cuda"])
def test_a_named_engine_that_cannot_run_is_one_line(
    bundle: Bundle, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No fallback for an engine that was named: EngineError says what is missing."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(EngineError) as caught:
        open_engine(bundle, engine)
    assert "\n" not in str(caught.value)


def test_a_missing_package_comes_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed is named, with the way to get it."""
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert missing("openvino") == "openvino is not installed: pip install '.[openvino]'"
    assert set(BACKENDS) == {name for name in BACKENDS if missing(name)}


def test_only_engines_with_a_graph_are_preferred() -> None:
    """A bundle with no graph for a GPU is not tried on one, and torch never is."""
    graphs = {"onnxruntime": Artefact("g.onnx", "int8")}
    assert {found.engine for found in preferred(graphs)} <= {"onnxruntime", "openvino"}
    assert preferred({}) == []


def test_an_unknown_part_is_named(bundle: Bundle) -> None:
    """A part that the bundle lacks is one line with those that it has."""
    with pytest.raises(EngineError, match="no part 'trees', only none"):
        open_engine(bundle, "auto", part="trees")
