"""Mutations of a module: each one is a single small change of its syntax tree.

Left alone: docstrings, annotations, imports, text for people (a string with a space in it), log calls, and `__all__`.
"""

import ast
import builtins
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}


Path = tuple[tuple[str, int | None], ...]
"""The way from a module to one of its nodes: names of fields, with an index where the field is a list."""


@dataclass(frozen=True)
class Mutant:
    """One change of a module. line: where it is, counted from 1. change: `before -> after`."""

    line: int
    change: str
    source: str
    path: Path
    number: int
    """Of the changes of one node."""

    def tree(self) -> ast.Module:
        """Return the changed module."""
        tree = ast.parse(self.source)
        node = _resolve(tree, self.path)
        _replace(tree, self.path, list(_changes(node))[self.number])
        return ast.fix_missing_locations(tree)


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module."""
    tree = ast.parse(source)
    for path in _mutable(tree):
        before = _resolve(tree, path)
        for number, after in enumerate(_changes(before)):
            yield Mutant(before.lineno, f"{_text(before)} -> {_text(after)}", source, path, number)


def _mutable(node: ast.AST, path: Path = ()) -> Iterator[Path]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params", "decorator_list"):
            continue
        items = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, child in items:
            if not isinstance(child, ast.AST) or _is_left_alone(node, name, index, child):
                continue
            here = (*path, (name, index))
            if isinstance(child, ast.expr | ast.stmt):
                yield here
            yield from _mutable(child, here)


def _is_left_alone(parent: ast.AST, field: str, index: int | None, child: ast.AST) -> bool:
    if isinstance(
        child, ast.Import | ast.ImportFrom | ast.Global | ast.Nonlocal | ast.Assert | ast.JoinedStr
    ):
        return True
    if isinstance(child, ast.Assign) and isinstance(child.targets[0], ast.Name):
        return child.targets[0].id in ("__all__", "log", "__slots__") or _is_type(child.value)
    if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
        return True  # A docstring.
    if isinstance(child, ast.Call):
        function = child.func
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            return function.value.id in ("log", "logging", "TypeVar")
    return isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"


def _is_type(node: ast.expr) -> bool:
    """Whether an assigned value is a type: `dict[str, Any]`, `str | None`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _is_type(node.left)
    name = node.value if isinstance(node, ast.Subscript) else node
    return isinstance(name, ast.Name) and (name.id in vars(builtins) or name.id[0].isupper())


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str(value)) if " " not in value:
            yield ast.Constant(value + "x" if value else "x")
        case ast.Compare(ops=[operator]):
            yield ast.Compare(node.left, [_COMPARISONS[type(operator)]()], node.comparators)
        case ast.BoolOp(op=ast.And()):
            yield ast.BoolOp(ast.Or(), node.values)
        case ast.BoolOp(op=ast.Or()):
            yield ast.BoolOp(ast.And(), node.values)
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            yield ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.IfExp():
            yield node.body
            yield node.orelse
        case ast.If() | ast.While() if not _is_negated_alone(node.test):
            changed = copy.copy(node)
            changed.test = ast.UnaryOp(ast.Not(), node.test)
            yield changed
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Delete():
            yield ast.Pass()
        case ast.Assign(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield ast.Assign(node.targets, ast.Constant(None))
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()


def _is_negated_alone(test: ast.expr) -> bool:
    """Whether a condition's own mutant is its negation already."""
    match test:
        case ast.Compare(ops=[operator]):
            return isinstance(operator, ast.Eq | ast.NotEq | ast.Is | ast.IsNot | ast.In | ast.NotIn)
        case ast.UnaryOp(op=ast.Not()):
            return True
    return False


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _resolve(tree: ast.AST, path: Path) -> Any:
    node = tree
    for name, index in path:
        value = getattr(node, name)
        node = value if index is None else value[index]
    return node


def _replace(tree: ast.AST, path: Path, after: ast.AST) -> None:
    *above, (name, index) = path
    parent = _resolve(tree, tuple(above))
    before = _resolve(tree, path)
    ast.copy_location(after, before)
    if index is None:
        setattr(parent, name, after)
    else:
        getattr(parent, name)[index] = after


def _text(node: ast.AST) -> str:
    lines = ast.unparse(ast.fix_missing_locations(node)).splitlines()
    return lines[0][:70] + (" ..." if len(lines) > 1 or len(lines[0]) > 70 else "")
