"""Parity: made-up inputs, what padding may do, and what an artefact may lose."""

from __future__ import annotations

import numpy as np
import pytest

from engines.bundle import Parity
from engines.engine import Arrays
from models.parity import LIMITS, Found, Probabilities, by_length, demand, probes, tail
from models.train import TrainingError


def sums(inputs: Arrays) -> Probabilities:
    """An answer that looks at what the mask shows, and nothing else."""
    seen = (inputs["input_ids"] * inputs["attention_mask"]).sum(axis=1)
    answers: Probabilities = np.stack([seen, -seen], axis=1).astype(np.float32)
    return answers


def test_the_probes_are_what_they_are_called() -> None:
    """One row, ragged lengths, the longest length, and a tail that is all padding."""
    found = {name: inputs["attention_mask"] for name, inputs in probes(1000, 64).items()}
    assert len(found["one row"]) == 1
    assert len(set(found["ragged"].sum(axis=1))) == 5
    assert found["ragged"].sum(axis=1).max() == 64
    assert found["longest"].all()
    assert found["longest"].shape[1] == 64
    assert found["padded tail"].shape[1] == 64
    assert not found["padded tail"][:, 8:].any()


def test_a_tail_of_padding_is_nothing_to_a_model_that_masks() -> None:
    """A model that looks under the mask does not move; one that averages over the length does."""
    inputs = probes(1000, 64)["padded tail"]
    assert tail(sums, inputs) == 0
    assert tail(lambda found: sums(found) / found["input_ids"].shape[1], inputs) > 0


def test_answers_come_in_the_order_of_the_texts() -> None:
    """Whatever the lengths, row i is the answer for text i."""
    ids = [[i + 1] * (i * 7 % 11 + 1) for i in range(50)]
    assert by_length(sums, ids)[:, 0].tolist() == [sum(row) for row in ids]


def found(**changed: float) -> Found:
    values = {
        "n": 3000,
        "max_difference": 0.1,
        "mean_difference": 0.01,
        "label_flips": 20,
        "macro_f1_loss": 0.001,
    }
    measured = {"one row": 0.01, "ragged": 0.01, "longest": 0.01, "padded tail": 0.0}
    probed = {name: changed.pop(name) for name in list(changed) if name in measured}
    return Found(Parity(**{**values, **changed}), {**measured, **probed}, {})  # type: ignore[arg-type]


def test_what_keeps_parity_passes() -> None:
    """Twenty flips in three thousand are within one in a hundred."""
    demand("graph.onnx", found(), LIMITS["int8"])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"label_flips": 31}, "flips 31 of 3000"),
        ({"macro_f1_loss": 0.0031}, "loses 0.0031 macro F1"),
        ({"padded tail": 0.05}, "padded tail"),
        ({"longest": float("nan")}, "longest"),
    ],
)
def test_what_lost_too_much_is_named(changed: dict[str, float], says: str) -> None:
    """Flips, macro F1, padding that matters and answers that are no numbers each fail with the file's name."""
    with pytest.raises(TrainingError, match=says) as caught:
        demand("graph.onnx", found(**changed), LIMITS["int8"])
    assert str(caught.value).startswith("graph.onnx")


def test_of_few_texts_two_may_flip() -> None:
    """Two flips in sixty are chance, four are not."""
    demand("graph.onnx", found(n=60, label_flips=2, macro_f1_loss=0.03), LIMITS["int8"])
    with pytest.raises(TrainingError, match="flips 4"):
        demand("graph.onnx", found(n=60, label_flips=4), LIMITS["int8"])
