"""The wire: every record of every topic as a msgspec struct with its bounds, and the one decoder for what comes in.

Unknown fields are ignored; only optional fields are ever added. Times are RFC 3339 with a zone on the wire and
timezone-aware datetimes here. `decode` raises `Malformed` for everything that the contract calls a dead letter.
"""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

MAX_RECORD = 256 * 1024  # bytes of a record, and what a dead letter keeps of a longer one
MAX_TITLE = 2_000  # characters of a title or a chat text
MAX_BODY = 100_000
LONG_ID = 512  # characters beyond which others name a record by a short form of its id
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
AHEAD = timedelta(minutes=5)  # how far a record's time may lie ahead of the clock

Id = Annotated[str, Meta(min_length=1)]
Text = Annotated[str, Meta(max_length=MAX_TITLE)]
Body = Annotated[str, Meta(max_length=MAX_BODY)]
Time = Annotated[datetime, Meta(tz=True)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Label = Literal["negative", "neutral", "positive"]
Severity = Literal["info", "warning", "critical"]
State = Literal["pending", "firing", "acknowledged", "silenced", "resolved"]


class Malformed(ValueError):
    """The bytes are no record of this kind: the producer's fault, a dead letter. The message says what is wrong."""


class Record(Struct, kw_only=True, frozen=True):
    """What every record on a topic has."""

    id: Id
    ts: Time


# Source topics


class News(Record, kw_only=True, frozen=True):
    """A headline on `news`."""

    source: str
    title: Text
    body: Body = ""
    url: str = ""
    lang: str = ""
    symbols: list[str] = []


class Transaction(Record, kw_only=True, frozen=True):
    """A payment on `transactions`; the amount is in `currency`."""

    account: str
    terminal: str
    amount: float
    currency: str = "USD"
    channel: str = ""
    country: str = ""
    customer: Text = ""


class Chat(Record, kw_only=True, frozen=True):
    """A message on `chat`."""

    conversation: str
    customer: str
    text: Text
    role: str = "customer"
    lang: str = ""


class Interaction(Record, kw_only=True, frozen=True):
    """What a customer did with an item, on `interactions`."""

    customer: str
    item: str
    kind: Literal["view", "click", "buy", "dismiss"]
    value: float = 1.0


class Item(Record, kw_only=True, frozen=True):
    """A catalogue entry on `items`; of one item the record with the latest `ts` wins."""

    item: str
    title: Text
    text: Body = ""
    tags: list[str] = []
    active: bool = True


class LabelRecord(Record, kw_only=True, frozen=True):
    """A verdict on an earlier record, on `labels`."""

    subject: Literal["transaction", "news", "chat"]
    ref: str
    label: str
    by: str = ""
    account: str = ""
    terminal: str = ""


class Command(Record, kw_only=True, frozen=True):
    """What an analyst does to an alert, on `commands`."""

    by: str
    action: Literal["acknowledge", "assign", "silence", "unsilence", "resolve", "note"]
    ref: str = ""
    to: str = ""
    until: Time | None = None
    note: str = ""
    match: dict[str, str] = {}


# Derived topics


class Sentiment(Struct, kw_only=True, frozen=True):
    """A label, and the probabilities of negative, neutral, positive."""

    label: Label
    p: tuple[Probability, Probability, Probability]


class EntitySentiment(Struct, kw_only=True, frozen=True):
    """The sentiment towards one entity of a headline."""

    symbol: str
    name: str
    label: Label
    p: Probability


class Scored(Struct, kw_only=True, frozen=True):
    """A label and its probability."""

    label: str
    p: Probability


class NewsScored(Record, kw_only=True, frozen=True):
    """A scored headline on `news.scored`."""

    scored_at: Time
    story: str
    duplicate_of: str | None
    sentiment: Sentiment
    entities: list[EntitySentiment]
    topics: list[Scored]
    model: str
    engine: str


class Reason(Struct, kw_only=True, frozen=True):
    """A feature, its value, and what it adds to the log-odds of the score."""

    feature: str
    value: float | str
    contribution: float


class TransactionScored(Record, kw_only=True, frozen=True):
    """A decision on `transactions.scored`; `reasons` on review and block, for the rest on request."""

    scored_at: Time
    account: str
    terminal: str
    amount: float
    score: Probability
    decision: Literal["approve", "review", "block"]
    reasons: list[Reason] = []
    rules: list[str] = []
    model: str
    engine: str


class Answer(Struct, kw_only=True, frozen=True):
    """An answer of the answer bank."""

    id: str
    text: str
    p: Probability


class Handoff(Struct, kw_only=True, frozen=True):
    """Why a conversation goes to a person, and what that person needs."""

    reason: str
    priority: str
    intent: str
    transcript: list[str]
    suggestions: list[str]


class ChatAnswered(Record, kw_only=True, frozen=True):
    """An answer or a hand-off on `chat.answered`; texts are masked."""

    scored_at: Time
    conversation: str
    customer: str
    text: str
    intent: Scored
    out_of_scope: bool
    answer: Answer | None
    handoff: Handoff | None
    sentiment: Scored
    model: str
    engine: str


class Recommended(Struct, kw_only=True, frozen=True):
    """An item of a ranked list, with its reason."""

    item: str
    score: float
    reason: str


class Recommendations(Record, kw_only=True, frozen=True):
    """A customer's ranked list on `recommendations`."""

    scored_at: Time
    customer: str
    items: list[Recommended]
    model: str


class Signal(Record, kw_only=True, frozen=True):
    """What a pipeline saw about an entity, on `signals`; the alerts pipeline judges it."""

    id: Id
    kind: Literal["sentiment", "fraud", "decline_storm", "complaints", "source"]
    entity: str
    value: float
    baseline: float
    severity: Severity
    evidence: list[str]
    by: Text = ""  # whose it is: the account of a payment, say
    note: Text = ""  # one line for people


class Alert(Record, kw_only=True, frozen=True):
    """One transition of an alert, on `alerts`; `version` counts from 1 within the alert."""

    id: Id
    alert: str
    kind: str
    entity: str
    fingerprint: str
    state: State
    severity: Severity
    value: float
    baseline: float
    evidence: list[str]
    version: Annotated[int, Meta(ge=1)]


# One table of the topics: name -> record. A new stream is one line here.
SOURCES: dict[str, type[Record]] = {
    "news": News,
    "transactions": Transaction,
    "chat": Chat,
    "interactions": Interaction,
    "items": Item,
    "labels": LabelRecord,
    "commands": Command,
}
DERIVED: dict[str, type[Record]] = {
    "news.scored": NewsScored,
    "transactions.scored": TransactionScored,
    "chat.answered": ChatAnswered,
    "recommendations": Recommendations,
    "signals": Signal,
    "alerts": Alert,
}
KEY_FIELDS: dict[str, str] = {
    "news": "id",
    "transactions": "account",
    "chat": "conversation",
    "interactions": "customer",
    "items": "item",
    "labels": "ref",
    "commands": "ref",
    "news.scored": "id",
    "transactions.scored": "account",
    "chat.answered": "conversation",
    "recommendations": "customer",
    "signals": "entity",
    "alerts": "fingerprint",
}

R = TypeVar("R", bound=Record)
_decoders: dict[type[Record], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in (*SOURCES.values(), *DERIVED.values())
}
_encoder = msgspec.json.Encoder()


def decode(kind: type[R], raw: bytes | None, now: float) -> R:
    """The record that these bytes hold; `now` is the clock in seconds since 1970.

    Raises Malformed when the contract says that they are a dead letter.
    """
    if not raw:
        raise Malformed("the record is empty")
    if len(raw) > MAX_RECORD:
        raise Malformed(f"the record has {len(raw)} bytes, more than {MAX_RECORD}")
    try:
        str(raw, "utf-8")  # msgspec does not look into the strings of unknown fields
        record: R = _decoders[kind].decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(str(error) or type(error).__name__) from None
    check(record, now)
    return record


def check(record: Record, now: float) -> None:
    """Raise Malformed for what types alone do not say: blank ids, times out of range, numbers that are not finite."""
    if not record.ts >= EARLIEST:
        raise Malformed(f"ts {record.ts.isoformat()} is before 2000")
    if record.ts.timestamp() > now + AHEAD.total_seconds():
        raise Malformed(f"ts {record.ts.isoformat()} is more than five minutes ahead of the clock")
    if not record.id.strip():
        raise Malformed("id is blank")
    for name in _floats(type(record)):
        if not math.isfinite(getattr(record, name)):
            raise Malformed(f"{name} is not finite")


def encode(record: Struct) -> bytes:
    """The record as JSON in UTF-8."""
    return _encoder.encode(record)


def key_of(topic: str, record: Record) -> bytes:
    """The Kafka key of a record on the topic with this short name."""
    return str(getattr(record, KEY_FIELDS[topic])).encode()


def short(identity: str) -> str:
    """The id as others name the record: itself, or of a long one its beginning and a digest.

    Ids of a quarter of a megabyte are allowed, but would fill feeds, and make records of others that no broker takes.
    """
    if len(identity) <= LONG_ID:
        return identity
    digest = hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{identity[:64]}~{digest}"


def as_time(seconds: float) -> datetime:
    """A time on the wire from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def milliseconds(time: datetime) -> int:
    """Milliseconds since 1970, rounded down."""
    return math.floor(time.timestamp() * 1000)


_float_fields: dict[type[Record], tuple[str, ...]] = {}


def _floats(kind: type[Record]) -> tuple[str, ...]:
    if kind not in _float_fields:
        _float_fields[kind] = tuple(item.name for item in msgspec.structs.fields(kind) if item.type is float)
    return _float_fields[kind]
