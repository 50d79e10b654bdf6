"""News: from a headline on Kafka to its sentiment, its story, its entities' trends, and a signal for each entity.

Read it from top to bottom: `prepare` is what happens to a batch of headlines, `news.lua` what the store does with each,
`derive` what is published. Thresholds, tensors and key names live elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from engines.text import TextClassifier, open_serving, serve_always
from streams import records
from streams.guard import Item, Out, Prepared
from streams.headlines import stories
from streams.headlines.answers import Answers, Scored
from streams.headlines.entities import Entity, Finder, load_gazetteer
from streams.headlines.text import normalise
from streams.records import EntitySentiment, Label, News, NewsScored, Sentiment, Signal
from streams.settings import Settings
from streams.state.keys import MARKET
from streams.state.store import Store, packed
from streams.windows.buckets import DAY, FIELDS, SIZES

LETTERS = {label: letter for letter, label in FIELDS.items() if label in ("negative", "neutral", "positive")}
LABELS: tuple[Label, Label, Label] = ("negative", "neutral", "positive")  # the order of the bundle's columns
MARKET_FEED = 1000  # headlines kept for the market, and for each entity
ENTITY_FEED = 100
ENTITIES = 10_000  # entities that are kept in the list of known ones


class Reading(NamedTuple):
    """What was read out of one headline."""

    sentiment: Sentiment
    entities: list[EntitySentiment]
    model: str
    engine: str


def open_pipeline(settings: Settings, store: Store, threads: int) -> NewsPipeline:  # noqa: ARG001
    """The pipeline with its engine warm; for the table of pipelines."""
    return NewsPipeline(settings, threads=threads)


class NewsPipeline:
    """The news pipeline; `guard.Pipeline` says what each method is for."""

    name = "news"
    scripts = ("stories", "news", "guard")
    piece = 16
    batch = 256

    def __init__(
        self, settings: Settings, *, threads: int = 1, classifier: TextClassifier | None = None
    ) -> None:
        self._finder = Finder(load_gazetteer(settings.gazetteer))
        self._models = (
            serve_always(classifier, LABELS)
            if classifier
            else open_serving(settings.bundles, "news", settings.engine, threads, LABELS)
        )
        self._answers: Answers | None = None
        self._scored_topic, self._signals_topic = settings.topic("news.scored"), settings.topic("signals")
        self._lua = {
            "sizes": [[size.name, size.width, size.span, size.slice] for size in SIZES.values()],
            "story_hours": settings.story_hours,
            "market_feed": MARKET_FEED,
            "entity_feed": ENTITY_FEED,
            "feed_ms": 3 * DAY,
            "entities_max": ENTITIES,
        }

    @property
    def model(self) -> str:
        """What scores now; a record names what scored it."""
        return self._models.now.model

    @property
    def engine(self) -> str:
        """The engine of what scores now."""
        return self._models.now.engine

    def prepare(self, batch: Sequence[News], now: float) -> list[Prepared]:
        """Text, entities, sentiment, and what the store needs to find the story."""
        titles = [normalise(record.title) for record in batch]
        found = [
            self._finder.find(title, record.symbols) for title, record in zip(titles, batch, strict=True)
        ]
        with self._models.use() as classifier:
            probabilities = classifier.probabilities(titles)
            model, engine = classifier.model, classifier.engine
        return [
            self._prepared(record, title, entities, Scored(p, model, engine), now)
            for record, title, entities, p in zip(batch, titles, found, probabilities, strict=True)
        ]

    def settings(self) -> dict[str, Any]:
        """For news.lua."""
        return self._lua

    def derive(self, record: News, prepared: Prepared, decision: Any, now: float) -> Iterator[Out]:
        """The scored headline, and a signal for each entity that it touched."""
        reading: Reading = prepared.payload
        story, duplicate_of = decision
        scored = NewsScored(
            id=record.id,
            ts=record.ts,
            scored_at=records.as_time(now),
            story=story,
            duplicate_of=duplicate_of or None,
            sentiment=reading.sentiment,
            entities=reading.entities,
            topics=[],
            model=reading.model,
            engine=reading.engine,
        )
        yield Out(self._scored_topic, record.id.encode(), records.encode(scored))
        if not duplicate_of:
            for entity in reading.entities:
                yield Out(
                    self._signals_topic,
                    _name(entity).encode(),
                    records.encode(_signal(record, reading, entity)),
                )

    def mask(self, raw: bytes) -> bytes:
        """Headlines are public: kept as they are."""
        return raw

    def settle(self, store: Store, done: Sequence[Item], now: float) -> None:
        """Nothing follows from a batch as a whole."""

    def tick(self, store: Store, owned: Mapping[str, Sequence[int]], now: float) -> None:
        """No timers."""

    def watch(self, noted: Callable[[bool], object]) -> None:
        """Swap the model when another version is activated, beside the running stream; `noted` is told."""
        self._models.watch(noted)

    def posts(self) -> dict[str, Callable[[bytes], Any]]:
        """What a worker answers over HTTP."""
        if self._answers is None:
            self._answers = Answers(self._models, normalise, self._answered)
        return {"/score": self._answers}

    def close(self) -> None:
        """Give the engine back."""
        if self._answers is not None:
            self._answers.close()
        self._models.close()

    def _answered(self, title: str, scored: Scored) -> dict[str, Any]:
        return _read(self._finder.find(title), scored)._asdict()

    def _prepared(
        self, record: News, title: str, entities: Sequence[Entity], scored: Scored, now: float
    ) -> Prepared:
        reading = _read(entities, scored)
        sentiment, towards, label = reading.sentiment, reading.entities, reading.sentiment.label
        names = [MARKET, *(_name(entity) for entity in towards)]
        effect = {
            "story": _for_lua(
                stories.prepare(records.short(record.id), title, [entity.symbol for entity in entities])
            ),
            "ts": records.milliseconds(record.ts),
            "feed": _feed_line(record, title, sentiment, towards, now),
            "names": names,
            "labels": [LETTERS[label]] * len(names),
        }
        return Prepared(effect, reading)


def _read(entities: Sequence[Entity], scored: Scored) -> Reading:
    """One sentiment for the whole headline so far, so the one towards each of its entities is the same."""
    negative, neutral, positive = (round(float(value), 4) for value in scored.p)
    label: Label = LABELS[int(scored.p.argmax())]
    towards = [
        EntitySentiment(
            symbol=entity.symbol, name=entity.name, label=label, p=round(float(scored.p.max()), 4)
        )
        for entity in entities
    ]
    sentiment = Sentiment(label=label, p=(negative, neutral, positive))
    return Reading(sentiment, towards, scored.model, scored.engine)


def _name(entity: EntitySentiment) -> str:
    return f"symbol:{entity.symbol}"


def _signal(record: News, reading: Reading, entity: EntitySentiment) -> Signal:
    """Value: the probability of positive less that of negative, -1 to 1; the baseline is indifference."""
    negative, _, positive = reading.sentiment.p
    name, source = _name(entity), records.short(record.id)
    return Signal(
        id=f"{source}:sentiment:{name}",
        ts=record.ts,
        kind="sentiment",
        entity=name,
        value=round(positive - negative, 4),
        baseline=0.0,
        severity="warning" if entity.label == "negative" else "info",
        evidence=[source],
    )


def _for_lua(prepared: Mapping[str, Any]) -> dict[str, Any]:
    return {name: packed(value) if isinstance(value, bytes) else value for name, value in prepared.items()}


def _feed_line(
    record: News, title: str, sentiment: Sentiment, entities: Sequence[EntitySentiment], now: float
) -> str:
    """A feed's JSON object up to its last brace: the store adds the story."""
    line = {
        "id": records.short(record.id),
        "ts": record.ts,
        "title": title,
        "source": record.source,
        "url": record.url[:2000],
        "sentiment": sentiment,
        "entities": entities,
        "scored_at": records.as_time(now),
    }
    return msgspec.json.encode(line)[:-1].decode()
