"""A rulebook: rules in a YAML file, compiled once, matched against the columns of a whole batch.

    lists:
      blocked: [A1, A2]              # or {file: blocked.txt}, one a line
    rules:
      - name: large_abroad
        when: usd > 500 and country not in home_countries
        then: review
        note: what an analyst reads
        storm: 0.3                   # the share of the traffic that it may hit

Knows no field of any pipeline: who opens a book says which columns there are and what may stand after `then`. Every
name and type is checked when the file is read; what is loaded cannot fail on a record. The language is in
`expressions.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import yaml
from numpy.typing import NDArray

from streams.expressions import Expression, Kind, Members, Walk

log = logging.getLogger("tapewatch.rules")

MOST_RULES = 200
LOOK_EVERY = 1.0  # seconds between two looks whether a file has changed
_FIELDS = {"name", "when", "then", "note", "storm"}


class RulebookError(ValueError):
    """A rulebook cannot be used; the message names file, line and rule, and says what is wrong."""


@dataclass(frozen=True)
class Rule:
    """One rule as it was written; `storm` is the share of the traffic that it may hit, 1 for all of it."""

    name: str
    when: str
    then: str
    note: str
    storm: float
    line: int


class Rulebook:
    """Compiled rules in the order of their file."""

    def __init__(
        self, rules: Sequence[Rule], conditions: Sequence[Expression], lists: Mapping[str, Members]
    ) -> None:
        self.rules = tuple(rules)
        self._conditions = tuple(conditions)
        self._lists = dict(lists)
        self._walk = Walk(dict(lists))
        self.columns = frozenset(name for condition in conditions for name in condition.names)

    def matches(self, columns: Mapping[str, NDArray[Any]], count: int) -> NDArray[np.bool_]:
        """Which rule hits which row: (rules, count). Those of `self.columns` are needed, as float64, bool
        or object arrays of this length.
        """
        found = np.zeros((len(self.rules), count), np.bool_)
        walk = self._walk.over({**columns, **self._lists})
        with np.errstate(all="ignore"):  # x / 0 is infinite or not a number, which compares as false
            for index, condition in enumerate(self._conditions):
                found[index] = condition.holds(walk)
        return found


def load(
    path: Path, columns: Mapping[str, Kind], actions: Collection[str], storm: float = 1.0
) -> tuple[Rulebook, tuple[Path, ...]]:
    """The rulebook of a file and all files that it was read from.

    `columns` are the names that rules may use, `actions` what may stand after `then`, `storm` the share of a rule that
    names none. Raises RulebookError.
    """
    reader = _Reader(path, columns, actions, storm)
    return reader.book(), tuple(reader.files)


class Watched:
    """A rulebook that follows its files; a change that is wrong is logged, and the rules of before stay in force."""

    def __init__(
        self, path: Path, columns: Mapping[str, Kind], actions: Collection[str], storm: float = 1.0
    ) -> None:
        self._load: Callable[[], tuple[Rulebook, tuple[Path, ...]]] = lambda: load(
            path, columns, actions, storm
        )
        self.book, self._files = self._load()
        self._path = path
        self._seen = self._stamps()
        self._next = 0.0
        self.error = ""

    def refresh(self, now: float) -> bool:
        """Whether the rules have changed; looks at most once a second of `now`."""
        if now < self._next:
            return False
        self._next = now + LOOK_EVERY
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        try:
            self.book, self._files = self._load()
        except RulebookError as error:
            self.error = str(error)
            log.error("%s; the rules of before stay in force", error)
            return False
        self._seen, self.error = self._stamps(), ""
        log.info("%d rules read again from %s", len(self.book.rules), self._path)
        return True

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_stamp(path) for path in self._files)


class _Reader:
    """Reads one file, and knows where each part of it stands."""

    def __init__(
        self, path: Path, columns: Mapping[str, Kind], actions: Collection[str], storm: float
    ) -> None:
        self._path, self._columns, self._actions, self._storm = path, columns, actions, storm
        self.files = [path]
        self._lists: dict[str, Members] = {}

    def book(self) -> Rulebook:
        """The whole file."""
        try:
            root = yaml.compose(self._path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except RecursionError:
            raise RulebookError(f"{self._path}: it is nested too deeply") from None
        except (OSError, UnicodeDecodeError) as error:
            raise RulebookError(f"{self._path}: it cannot be read: {error}") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            what = str(getattr(error, "problem", None) or error).splitlines()[0]
            raise RulebookError(f"{self._path}, line {mark.line + 1 if mark else 1}: {what}") from None
        if root is None:
            return Rulebook([], [], {})
        parts = self._mapping(root, "the file", {"lists", "rules"})
        for name, node in self._pairs(parts["lists"], "lists") if "lists" in parts else ():
            self._lists[name] = self._list(name, node)
        rules: list[Rule] = []
        conditions: list[Expression] = []
        for node in self._sequence(parts["rules"], "rules") if "rules" in parts else ():
            rule, condition = self._rule(node)
            if rule.name in {known.name for known in rules}:
                self._fail(node, f"rule {rule.name!r}: the name was given before")
            rules.append(rule)
            conditions.append(condition)
        if len(rules) > MOST_RULES:
            self._fail(root, f"{len(rules)} rules, more than {MOST_RULES}")
        return Rulebook(rules, conditions, self._lists)

    def _rule(self, node: yaml.Node) -> tuple[Rule, Expression]:
        parts = self._mapping(node, "a rule", _FIELDS)
        for name in ("name", "when", "then"):
            if name not in parts:
                self._fail(node, f"a rule without {name!r}")
        texts = {name: self._text(parts[name], name) for name in parts if name != "storm"}
        who = f"rule {texts['name']!r}"
        if texts["then"] not in self._actions:
            wanted = ", ".join(sorted(self._actions))
            self._fail(parts["then"], f"{who}: then is {texts['then']!r}, not one of {wanted}")
        storm = self._storm
        if "storm" in parts:
            value = self._value(parts["storm"])
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
                self._fail(parts["storm"], f"{who}: storm is {value!r}, not a share above 0 and up to 1")
            storm = float(value)
        try:
            condition = Expression(texts["when"], self._columns, self._lists)
        except ValueError as error:
            self._fail(parts["when"], f"{who}: {error}")
        line = node.start_mark.line + 1
        rule = Rule(texts["name"], texts["when"], texts["then"], texts.get("note", ""), storm, line)
        return rule, condition

    def _list(self, name: str, node: yaml.Node) -> Members:
        if name in self._columns:
            self._fail(node, f"list {name!r}: a column has this name")
        if isinstance(node, yaml.MappingNode):
            parts = self._mapping(node, f"list {name!r}", {"file"})
            path = self._path.parent / self._text(parts["file"], "file") if "file" in parts else self._path
            self.files.append(path)
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                self._fail(node, f"list {name!r}: {path} cannot be read: {error}")
            return Members([line.strip() for line in lines if line.strip() and not line.startswith("#")])
        values = [self._value(each) for each in self._sequence(node, f"list {name!r}")]
        for value, each in zip(values, self._sequence(node, name), strict=True):
            if isinstance(value, bool) or not isinstance(value, (str, int, float)):
                self._fail(
                    each, f"list {name!r}: {value!r} is neither a text nor a number (put it in quotes)"
                )
        return Members(values)

    def _mapping(self, node: yaml.Node, what: str, known: Collection[str]) -> dict[str, yaml.Node]:
        found = dict(self._pairs(node, what))
        for name in found.keys() - set(known):
            self._fail(node, f"{what} has {name!r}; known are {', '.join(sorted(known))}")
        return found

    def _pairs(self, node: yaml.Node, what: str) -> list[tuple[str, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self._fail(node, f"{what} is no mapping")
        return [(str(key.value), value) for key, value in node.value]

    def _sequence(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode):
            self._fail(node, f"{what} is no list")
        return list(node.value)

    def _text(self, node: yaml.Node, what: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            self._fail(node, f"{what!r} is no text")
        return str(node.value).strip()

    def _value(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return None
        try:
            return yaml.SafeLoader("").construct_object(node, deep=True)
        except (yaml.YAMLError, ArithmeticError, LookupError, ValueError) as error:
            what = getattr(error, "problem", None) or error
            self._fail(node, f"{node.value[:40]!r} cannot be read as {node.tag}: {what}")

    def _fail(self, node: yaml.Node, what: str) -> NoReturn:
        raise RulebookError(f"{self._path}, line {node.start_mark.line + 1}: {what}")


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)
