"""What every engine is: arrays in, arrays out. Text, labels and thresholds stay outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class EngineError(Exception):
    """An engine is unknown, cannot run on this machine, or gave no usable answer; the message is one line."""


class Limits(NamedTuple):
    """The largest input that an engine takes: rows in a batch, tokens (or features) in a row.

    `tokens`: the padded size, rows times columns, from which on a larger batch is no faster per row.
    """

    rows: int
    columns: int
    tokens: int = 128


class Engine(Protocol):
    """One loaded model on one runtime; used from one thread at a time."""

    def name(self) -> str:
        """Runtime and precision, for example `onnxruntime-int8`."""
        ...

    def limits(self) -> Limits:
        """The largest input that `infer` takes."""
        ...

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        """Logits [n, k] of the named arrays, whose first axis is n; raises EngineError if the runtime fails.

        The answer for a row does not depend on the rows beside it, apart from rounding.
        """
        ...

    def warm(self) -> None:
        """Run once on made-up input, so that the first real batch is as fast as the next."""
        ...

    def close(self) -> None:
        """Let go of memory and threads; the engine answers no more."""
        ...
