"""Rows of data files: JSON Lines, or CSV with a header, plain or gzip, from a file or standard input.

Rows come one by one, so that a file of any size fits. A row that cannot be read carries its error; whether to
go on is the caller's decision (`Tolerance` is the rule of the commands that judge and train).
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

LONGEST_FIELD = 16 << 20  # characters; the csv module refuses more than 128 K unless told
GZIP = b"\x1f\x8b"


class DataFileError(Exception):
    """A data file cannot be read, or too many of its rows are wrong; the message is one line."""


@dataclass(frozen=True)
class Row:
    """One row: `data`, or the `error` that stands in its place; `line` counts from 1."""

    line: int
    data: dict[str, Any] | None
    error: str | None


def read_rows(path: Path | str, mapping: Mapping[str, str] | None = None) -> Iterator[Row]:
    """The rows of a file (`-`: standard input) with columns renamed by `mapping` (ours -> theirs).

    The kind is told by the content: JSON Lines where the first character is `{`, CSV otherwise; gzip by its
    first bytes. Values of CSV are strings. Blank lines are skipped. Raises DataFileError if the file cannot
    be opened or is not text at all.
    """
    names = dict(mapping or {})
    with _opened(path) as raw:
        head = raw.peek(2)[:2]
        stream = gzip.GzipFile(fileobj=raw) if head == GZIP else raw
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        try:
            for row in _rows(text):
                yield _checked(row, names)
        except (OSError, EOFError, zlib.error) as error:
            raise DataFileError(f"{path}: {error}") from None


def parse_mapping(text: str) -> dict[str, str]:
    """`ours=theirs,...` as a dict; raises DataFileError for a part that is no pair."""
    pairs = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        if not (ours and equals and theirs):
            raise DataFileError(f"--map: {part!r} is not ours=theirs")
        pairs[ours] = theirs
    return pairs


class Tolerance:
    """Counts rows, reports each wrong one on standard error, and fails with more than one in ten wrong."""

    def __init__(self, path: Path | str, report: TextIO | None = None) -> None:
        self.good = 0
        self.wrong = 0
        self._path = path
        self._report = report or sys.stderr

    def reject(self, line: int, why: str) -> None:
        """Report and count a wrong row."""
        self.wrong += 1
        print(f"{self._path}, line {line}: {why}; skipped", file=self._report)

    def accept(self) -> None:
        """Count a good row."""
        self.good += 1

    def judge(self) -> None:
        """Raise DataFileError where no row is good, or more than one in ten is wrong."""
        total = self.good + self.wrong
        if self.good == 0:
            raise DataFileError(f"{self._path}: no usable row among {total}")
        if self.wrong * 10 > total:
            raise DataFileError(f"{self._path}: {self.wrong} of {total} rows are wrong, more than one in ten")


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[io.BufferedReader]:
    if str(path) == "-":
        yield _buffered(sys.stdin.buffer)
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(Path(path).open("rb"))
        except OSError as error:
            raise DataFileError(f"{path}: {error.strerror}") from None
        yield file


def _buffered(stream: BinaryIO) -> io.BufferedReader:
    return stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[arg-type]


def _rows(text: TextIO) -> Iterator[Row]:
    lines = enumerate(text, start=1)
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        return
    if first[1].lstrip().startswith("{"):
        yield from _json_lines(itertools.chain([first], lines))
    else:
        yield from _csv(first, lines)


def _json_lines(lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Row(number, None, f"not JSON: {str(error)[:200]}")
            continue
        yield Row(number, data, None) if isinstance(data, dict) else Row(number, None, "not a JSON object")


def _csv(first: tuple[int, str], lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_FIELD)
    source = itertools.chain([first[1]], (line for _, line in lines))
    reader = csv.reader(source, strict=True)
    before = first[0] - 1
    header = [name.strip() for name in next(reader)]
    while True:
        line = before + reader.line_num + 1  # where the next row begins: a quoted field may span lines
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(line, None, f"not CSV: {error}")
            continue
        if not cells or cells == [""]:
            continue
        if len(cells) != len(header):
            yield Row(line, None, f"{len(cells)} columns where the header has {len(header)}")
        else:
            yield Row(line, dict(zip(header, cells, strict=True)), None)


def _checked(row: Row, names: dict[str, str]) -> Row:
    if row.data is None:
        return row
    if any(isinstance(value, str) and _broken(value) for value in row.data.values()):
        return Row(row.line, None, "not UTF-8")
    data = dict(row.data)
    for ours, theirs in names.items():
        if theirs in row.data:
            data[ours] = row.data[theirs]
            if theirs not in names:
                data.pop(theirs, None)
    return Row(row.line, data, None)


def _broken(value: str) -> bool:
    """Whether bytes that are no UTF-8 stand in the text (a lone surrogate cannot be encoded)."""
    if value.isascii():
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
