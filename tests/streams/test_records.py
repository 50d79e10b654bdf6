"""The wire contract: golden records, every bound, and nothing but Malformed for whatever bytes come in."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import records
from streams.records import (
    DERIVED,
    KEY_FIELDS,
    MAX_RECORD,
    SOURCES,
    Malformed,
    News,
    Record,
    Transaction,
    decode,
)

NOW = datetime(2026, 11, 21, 9, 30, 1, tzinfo=UTC).timestamp()
KINDS = SOURCES | DERIVED
GOLDEN = (
    Path(__file__).parent / "golden"
)  # a file a topic: a record with every field, one with the required fields

DEFAULTS: dict[str, dict[str, Any]] = {  # as the contract writes them
    "news": {"body": "", "url": "", "lang": "", "symbols": []},
    "transactions": {"currency": "USD", "channel": "", "country": "", "customer": ""},
    "chat": {"role": "customer", "lang": ""},
    "interactions": {"value": 1.0},
    "items": {"text": "", "tags": [], "active": True},
    "labels": {"by": "", "account": "", "terminal": ""},
    "commands": {"to": "", "until": None, "note": "", "match": {}},
    "transactions.scored": {"reasons": [], "rules": []},
    "signals": {"by": "", "note": ""},
}
KEYS = {  # of the golden record with every field
    "news": b"reuters-8841",
    "transactions": b"a-17",
    "chat": b"v-3",
    "interactions": b"c-9",
    "items": b"fund-7",
    "labels": b"t-1",
    "commands": b"",
    "news.scored": b"reuters-8841",
    "transactions.scored": b"a-17",
    "chat.answered": b"v-3",
    "recommendations": b"c-9",
    "signals": b"symbol:GBX",
    "alerts": b"sentiment:symbol:GBX",
}


def golden(topic: str) -> tuple[bytes, bytes]:
    full, least = (GOLDEN / f"{topic}.jsonl").read_bytes().splitlines()
    return full, least


def news(**changes: Any) -> bytes:
    record = {"id": "n-1", "ts": "2026-11-21T09:30:00Z", "source": "wire", "title": "Globex falls"} | changes
    return json.dumps({name: value for name, value in record.items() if value is not ...}).encode()


def reason(raw: bytes, kind: type[Record] = News) -> str:
    with pytest.raises(Malformed) as caught:
        decode(kind, raw, NOW)
    return str(caught.value)


def test_every_record_has_a_golden_file() -> None:
    """There is a golden file for each topic of the tables, and for nothing else."""
    assert {path.stem for path in GOLDEN.glob("*.jsonl")} == set(KINDS)


@pytest.mark.parametrize("topic", KINDS)
def test_golden_record_survives_decode_and_encode(topic: str) -> None:
    """A record with every field set comes back byte for byte."""
    full, _ = golden(topic)
    record = decode(KINDS[topic], full, NOW)
    assert records.encode(record) == full
    assert list(json.loads(full)) == [item.encode_name for item in msgspec.structs.fields(KINDS[topic])]


@pytest.mark.parametrize("topic", KINDS)
def test_golden_defaults(topic: str) -> None:
    """What a record leaves out takes the default that the contract names."""
    _, least = golden(topic)
    sent = json.loads(least)
    assert json.loads(records.encode(decode(KINDS[topic], least, NOW))) == DEFAULTS.get(topic, {}) | sent


@pytest.mark.parametrize("topic", KINDS)
def test_required_fields(topic: str) -> None:
    """Each field of the least record is required: without it the record is malformed, and the reason names it."""
    sent = json.loads(golden(topic)[1])
    optional = {"ref"} if topic == "commands" else set()
    for name in set(sent) - optional:
        rest = {key: value for key, value in sent.items() if key != name}
        assert f"`{name}`" in reason(json.dumps(rest).encode(), KINDS[topic])


@pytest.mark.parametrize("topic", KINDS)
def test_mistyped_fields(topic: str) -> None:
    """A field of another JSON type is malformed, and the reason says where."""
    sent = json.loads(golden(topic)[0])
    for name in sent:
        assert f"`$.{name}`" in reason(
            json.dumps(sent | {name: {"of": ["another"]} if name != "match" else 1}).encode(), KINDS[topic]
        )


@pytest.mark.parametrize("topic", KINDS)
def test_unknown_fields_are_ignored(topic: str) -> None:
    """A field that the contract does not know changes nothing."""
    _, least = golden(topic)
    more = json.dumps({"later": {"nested": [1, None, "x"]}} | json.loads(least)).encode()
    assert decode(KINDS[topic], more, NOW) == decode(KINDS[topic], least, NOW)


@pytest.mark.parametrize("topic", KINDS)
def test_key(topic: str) -> None:
    """The Kafka key of a record is the field that the contract names."""
    assert set(KEY_FIELDS) == set(KINDS)
    assert records.key_of(topic, decode(KINDS[topic], golden(topic)[0], NOW)) == KEYS[topic]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "empty"),
        (b"null", "Expected `object`, got `null`"),
        (b"[]", "Expected `object`, got `array`"),
        (news()[:-9], "truncated"),
        (news() + b"{}", "trailing"),
        (news(id=""), "length >= 1 - at `$.id`"),
        (news(id=" \t\u2003"), "id is blank"),
        (news(id=7), "Expected `str`, got `int` - at `$.id`"),
        (news(title="x" * 2001), "length <= 2000 - at `$.title`"),
        (news(title=None), "at `$.title`"),
        (news(body="x" * 100_001), "length <= 100000 - at `$.body`"),
        (news(symbols=["A", 1]), "at `$.symbols[1]`"),
        (news(ts="1999-12-31T23:59:59Z"), "before 2000"),
        (news(ts="2000-01-01T00:30:00+01:00"), "before 2000"),
        (news(ts="0001-01-01T00:00:00+23:59"), "before 2000"),
        (news(ts="2026-11-21T09:35:02Z"), "ahead of the clock"),
        (news(ts="9999-12-31T23:59:59-23:59"), "ahead of the clock"),
        (news(ts="2026-11-21T09:30:00"), "timezone"),
        (news(ts="21 November 2026"), "at `$.ts`"),
        (news(ts=1795000000), "at `$.ts`"),
        (news(source=...), "missing required field `source`"),
        (news(later="x" * MAX_RECORD), f"more than {MAX_RECORD}"),
        (news(title="TITLE").replace(b"TITLE", b"\xff\xfe"), "utf-8"),
        (news(later="LATER").replace(b"LATER", b"\xff\xfe"), "utf-8"),
        (news(title="TITLE").replace(b"TITLE", b"\\ud800"), ""),
        (news(later="LATER").replace(b'"LATER"', b"[" * 100_000 + b"]" * 100_000), "recursion"),
        (news(later="LATER").replace(b'"LATER"', b'{"a":' * 40_000), "recursion"),
    ],
)
def test_malformed_news(raw: bytes, why: str) -> None:
    """Each bound of the contract has its own reason."""
    assert why.lower() in reason(raw).lower()


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", '"12.5"', "true", "null", "1" * 400]
)
def test_malformed_numbers(number: str) -> None:
    """An amount is a finite JSON number or the record is malformed."""
    raw = golden("transactions")[1].replace(b"129.95", number.encode())
    assert reason(raw, Transaction)


@pytest.mark.parametrize(
    "raw",
    [
        news(id="x" * 100_000, title="x" * 2000, body="x" * 100_000),
        news(title="\u00e9" * 2000),
        news(ts="2000-01-01T00:00:00Z"),
        news(ts="2026-11-21T09:35:01Z"),
        news(ts="2026-11-21T10:30:00.123456789+01:00"),
        news(later=[[[[[[[[]]]]]]]]),
        news(later="x" * (MAX_RECORD - len(news(later="")))),
        b" \n" + news(),
    ],
)
def test_bounds_are_inclusive(raw: bytes) -> None:
    """What lies exactly on a bound is a good record."""
    assert len(raw) <= MAX_RECORD
    assert decode(News, raw, NOW).source == "wire"


def test_times() -> None:
    """Milliseconds are rounded down, before 1970 as well."""
    assert records.milliseconds(records.as_time(1.9996)) == 1999
    assert records.milliseconds(records.as_time(-0.0004)) == -1


@given(raw=st.binary(max_size=200), topic=st.sampled_from(sorted(KINDS)))
def test_any_bytes_decode_or_are_malformed(raw: bytes, topic: str) -> None:
    """For no bytes does the decoder raise anything but Malformed."""
    settle(KINDS[topic], raw)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.datetimes().map(lambda time: time.isoformat() + "Z"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data(), topic=st.sampled_from(sorted(KINDS)))
def test_any_json_decodes_or_is_malformed(data: st.DataObject, topic: str) -> None:
    """A golden record with any fields replaced by any JSON raises nothing but Malformed, and what passes is sound."""
    sent = json.loads(golden(topic)[0])
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(sent)), JSON, max_size=3))
    record = settle(KINDS[topic], json.dumps(sent | changed).encode())
    if record is not None:
        assert record.id.strip()
        assert records.EARLIEST <= record.ts <= records.as_time(NOW + 300)
        assert decode(KINDS[topic], records.encode(record), NOW) == record


@given(cut=st.integers(0, 400), noise=st.binary(max_size=4), topic=st.sampled_from(sorted(KINDS)))
def test_damaged_golden_records(cut: int, noise: bytes, topic: str) -> None:
    """Bytes written into the middle of a good record raise nothing but Malformed."""
    full, _ = golden(topic)
    settle(KINDS[topic], full[:cut] + noise + full[cut + len(noise) :])


def settle(kind: type[Record], raw: bytes) -> Record | None:
    try:
        return decode(kind, raw, NOW)
    except Malformed:
        return None
