"""A classifier without weights for tests of whole paths: a word list decides, always the same way.

It is the real thing in shape (token ids in, logits out), so that streams are tested through the code that
serves, and fast enough that a test measures the stream and not the model. Its judgement is worth nothing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engines.engine import Arrays, EngineError, Limits

LABELS = {"news": ("negative", "neutral", "positive")}
MAX_TOKENS = 128

_WORD = re.compile(r"\w+")
_NEGATIVE = """bad bankrupt bankruptcy bleeds collapse collapses crash crashed crashes crisis cut cuts decline
    declines default downgrade downgraded drop drops fall falls fell fined fraud hit investigation lawsuit
    layoffs loss losses miss misses negative plunge plunges probe recall scandal scandals sink sinks slide
    slides slump slumps sues terrible tumble tumbles warning weak worst"""
_POSITIVE = """beat beats best boost boosts excellent gain gains good grow grows growth high jump jumps
    positive profit profits raise raises rallies rally record rise rises rose soar soars strong surge surges
    upgrade upgraded win wins"""


def word_id(word: str) -> int:
    """The token id of a word: a checksum, so that no vocabulary is needed; 0 is padding."""
    return zlib.crc32(word.encode("utf-8", "replace")) % 0x7FFFFFFF + 1


def tokenise(texts: Sequence[str]) -> list[list[int]]:
    """At least one id and at most MAX_TOKENS for each text."""
    found = ([word_id(word) for word in _WORD.findall(text.lower())[:MAX_TOKENS]] for text in texts)
    return [ids or [word_id("")] for ids in found]


class TinyEngine:
    """Negative where more negative than positive words stand, positive the other way, neutral otherwise."""

    def __init__(self) -> None:
        self._negative = np.array(sorted(map(word_id, _NEGATIVE.split())))
        self._positive = np.array(sorted(map(word_id, _POSITIVE.split())))
        self._closed = False

    def name(self) -> str:
        return "tiny"

    def limits(self) -> Limits:
        return Limits(rows=1024, columns=MAX_TOKENS)

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        if self._closed:
            raise EngineError("the engine `tiny` is closed")
        ids = inputs["input_ids"] * inputs["attention_mask"]
        sad = np.isin(ids, self._negative).sum(axis=1)
        glad = np.isin(ids, self._positive).sum(axis=1)
        logits = np.zeros((len(ids), 3), np.float32)
        logits[:, 1] = 1.0
        logits[:, 0] = 3.0 * np.maximum(sad - glad, 0)
        logits[:, 2] = 3.0 * np.maximum(glad - sad, 0)
        return logits

    def warm(self) -> None:
        self.infer({"input_ids": np.ones((1, 1), np.int64), "attention_mask": np.ones((1, 1), np.int64)})

    def close(self) -> None:
        self._closed = True
