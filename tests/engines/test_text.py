"""From texts to probabilities: cleaning, buckets, order, temperature."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.bundle import active_folder, open_bundle
from engines.engine import Arrays, EngineError, Limits
from engines.text import (
    TextClassifier,
    clean,
    from_bundle,
    open_classifier,
    padded,
    plan,
    softmax,
    wordpieces,
)

BUNDLES = Path(__file__).parents[2] / "models" / "bundles"
HEADLINES = [
    "Shares plunge after the bank reports a record loss",
    "Profit surges, dividend raised",
    "Annual meeting to be held in May",
    "Fraud probe: stock crashes 30 per cent",
]


class Echo:
    """An engine whose logits tell which row it saw: the first token id, and the row's length."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.answer: float | None = None

    def name(self) -> str:
        return "echo"

    def limits(self) -> Limits:
        return Limits(4, 16)

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        self.shapes.append(inputs["input_ids"].shape)
        first = inputs["input_ids"][:, 0] / 1000
        logits = np.stack([first, inputs["attention_mask"].sum(axis=1) / 10], axis=1).astype(np.float32)
        return logits if self.answer is None else np.full_like(logits, self.answer)

    def warm(self) -> None:
        pass

    def close(self) -> None:
        pass


def numbers(texts: Sequence[str]) -> list[list[int]]:
    """`7 3` is a text of three tokens that begins with 7."""
    return [[int(text.split()[0])] * int(text.split()[1]) for text in texts]


@pytest.fixture(params=["tiny", "onnxruntime"], scope="module")
def classifier(request: pytest.FixtureRequest) -> Iterator[TextClassifier]:
    opened = open_classifier(BUNDLES, "news", request.param)
    yield opened
    opened.close()


@given(st.lists(st.integers(1, 200)), st.integers(1, 16), st.integers(1, 1000))
def test_every_text_is_in_one_batch(lengths: list[int], rows: int, tokens: int) -> None:
    """A plan holds each position once, in batches within both bounds, none reaching into another's lengths."""
    batches = plan(lengths, rows, tokens)
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(len(lengths)))
    assert all(0 < len(batch) <= rows for batch in batches)
    bounds = [(min(lengths[i] for i in batch), max(lengths[i] for i in batch)) for batch in batches]
    assert all(
        len(batch) == 1 or len(batch) * longest <= tokens
        for batch, (_, longest) in zip(batches, bounds, strict=True)
    )
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(bounds))


@given(st.lists(st.tuples(st.integers(1, 900), st.integers(1, 16)), max_size=40))
def test_answers_come_in_the_order_of_the_texts(texts: list[tuple[int, int]]) -> None:
    """Whatever the lengths, row i of the answer is the answer for text i, and nothing is lost."""
    engine = Echo()
    found = TextClassifier(engine, numbers, ("a", "b"), "m").probabilities([f"{a} {b}" for a, b in texts])
    logits = np.array([[a / 1000, b / 10] for a, b in texts], np.float32).reshape(-1, 2)
    np.testing.assert_allclose(found, softmax(logits), atol=1e-6)
    assert sum(shape[0] for shape in engine.shapes) == len(texts)


@given(st.lists(st.lists(st.integers(1, 30000), min_size=1, max_size=20), max_size=8))
def test_padding_is_masked(ids: list[list[int]]) -> None:
    """Under the mask stand the ids, elsewhere zeros."""
    arrays = padded(ids)
    for row, grid, mask in zip(ids, arrays["input_ids"], arrays["attention_mask"], strict=True):
        assert grid[mask.astype(bool)].tolist() == row
        assert not grid[len(row) :].any()


@given(st.text(), st.integers(1, 300))
def test_clean_text_is_bounded_and_stays_clean(text: str, longest: int) -> None:
    """Cleaning is idempotent, has no links, and never makes a text longer than allowed."""
    once = clean(text, longest)
    assert len(once) <= longest
    assert clean(once, longest) == once
    assert "https://" not in once


def test_links_go_and_cashtags_stay() -> None:
    """A tweet keeps its cashtags."""
    assert clean("$BYND -  cut \n https://t.co/x1 now") == "$BYND - cut now"


@given(
    st.lists(st.lists(st.floats(-80, 80, width=32), min_size=3, max_size=3), min_size=1), st.floats(0.3, 5)
)
def test_probabilities_sum_to_one(rows: list[list[float]], temperature: float) -> None:
    """Softmax rows sum to one at any temperature, and the order of the classes does not change."""
    logits = np.array(rows, np.float32)
    found = softmax(logits, temperature)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert (found[np.arange(len(rows)), logits.argmax(axis=1)] == found.max(axis=1)).all()


def test_a_headline_is_read_rightly(classifier: TextClassifier) -> None:
    """Plain headlines get the label that a reader would give them."""
    found = classifier.probabilities(HEADLINES)
    assert [classifier.labels[i] for i in found.argmax(axis=1)] == [
        "negative",
        "positive",
        "neutral",
        "negative",
    ]
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert found.dtype == np.float32


def test_no_texts_give_no_rows(classifier: TextClassifier) -> None:
    """An empty list is answered with shape [0, k]."""
    assert classifier.probabilities([]).shape == (0, 3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "\ud800 lone",
        "\x00",
        "🚀" * 500,
        "x" * 10_000_000,
        " " * 10_000_000 + "a",
        "好消息 " * 4000,
    ],
)
def test_any_text_is_taken(classifier: TextClassifier, text: str) -> None:
    """Empty, broken, foreign and huge texts get probabilities like any other, and do not change a neighbour's."""
    found = classifier.probabilities([text, HEADLINES[0]])
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[1], classifier.probabilities([HEADLINES[0]])[0], atol=0.01)


def test_an_answer_does_not_depend_on_the_batch(classifier: TextClassifier) -> None:
    """A headline scored among others gets what it gets alone, so that a replay gives the same content."""
    alone = np.concatenate([classifier.probabilities([text]) for text in HEADLINES])
    np.testing.assert_allclose(classifier.probabilities(HEADLINES * 5), np.tile(alone, (5, 1)), atol=0.01)


def test_a_number_that_is_not_finite_is_no_answer() -> None:
    """Logits with NaN are an EngineError, not a probability."""
    engine = Echo()
    engine.answer = float("nan")
    with pytest.raises(EngineError, match="not finite"):
        TextClassifier(engine, numbers, ("a", "b"), "m").probabilities(["1 1"])


def test_an_unknown_engine_is_said_in_one_line() -> None:
    """An engine that is not in the table is an EngineError of one line."""
    with pytest.raises(EngineError, match="unknown engine 'warp'") as caught:
        open_classifier(BUNDLES, "news", "warp")
    assert "\n" not in str(caught.value)


def test_models_in_use_share_a_tokeniser() -> None:
    """A second model with the same tokeniser file makes none of its own."""
    bundle = open_bundle(active_folder(BUNDLES, "news"))
    first, second = from_bundle(bundle, "onnxruntime"), from_bundle(bundle, "onnxruntime")
    assert first._tokenise is second._tokenise
    assert first.tokens(HEADLINES) == wordpieces(bundle.read("tokenizer.json"), 128)(HEADLINES)


def test_tiny_knows_its_tasks() -> None:
    """The test engine refuses a task that it has no labels for."""
    with pytest.raises(EngineError, match="knows no task 'chat'"):
        open_classifier(BUNDLES, "chat", "tiny")


def test_records_can_name_model_and_engine(classifier: TextClassifier) -> None:
    """Model and engine are named as the contract's records name them."""
    assert classifier.model.startswith("news/")
    assert classifier.engine in ("tiny", "onnxruntime-int8")
    assert classifier.labels == ("negative", "neutral", "positive")
    classifier.warm()
