"""`POST /score` of a news worker: single headlines through the micro-batcher, beside the stream.

    {"title": "Apple shares slump"}                          -> {"sentiment": ..., "entities": [...], ...}
    {"titles": ["...", ...], "priority": "backfill"}         -> a list of those, in order

Nothing is stored or published. Live callers go before backfill, and both take turns with the pipeline's own batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from numpy.typing import NDArray

from engines.batcher import Batcher, Reply
from engines.line import Priority
from engines.swap import HotSwap
from engines.text import TextClassifier
from streams.records import Malformed, Text

AT_ONCE = 64  # titles in one request
WAITING = 256  # items in the line
PATIENCE = 5.0  # seconds that an item may wait for the engine, unless its caller says less


class Asked(msgspec.Struct, frozen=True):
    """The body of a request."""

    title: Text | None = None
    titles: Annotated[list[Text], msgspec.Meta(max_length=AT_ONCE)] | None = None
    priority: Literal["live", "backfill"] = "live"
    within: Annotated[float, msgspec.Meta(gt=0, le=60)] = PATIENCE


class Scored(NamedTuple):
    """Probabilities of one title, and what gave them."""

    p: NDArray[Any]
    model: str
    engine: str


class Answers:
    """Takes bodies, gives JSON values. `clean` makes of a title what the model sees, `read` a JSON object of both."""

    def __init__(
        self,
        models: HotSwap[TextClassifier],
        clean: Callable[[str], str],
        read: Callable[[str, Scored], dict[str, Any]],
    ) -> None:
        self._models = models
        self._clean = clean
        self._read = read
        limits = models.now.limits
        self._batcher: Batcher[str, Scored] = Batcher(
            self._score, self._size, rows=limits.rows, tokens=limits.tokens, capacity=WAITING, name="answer"
        )

    def __call__(self, body: bytes) -> Any:
        """The answer to one request; raises Malformed, TooLate or Closed, or what the engine raised."""
        try:
            asked = msgspec.json.decode(body, type=Asked)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Malformed(str(error)) from None
        if (asked.title is None) == (asked.titles is None):
            raise Malformed("one of `title` and `titles` is needed")
        titles = [
            self._clean(title) for title in (asked.titles if asked.title is None else [asked.title]) or ()
        ]
        priority = Priority[asked.priority.upper()]
        waiting: list[Future[Reply[Scored]]] = []
        try:
            for title in titles:
                waiting.append(self._batcher.submit(title, priority, within=asked.within))
            replies = [future.result() for future in waiting]
        except BaseException:
            for future in waiting:
                future.cancel()
            raise
        answers = [self._told(title, reply) for title, reply in zip(titles, replies, strict=True)]
        return answers if asked.title is None else answers[0]

    def close(self) -> None:
        """Tell those who wait that no answer comes."""
        self._batcher.close()

    def _size(self, title: str) -> int:
        with self._models.use() as model:
            return len(model.tokens([title])[0])

    def _score(self, titles: Sequence[str]) -> list[Scored]:
        with self._models.use() as model:
            return [Scored(p, model.model, model.engine) for p in model.probabilities(titles)]

    def _told(self, title: str, reply: Reply[Scored]) -> dict[str, Any]:
        times = {"queue_ms": round(1000 * reply.queued, 3), "inference_ms": round(1000 * reply.inference, 3)}
        return self._read(title, reply.value) | times
