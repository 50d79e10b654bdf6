"""Expressions over the columns of a batch: parsed and typed once, walked by `simpleeval`, never evaluated by Python.

The language: names of columns, numbers, texts, lists, + - * /, comparisons, `in`, `and`, `or`, `not`, abs(), min(,),
max(,). `simpleeval` has the walk over the tree and its limits; here names are whole columns, so that an expression
costs a few microseconds a batch, not a row.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np
from simpleeval import SimpleEval  # type: ignore[import-untyped]  # it has no types

Kind = Literal["number", "text", "truth", "list"]
LONGEST = 2000  # characters of an expression
DEEPEST = 100  # levels of nesting: far from where Python's own stack ends, wherever a rule is matched
LARGEST = 1e300  # of a number that is written into a rule; a float holds no integer far beyond


class Expression:
    """A condition that was parsed and found well typed: it cannot fail on a row."""

    def __init__(self, text: str, columns: Mapping[str, Kind], lists: Mapping[str, Members]) -> None:
        """Raises ValueError that says what is wrong."""
        if len(text) > LONGEST:
            raise ValueError(f"it has {len(text)} characters, more than {LONGEST}")
        try:
            self._tree = ast.parse(" ".join(text.split()), mode="eval").body
            _measure(self._tree)
            kind = Types(columns, lists).of(self._tree)
        except SyntaxError as error:
            raise ValueError(f"{text!r} cannot be read: {error.msg}") from None
        except (RecursionError, MemoryError):
            raise ValueError("it is nested too deeply") from None
        if kind not in ("truth", "number"):
            raise ValueError(f"{text!r} is a {kind}, not a condition")
        self.names = {node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)} & columns.keys()

    def holds(self, walk: Walk) -> Any:
        """For which rows it holds, a column of truths (or one truth for all)."""
        return _truth(walk.value(self._tree))


class Members:
    """A list's members, for `in`."""

    def __init__(self, found: Collection[object]) -> None:
        self.found = frozenset(found)

    @property
    def kinds(self) -> set[str]:
        """What its members are."""
        return {"text" if isinstance(each, str) else "number" for each in self.found}

    def hold(self, values: Any) -> Any:
        """Which of these values are members."""
        if isinstance(values, np.ndarray):
            return np.fromiter((value in self.found for value in values.tolist()), np.bool_, len(values))
        return values in self.found


def _measure(tree: ast.expr) -> None:
    """Raise ValueError where an expression is nested too deeply; without recursion, so that it cannot fail itself."""
    level: list[ast.AST] = [tree]
    for _ in range(DEEPEST):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _of_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of its arguments as float64: numpy neither subtracts truths nor takes any integer."""
    return lambda *values: function(*(np.float64(value) for value in values))


def _truth(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value if value.dtype == np.bool_ else np.not_equal(value, 0)
    return bool(value)


class Walk(SimpleEval):  # type: ignore[misc]  # simpleeval has no types
    """simpleeval over columns: comparisons and `and`, `or`, `not` element by element."""

    def __init__(self, names: dict[str, Any]) -> None:
        operators: dict[type[ast.AST], Callable[..., Any]] = {
            ast.Add: _of_numbers(np.add),
            ast.Sub: _of_numbers(np.subtract),
            ast.Mult: _of_numbers(np.multiply),
            ast.Div: _of_numbers(np.divide),
            ast.USub: _of_numbers(np.negative),
            ast.Not: lambda value: np.logical_not(_truth(value)),
            ast.Eq: lambda left, right: left == right,
            ast.NotEq: lambda left, right: left != right,
            ast.Gt: lambda left, right: left > right,
            ast.Lt: lambda left, right: left < right,
            ast.GtE: lambda left, right: left >= right,
            ast.LtE: lambda left, right: left <= right,
            ast.In: lambda value, members: members.hold(value),
            ast.NotIn: lambda value, members: np.logical_not(members.hold(value)),
        }
        super().__init__(operators=operators, functions=_FUNCTIONS, names=names)
        self.nodes |= {ast.List: _members, ast.Tuple: _members}

    def over(self, names: dict[str, Any]) -> Walk:
        """The same walk over other columns."""
        self.names = names
        return self

    def value(self, tree: ast.expr) -> Any:
        """What an expression is for all rows."""
        return self._eval(tree)

    def _eval_boolop(self, node: ast.BoolOp) -> Any:
        both = isinstance(node.op, ast.And)
        join, found = (np.logical_and if both else np.logical_or), _truth(self._eval(node.values[0]))
        for value in node.values[1:]:
            if not np.any(found) if both else np.all(found):
                break  # for no row does the rest matter
            found = join(found, _truth(self._eval(value)))
        return found

    def _eval_compare(self, node: ast.Compare) -> Any:
        left, found = self._eval(node.left), None
        for operation, comparator in zip(node.ops, node.comparators, strict=True):
            right = self._eval(comparator)
            each = self.operators[type(operation)](left, right)
            found = each if found is None else np.logical_and(found, each)
            left = right
        return found


def _members(node: ast.List | ast.Tuple) -> Members:
    return Members([_constant(each) for each in node.elts])


def _constant(node: ast.expr) -> Any:
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
        return -node.operand.value  # type: ignore[operator]
    assert isinstance(node, ast.Constant)
    return node.value


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": _of_numbers(np.abs),
    "min": _of_numbers(np.minimum),
    "max": _of_numbers(np.maximum),
}
_ARGUMENTS = {"abs": 1, "min": 2, "max": 2}


class Types:
    """Tells the kind of an expression, or raises ValueError that says what is wrong with it."""

    def __init__(self, columns: Mapping[str, Kind], lists: Mapping[str, Members]) -> None:
        self._columns, self._lists = columns, lists

    def of(self, node: ast.expr) -> Kind:
        """The kind of this expression."""
        match node:
            case ast.Constant(value=bool()):
                return "truth"
            case ast.Constant(value=int() | float() as number):
                if abs(number) > LARGEST and number != float("inf"):
                    raise ValueError("a number in it has more than 300 digits")
                return "number"
            case ast.Constant(value=str()):
                return "text"
            case ast.Name(id=name):
                return self._name(name)
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                for element in elements:
                    minus = isinstance(element, ast.UnaryOp) and isinstance(element.op, ast.USub)
                    inner = element.operand if isinstance(element, ast.UnaryOp) and minus else element
                    known = (int, float) if minus else (str, int, float)
                    if not isinstance(inner, ast.Constant) or not isinstance(inner.value, known):
                        raise ValueError(f"a list holds numbers and texts only, not {ast.unparse(element)!r}")
                return "list"
            case ast.BoolOp(values=values):
                for value in values:
                    self._condition(value)
                return "truth"
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._condition(operand)
                return "truth"
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._number(operand)
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), left=left, right=right):
                self._number(left)
                return self._number(right)
            case ast.Compare():
                return self._comparison(node)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _ARGUMENTS:
                if len(arguments) != _ARGUMENTS[name]:
                    raise ValueError(f"{name}() takes {_ARGUMENTS[name]} numbers, not {len(arguments)}")
                for argument in arguments:
                    self._number(argument)
                return "number"
        raise ValueError(f"{ast.unparse(node)!r} is not allowed in a rule")

    def _name(self, name: str) -> Kind:
        if name in self._columns:
            return self._columns[name]
        if name in self._lists:
            return "list"
        close = _close(name, [*self._columns, *self._lists])
        raise ValueError(
            f"{name!r} is neither a column nor a list" + (f"; did you mean {close!r}?" if close else "")
        )

    def _number(self, node: ast.expr) -> Kind:
        kind = self.of(node)
        if kind not in ("number", "truth"):
            raise ValueError(f"{ast.unparse(node)!r} is a {kind}, not a number")
        return "number"

    def _condition(self, node: ast.expr) -> None:
        if (kind := self.of(node)) not in ("number", "truth"):
            raise ValueError(f"{ast.unparse(node)!r} is a {kind}, not a condition")

    def _comparison(self, node: ast.Compare) -> Kind:
        left = node.left
        for operation, right in zip(node.ops, node.comparators, strict=True):
            one, other = self.of(left), self.of(right)
            if isinstance(operation, (ast.In, ast.NotIn)):
                if other != "list" or one == "list":
                    raise ValueError(f"`in` wants a list on its right, not {ast.unparse(right)!r}")
                if (members := self._kinds(right)) and one not in members:
                    raise ValueError(
                        f"{ast.unparse(left)!r} is a {one}, the list holds {' and '.join(members)}s"
                    )
            elif isinstance(operation, (ast.Is, ast.IsNot)):
                raise ValueError("`is` is not allowed in a rule; use ==")
            elif "list" in (one, other) or (one == "text") != (other == "text"):
                words = f"{ast.unparse(left)!r} is a {one}, {ast.unparse(right)!r} a {other}"
                raise ValueError(f"{words}: they cannot be compared")
            left = right
        return "truth"

    def _kinds(self, node: ast.expr) -> set[str]:
        if isinstance(node, ast.Name):
            return self._lists[node.id].kinds
        return _members(node).kinds if isinstance(node, (ast.List, ast.Tuple)) else set()


def _close(name: str, known: Sequence[str]) -> str:
    return next(iter(get_close_matches(name, known, 1)), "")
