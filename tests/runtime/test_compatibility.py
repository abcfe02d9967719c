"""docs/compatibility.md: every promise of every age has a line, and each line names tests that exist."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "compatibility.md").read_text()
PROMISES = {"0.8": 49, "0.9": 31, "0.22": 40, "0.34": 25}
"""How many there are of each age."""


def rows() -> list[list[str]]:
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in TABLE.splitlines()
        if line[:1] == "|"
    ]
    return [row for row in cells if re.match(r"0\.\d+-\d+$", row[0])]


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_promise_has_its_line() -> None:
    wanted = [f"{age}-{number}" for age, count in PROMISES.items() for number in range(1, count + 1)]
    assert [row[0] for row in rows()] == wanted


def test_every_line_is_shown_by_tests_that_exist() -> None:
    for number, promise, state, shown in rows():
        assert state.startswith(("kept", "not kept: ")), number
        assert promise, number
        named = re.findall(r"`([a-z_/]+\.py)::(test_\w+)`", shown)
        assert named, number
        for file, name in named:
            assert name in names_in(file), f"{number}: {file} has no {name}"


def test_no_more_than_this_is_not_kept() -> None:
    # Whoever breaks a promise says so here as well.
    assert [row[0] for row in rows() if row[2].startswith("not kept")] == ["0.8-8"]
