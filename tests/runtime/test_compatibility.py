"""docs/compatibility.md: every promise of every release and every form of a handler has a row, and each names existing tests."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "compatibility.md").read_text()
PROMISES = {"0.8": 49, "0.9": 31, "0.22": 40, "0.34": 25}
"""Number of promises by release."""


def cells() -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in TABLE.splitlines()
        if line[:1] == "|"
    ]


def rows() -> list[list[str]]:
    return [row for row in cells() if re.match(r"0\.\d+-\d+$", row[0])]


def form_rows() -> list[list[str]]:
    return [row for row in cells() if re.match(r"`[a-z-]+`$", row[0])]


def forms_in(file: Path) -> dict[str, str]:
    """Return the forms that a file of tests runs: name to releases."""
    calls = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    found = [call.args for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Form"]
    return {ast.literal_eval(name): ast.literal_eval(releases) for name, releases, *_ in found}


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
    # A change that breaks a promise must also be recorded here.
    assert [row[0] for row in rows() if row[2].startswith("not kept")] == ["0.8-8"]


def test_every_form_of_a_handler_has_a_line_with_its_releases_and_a_test_that_runs_it() -> None:
    listed = {}
    for name, releases, handler, state, shown in form_rows():
        assert handler, name
        assert state.startswith(("runs", "differs: ", "not served: ")), name
        named = re.findall(r"`([a-z_/]+\.py)::(test_\w+)`", shown)
        for file, test in named:
            assert test in names_in(file), f"{name}: {file} has no {test}"
            if name.strip("`") in forms_in(ROOT / "tests" / file):
                listed[name.strip("`")] = releases
        assert named or not state.startswith("runs"), name
    files = [file for file in (ROOT / "tests" / "runtime").rglob("test_*.py") if "Form(" in file.read_text()]
    assert listed == {name: releases for file in files for name, releases in forms_in(file).items()}
