"""What kind of machine this is, and which engine measured best on such a one: what `auto` goes by.

The figures are committed and not taken at start: a calibration would load every runtime to use one. They are headlines
a second of one thread, the same int8 graph and texts in each engine, interleaved; `tapewatch bench engine` takes them
again.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

CPUINFO = Path("/proc/cpuinfo")
NVIDIA = Path("/proc/driver/nvidia/version")  # there where the kernel has NVIDIA's driver

# kind of processor -> engine -> speed relative to onnxruntime in the same run
SPEEDS: dict[str, dict[str, float]] = {"x86-64 avx2": {"openvino": 0.46}}


class Measured(NamedTuple):
    """An engine that can be tried, and why it comes at its place."""

    engine: str
    why: str


def processor() -> str:
    """The kind of processor by what matters to integer products: `x86-64 vnni`, `x86-64 avx2`, `arm64`, ..."""
    machine = platform.machine().lower()
    if machine not in ("x86_64", "amd64"):
        return {"aarch64": "arm64"}.get(machine, machine)
    try:
        flags = set(_first("flags").split())
    except OSError:
        return "x86-64"
    for kind, needed in (("amx", "amx_int8"), ("avx512-vnni", "avx512_vnni"), ("avx-vnni", "avx_vnni")):
        if needed in flags:
            return f"x86-64 {kind}"
    return "x86-64 avx2" if "avx2" in flags else "x86-64"


def has_gpu() -> bool:
    """Whether the kernel knows an NVIDIA GPU, and this process may use one."""
    return NVIDIA.exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def measured(able: Sequence[str], part: str = "") -> list[Measured]:
    """The engines among `able` in the order in which `auto` tries them: TensorRT where a GPU is, then by speed here.

    Parts of a model (trees, small sequence models) run on ONNX Runtime: a row takes it 11 to 160 us.
    """
    kind = processor()
    order: list[Measured] = []
    for name in ("tensorrt", "onnxruntime-cuda"):
        if name in able and has_gpu() and not part:
            order.append(Measured(name, "an NVIDIA GPU is here (its speed was never measured by us)"))
    if part:
        found = {"onnxruntime": 1.0}
        why = "for trees and small sequence models"
    elif kind in SPEEDS:
        found = {"onnxruntime": 1.0, **SPEEDS[kind]}
        why = f"measured on {kind}"
    else:
        found = {"onnxruntime": 1.0}
        why = f"the default: nothing was measured on {kind}"
    usable = sorted((name for name in able if name in found), key=lambda name: -found[name])
    for name in usable:
        others = [f"{found[name] / found[other]:.2f} times {other}" for other in usable if other != name]
        order.append(Measured(name, f"{why}: {', '.join(others)}" if others else why))
    return order


def _first(name: str) -> str:
    for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value
    return ""
