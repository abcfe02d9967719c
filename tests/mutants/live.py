"""Changes of functions in a running process: the code of a live function is replaced, so that nothing is imported again."""

import ast
import gc
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType

Key = tuple[str, str, int]
"""(file, qualified name, first line)."""


class CannotPatch(Exception):
    """The change affects more than live functions."""


def functions_of(files: set[str]) -> dict[Key, list[FunctionType]]:
    """Return all functions of the files that exist in this process."""
    found: dict[Key, list[FunctionType]] = defaultdict(list)
    for each in gc.get_objects():
        if type(each) is FunctionType and each.__code__.co_filename in files:
            found[_key(each.__code__)].append(each)
    return found


def patch(
    functions: dict[Key, list[FunctionType]], file: Path, before: ast.Module, after: ast.Module
) -> None:
    """Replace the code of every live function that differs. Raises CannotPatch before anything is replaced."""
    old, new = _codes(before, file), _codes(after, file)
    if old.keys() != new.keys() or any(len(codes) > 1 for codes in new.values()):
        raise CannotPatch
    changed = [
        (function, new[key][0]) for key in new if new[key] != old[key] for function in functions.get(key, ())
    ]
    if not changed or any(function.__code__.co_freevars != code.co_freevars for function, code in changed):
        raise CannotPatch
    for function, code in changed:
        function.__code__ = code


def _codes(tree: ast.Module, file: Path) -> dict[Key, list[CodeType]]:
    found: dict[Key, list[CodeType]] = defaultdict(list)
    for code in _inside(compile(tree, str(file), "exec")):
        # Only these are ever live; a comprehension is created where it runs.
        if not code.co_name.startswith("<") or code.co_name == "<lambda>":
            found[_key(code)].append(code)
    return found


def _inside(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _inside(constant)


def _key(code: CodeType) -> Key:
    return sys.intern(code.co_filename), code.co_qualname, code.co_firstlineno
