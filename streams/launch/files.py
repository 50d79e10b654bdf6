"""Data files as records: a row of a file becomes a record of a topic, or an error with its line number."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from streams import records
from streams.launch.rows import Row, read_rows
from streams.records import Interaction, Malformed, Record

_CHUNK = 1 << 20


class Line(NamedTuple):
    """A row as the bytes of its record, or the reason why it is none."""

    number: int
    raw: bytes
    record: Record | None
    error: str


def read_records(path: str, kind: type[Record], mapping: Mapping[str, str], now: float) -> Iterator[Line]:
    """The rows of a file as records of this kind; `-` is standard input.

    Times without a zone are UTC; a missing id is made of the file's digest and the row's number. Raises
    DataFileError when the file cannot be read.
    """
    name = ""
    for row in read_rows(path, mapping):
        if row.data is not None and not row.data.get("id"):
            name = name or _digest(path)
            row.data["id"] = f"{name}-{row.line}"
        yield _line(row, kind, now)


def _line(row: Row, kind: type[Record], now: float) -> Line:
    if row.data is None:
        return Line(row.line, b"", None, row.error or "not readable")
    raw = b""
    try:
        record = msgspec.convert(_plain(row.data, kind), kind, strict=False)
        raw = records.encode(record)
        records.decode(kind, raw, now)
    except (
        msgspec.ValidationError,
        Malformed,
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
    ) as error:
        return Line(row.line, raw or _bytes(row.data), None, str(error))
    return Line(row.line, raw, record, "")


def _plain(data: dict[str, Any], kind: type[Record]) -> dict[str, Any]:
    """A row's values in the types of the wire: cells of a CSV are all strings, and times may lack a zone."""
    made = dict(data)
    for item in msgspec.structs.fields(kind):
        value = made.get(item.encode_name)
        if value == "" and not item.required:
            del made[item.encode_name]  # an empty cell is a missing field
        elif isinstance(value, str) and item.type == list[str]:
            made[item.encode_name] = _list(value)
    if isinstance(made.get("ts"), str):
        made["ts"] = _with_zone(made["ts"].strip())
    if kind is Interaction and not made.get("kind"):
        made["kind"] = "buy"
    return made


def _list(cell: str) -> list[str]:
    if cell.lstrip().startswith("["):
        return list(json.loads(cell))
    return [part.strip() for part in cell.replace(";", "|").replace(",", "|").split("|") if part.strip()]


def _with_zone(text: str) -> str:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text  # the decoder says what is wrong with it
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def _digest(path: str) -> str:
    """Of the file's bytes; standard input can be read once only and gets a random name instead."""
    if path == "-":
        return secrets.token_hex(6)
    found = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()[:12]


def _bytes(data: dict[str, Any]) -> bytes:
    try:
        return json.dumps(data).encode()
    except (ValueError, RecursionError):
        return b""
