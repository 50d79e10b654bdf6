"""Rulebooks: what is loaded cannot fail on a record, what is wrong is named by file, line and rule."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.expressions import Expression, Kind, Members, Walk
from streams.rulebook import Rulebook, RulebookError, Watched, load

COLUMNS: dict[str, Kind] = {"usd": "number", "count": "number", "country": "text", "night": "number"}
ACTIONS = {"allow", "review", "block"}
ROWS = {
    "usd": np.array([5.0, 600.0, 5000.0]),
    "count": np.array([1.0, 30.0, 0.0]),
    "country": np.array(["GB", "KP", "US"], dtype=object),
    "night": np.array([1.0, 0.0, 1.0]),
}


def book(folder: Path, text: str) -> Rulebook:
    path = folder / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, COLUMNS, ACTIONS)[0]


def rule(when: str, then: str = "review") -> str:
    return f"rules:\n  - name: a\n    when: {when}\n    then: {then}\n"


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("usd > 500", [False, True, True]),
        ("usd > 500 and night", [False, False, True]),
        ("not night or usd < 10", [True, True, False]),
        ("country in ['KP', 'IR']", [False, True, False]),
        ("country not in listed", [True, True, False]),
        ("10 < usd < 1000", [False, True, False]),
        ("usd / count > 100", [False, False, True]),
        ("max(usd, count) - abs(-5) == 0", [True, False, False]),
        ("usd in [5, 600]", [True, True, False]),
        ("country == 'GB'", [True, False, False]),
        ("True", [True, True, True]),
    ],
)
def test_rules_are_matched_by_columns(tmp_path: Path, when: str, expected: list[bool]) -> None:
    """Each rule says for all rows of a batch at once whether it hits."""
    made = book(tmp_path, f'lists:\n  listed: [US]\nrules:\n  - {{name: a, when: "{when}", then: block}}\n')
    assert made.matches(ROWS, 3).tolist() == [expected]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (rule("usdd > 5"), 3, "rule 'a': 'usdd' is neither a column nor a list; did you mean 'usd'?"),
        (rule("usd > 'x'"), 3, "rule 'a': 'usd' is a number, \"'x'\" a text: they cannot be compared"),
        (rule("country > 5"), 3, "rule 'a': 'country' is a text, '5' a number: they cannot be compared"),
        (rule("usd.real > 5"), 3, "rule 'a': 'usd.real' is not allowed in a rule"),
        (rule("open('x')"), 3, "rule 'a': \"open('x')\" is not allowed in a rule"),
        (rule("usd >"), 3, "rule 'a': 'usd >' cannot be read: invalid syntax"),
        (rule("usd ** 9 > 1"), 3, "rule 'a': 'usd ** 9' is not allowed in a rule"),
        (rule("country"), 3, "rule 'a': 'country' is a text, not a condition"),
        (rule("usd > 5", "explode"), 4, "rule 'a': then is 'explode', not one of allow, block, review"),
        (rule("usd > 5") + "    storm: 3\n", 5, "rule 'a': storm is 3, not a share above 0 and up to 1"),
        (
            rule("usd > 5") + "    color: red\n",
            2,
            "a rule has 'color'; known are name, note, storm, then, when",
        ),
        (rule("usd > 5") + rule("usd > 6")[7:], 5, "rule 'a': the name was given before"),
        ("rules:\n  - name: a\n    then: block\n", 2, "a rule without 'when'"),
        (
            "lists:\n  codes: [GB, NO]\n",
            2,
            "list 'codes': False is neither a text nor a number (put it in quotes)",
        ),
        ("lists:\n  usd: [1]\n", 2, "list 'usd': a column has this name"),
        ("rules: [", 1, "expected the node content, but found '<stream end>'"),
        ("rulez: []", 1, "the file has 'rulez'; known are lists, rules"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, line: int, what: str) -> None:
    """The error is one line with the file, the line and the rule."""
    with pytest.raises(RulebookError) as caught:
        book(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'rules.yaml'}, line {line}: {what}")
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A rulebook that is not there is an error with its path."""
    with pytest.raises(RulebookError, match=r"nowhere\.yaml: it cannot be read"):
        load(tmp_path / "nowhere.yaml", COLUMNS, ACTIONS)


def test_lists_come_from_files(tmp_path: Path) -> None:
    """A list may stand in a file beside the rulebook, one member a line."""
    (tmp_path / "codes.txt").write_text("# sanctioned\nKP\n\nUS\n", encoding="utf-8")
    made = book(tmp_path, "lists:\n  codes: {file: codes.txt}\n" + rule("country in codes"))
    assert made.matches(ROWS, 3).tolist() == [[False, True, True]]


def test_a_change_is_followed_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    """New rules are in force at the next look; a file that became wrong leaves those of before in force."""
    path = tmp_path / "rules.yaml"
    path.write_text(rule("usd > 500"), encoding="utf-8")
    watched = Watched(path, COLUMNS, ACTIONS)
    assert not watched.refresh(10.0)
    _write(path, rule("usd > 5000"))
    assert not watched.refresh(10.5)
    assert watched.refresh(11.5)
    assert watched.book.rules[0].when == "usd > 5000"
    _write(path, rule("usd >"))
    assert not watched.refresh(13.0)
    assert watched.book.rules[0].when == "usd > 5000"
    assert "cannot be read" in watched.error
    _write(path, rule("usd > 1"))
    assert watched.refresh(15.0)
    assert watched.error == ""


@pytest.mark.parametrize(
    "text",
    [
        "-(usd > 5) == 0",
        "(usd > 5) - (usd > 3) == 0",
        "- True",
        "usd * 1000000000000000000000000000000 > 1",
        f"usd > {'9' * 400}",
        "usd in [-'a']",
        "usd in [not 5]",
        "not " * 400 + "usd",
        "-" * 400 + "usd > 1",
    ],
)
def test_what_is_loaded_does_not_fail_on_rows(text: str) -> None:
    """Truths as numbers, numbers beyond any integer and deep nesting are refused when loaded, or do not fail later."""
    try:
        expression = Expression(text, COLUMNS, {})
    except ValueError:
        return
    with np.errstate(all="ignore"):
        assert np.broadcast_to(expression.holds(Walk(dict(ROWS))), 3).dtype == np.bool_


@pytest.mark.parametrize("value", ["!!python/name:os.system x", "!unknown x", "!!int x", "!!float x"])
def test_a_tag_that_does_not_fit_is_named(tmp_path: Path, value: str) -> None:
    """A value with a tag of its own is an error of the rulebook with its line, never another exception."""
    with pytest.raises(RulebookError, match=r"line 2: .* cannot be read as"):
        book(tmp_path, f"lists:\n  codes: [{value}]\n" + rule("usd > 1"))


def test_a_rulebook_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    """Nesting beyond Python's stack is an error of the rulebook."""
    with pytest.raises(RulebookError, match="nested too deeply"):
        book(tmp_path, "[" * 20_000)


def _write(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text, encoding="utf-8")
    os.replace(path.with_suffix(".new"), path)


numbers = st.sampled_from(["usd", "count", "night", "1", "0", "2.5"])
texts = st.sampled_from(["country", "'GB'", "''"])
arithmetic = st.recursive(
    numbers, lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner), max_leaves=4
)
comparisons = st.one_of(
    st.builds("({} {} {})".format, arithmetic, st.sampled_from(["<", ">=", "==", "!="]), arithmetic),
    st.builds("({} {} {})".format, texts, st.sampled_from(["==", "!="]), texts),
    st.builds("({} {} ['GB', 'US'])".format, texts, st.sampled_from(["in", "not in"])),
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
        st.builds("(not {})".format, inner),
    ),
    max_leaves=5,
)


@given(text=conditions)
def test_columns_agree_with_rows(text: str) -> None:
    """What holds for a batch holds for each of its rows alone, as Python would have it (but for divisions by zero)."""
    expression = Expression(text, COLUMNS, {})
    with np.errstate(all="ignore"):
        whole = np.broadcast_to(expression.holds(Walk(dict(ROWS))), 3).tolist()
        for index in range(3):
            row = {name: column[index : index + 1] for name, column in ROWS.items()}
            assert np.broadcast_to(expression.holds(Walk(row)), 1).tolist() == [whole[index]]
    for index in range(3):
        values = {name: column[index] for name, column in ROWS.items()}
        try:
            plain = _plain(text, values)
        except ZeroDivisionError:
            continue
        assert bool(plain) == whole[index]


def _plain(text: str, values: dict[str, object]) -> object:
    """The same by Python on plain numbers; the text is made by this test."""
    names = {name: value if isinstance(value, str) else float(str(value)) for name, value in values.items()}
    return eval(compile(ast.parse(text, mode="eval"), "test", "eval"), {"__builtins__": {}}, names)


@given(text=st.text(max_size=60))
def test_any_text_is_a_condition_or_a_value_error(text: str) -> None:
    """Nothing that is written into a rule raises anything but ValueError, or fails on a row."""
    try:
        expression = Expression(text, COLUMNS, {"listed": Members(["US"])})
    except ValueError:
        return
    with np.errstate(all="ignore"):
        expression.holds(Walk({**ROWS, "listed": Members(["US"])}))
