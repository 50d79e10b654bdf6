"""The inputs of a graph: what an engine checks before it runs, and made-up values for its warm-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.engine import Arrays, EngineError

MAX_ROWS = 64  # rows of a batch that a backend takes
WARM = ((1, 16), (8, 32))  # rows and columns of the warm-up's batches


class Port(NamedTuple):
    """One input: its element type, and its axes with 0 for those that a caller is free to choose."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def checked(ports: Mapping[str, Port], inputs: Arrays) -> dict[str, NDArray[Any]]:
    """The arrays of the graph's inputs; raises EngineError where one is missing, of another type, rank or length."""
    found: dict[str, NDArray[Any]] = {}
    rows = -1
    for name, port in ports.items():
        array = inputs.get(name)
        if array is None:
            raise EngineError(f"the graph needs the input {name!r}; given are {', '.join(inputs) or 'none'}")
        if array.dtype != port.dtype:
            raise EngineError(f"the input {name!r} is {array.dtype}, the graph takes {port.dtype}")
        fits = array.ndim == len(port.shape) and all(
            axis in (0, size) for axis, size in zip(port.shape[1:], array.shape[1:], strict=True)
        )
        if not fits or rows not in (-1, len(array)):
            raise EngineError(
                f"the input {name!r} has shape {list(array.shape)}, which the graph cannot take"
            )
        rows = len(array)
        found[name] = array
    return found


def made_up(ports: Mapping[str, Port], rows: int, columns: int) -> dict[str, NDArray[Any]]:
    """Ones for every input: `rows` of them, axes that are free filled with `columns`."""
    return {
        name: np.ones((rows, *(axis or columns for axis in port.shape[1:])), port.dtype)
        for name, port in ports.items()
    }


def shape(axes: Sequence[object]) -> tuple[int, ...]:
    """Axes as a runtime names them, 0 for those that are no positive number."""
    return tuple(axis if isinstance(axis, int) and axis > 0 else 0 for axis in axes)


def first_line(error: Exception) -> str:
    """The first line of a runtime's message, which may be pages long."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
