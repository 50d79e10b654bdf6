"""Data files: JSON Lines and CSV, plain and gzip, wrong rows with their line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.launch.rows import DataFileError, Row, Tolerance, parse_mapping, read_rows

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), max_size=20)


def rows_of(path: Path, content: bytes | str, mapping: dict[str, str] | None = None) -> list[Row]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_rows(path, mapping))


@given(st.lists(st.dictionaries(st.sampled_from(["id", "title", "x"]), CELLS, min_size=1), max_size=5))
def test_json_lines_come_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, str]]
) -> None:
    """Every object of a JSON Lines file is a row with its line number."""
    path = tmp_path_factory.mktemp("rows") / "f.jsonl"
    found = rows_of(path, "".join(json.dumps(record) + "\n" for record in records))
    assert found == [Row(i, record, None) for i, record in enumerate(records, start=1)]


@given(st.lists(st.tuples(CELLS, CELLS.filter(bool)), max_size=5), st.booleans())
def test_csv_comes_back(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]], packed: bool
) -> None:
    """Every row of a CSV file comes back, whatever its cells hold, gzip or not."""
    text = io.StringIO()
    csv.writer(text).writerows([("title", "label"), *cells])
    content = text.getvalue().encode()
    path = tmp_path_factory.mktemp("rows") / "f.csv"
    found = rows_of(path, gzip.compress(content) if packed else content)
    assert [row.data for row in found] == [{"title": a, "label": b} for a, b in cells]


def test_a_row_has_the_line_where_it_begins(tmp_path: Path) -> None:
    """A quoted cell may span lines; blank lines are counted and skipped."""
    found = rows_of(tmp_path / "f", 'title,label\n"two\nlines",a\n\nlast,b\n')
    assert [(row.line, row.data) for row in found] == [
        (2, {"title": "two\nlines", "label": "a"}),
        (5, {"title": "last", "label": "b"}),
    ]


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        (b'{"a": 1}\n{"a": \n{"a": 2}\n', 2, "not JSON"),
        (b'{"a": 1}\n[1]\n{"a": 2}\n', 2, "not a JSON object"),
        (b'{"a": 1}\n{"a": "\xff"}\n{"a": 2}\n', 2, "not UTF-8"),
        (b'{"a": 1}\n{"a":' + b"[" * 100_000 + b"\n" + b'{"a": 2}\n', 2, "not JSON"),
        (b"a,b\n1,2\n1,2,3\n1,2\n", 3, "3 columns where the header has 2"),
        (b"a,b\n1,2\n\xe9,2\n1,2\n", 3, "not UTF-8"),
    ],
)
def test_a_wrong_row_carries_its_error_and_the_next_ones_come(
    tmp_path: Path, content: bytes, line: int, says: str
) -> None:
    """A wrong row is an error with its line; reading goes on."""
    found = rows_of(tmp_path / "f", content)
    (wrong,) = [row for row in found if row.error]
    assert (wrong.line, wrong.data) == (line, None)
    assert says in str(wrong.error)
    assert len(found) == 3


def test_columns_are_renamed(tmp_path: Path) -> None:
    """`ours=theirs` moves a column, and swaps are possible."""
    content = '{"text": "T", "label": "L", "name": "N"}\n'
    assert [row.data for row in rows_of(tmp_path / "f", content, {"title": "text", "label": "name"})] == [
        {"title": "T", "label": "N"}
    ]
    assert [row.data for row in rows_of(tmp_path / "f", content, {"text": "label", "label": "text"})] == [
        {"text": "L", "label": "T", "name": "N"}
    ]


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    """Spreadsheets write a byte order mark before the first column."""
    assert [row.data for row in rows_of(tmp_path / "f", b"\xef\xbb\xbfa,b\r\n1,2\r\n")] == [
        {"a": "1", "b": "2"}
    ]


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    """Nothing in, nothing out."""
    assert rows_of(tmp_path / "f", b"") == []
    assert rows_of(tmp_path / "f", b"\n\n") == []


@pytest.mark.parametrize(
    "content",
    [gzip.compress(b"a,b\n" * 9999, mtime=0)[:-20], b"\x1f\x8b\x08\x00garbage"],
    ids=["truncated", "damaged"],
)
def test_a_broken_archive_is_one_line(tmp_path: Path, content: bytes) -> None:
    """Truncated or damaged gzip is a DataFileError of one line."""
    with pytest.raises(DataFileError) as caught:
        rows_of(tmp_path / "f", content)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    """A file that is not there is a DataFileError with its name."""
    with pytest.raises(DataFileError, match="absent"):
        list(read_rows(tmp_path / "absent"))


def test_standard_input_is_a_file_too() -> None:
    """`-` reads what is piped in."""
    program = "from streams.launch.rows import read_rows; print([row.data for row in read_rows('-')])"
    done = subprocess.run([sys.executable, "-c", program], input=b"a\n1\n", capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[{'a': '1'}]"


def test_a_mapping_is_pairs() -> None:
    """`--map` is read as pairs, and what is none is named."""
    assert parse_mapping("title=text, label = l") == {"title": "text", "label": "l"}
    assert parse_mapping("") == {}
    with pytest.raises(DataFileError, match="'title' is not ours=theirs"):
        parse_mapping("title")


def test_one_wrong_row_in_ten_is_borne_and_no_more() -> None:
    """Wrong rows are reported with file and line; more than a tenth, or nothing good, is a failure."""
    report = io.StringIO()
    tolerance = Tolerance("f.csv", report)
    for _ in range(9):
        tolerance.accept()
    tolerance.reject(10, "no title")
    tolerance.judge()
    assert report.getvalue() == "f.csv, line 10: no title; skipped\n"
    tolerance.reject(11, "no title")
    with pytest.raises(DataFileError, match="2 of 11 rows are wrong"):
        tolerance.judge()
    with pytest.raises(DataFileError, match="no usable row"):
        Tolerance("g.csv", report).judge()
