"""`python -m tests.mutants [GROUP | FILE ...]`: which small changes of the code does no test notice?

The tests of a group are run once without any change. Each mutant is then tried by the tests that execute the changed line, the
fastest first; the first that fails ends it. The survivors are printed, and the share of mutants that were killed for each file.
A mutant of what is executed at import is tried in a fork of a process that has imported the libraries, and nothing else.
"""

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import hypothesis
import pytest

from tests.mutants.mutations import Mutant, mutants
from tests.mutants.server import OPTIONS, Report, Server, Work, in_fork, in_forks, limit

ROOT = Path(__file__).resolve().parents[2]
PRELOADED = (
    "pydantic",
    "yaml",
    "hypothesis",
    "kubernetes_validate",
    "kubernetes.aio.client",
    "kopf",
    "orjson",
    "numpy",
    "cel_expr_python.cel",
    "pytest_asyncio",
    "pytest_timeout",
)
"""Libraries that each mutant would otherwise import again."""


@dataclass(frozen=True)
class Group:
    """Files that are mutated, and the tests that must notice."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


GROUPS = {
    "render": Group(
        ("operator/cortex_operator/render/*.py",),
        ("tests/operator/test_snapshots.py", "tests/operator/test_render.py"),
    ),
    "status": Group(
        ("operator/cortex_operator/status/*.py",),
        (
            "tests/operator/test_status.py",
            "tests/operator/test_situations.py",
            "tests/operator/test_failures.py",
            "tests/operator/test_snapshots.py",
            "tests/operator/test_refusals.py",
        ),
    ),
    "autoscaler": Group(
        ("operator/cortex_operator/autoscaling/autoscaler.py",), ("tests/operator/test_autoscaler.py",)
    ),
    "rules": Group(
        tuple(
            f"crds/cortex_api/{name}.py"
            for name in ("base", "handler", "kinds", "parsing", "deployment", "units")
        ),
        tuple(
            f"tests/api/test_{name}.py"
            for name in ("units", "parse", "problems", "defaults", "document", "schema", "rules")
        ),
    ),
    "recognition": Group(
        ("runtime/cortex_runtime/handler/recognition.py", "runtime/cortex_runtime/handler/arguments.py"),
        ("tests/runtime/handler/test_recognition.py", "tests/runtime/handler/test_arguments.py"),
    ),
    "payload": Group(
        tuple(f"runtime/cortex_runtime/http/{name}.py" for name in ("request_body", "forms", "json_parser")),
        (
            "tests/runtime/http/test_request_body.py",
            "tests/runtime/http/test_payload.py",
            "tests/runtime/dtypes/test_json_in.py",
        ),
    ),
    "response": Group(
        ("runtime/cortex_runtime/http/response.py", "runtime/cortex_runtime/http/json_encoder.py"),
        (
            "tests/runtime/http/test_response.py",
            "tests/runtime/http/test_json_values.py",
            "tests/runtime/dtypes/test_json_out.py",
        ),
    ),
}


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads one module from a changed tree."""

    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        super().__init__(name, path)
        self._tree = tree

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._tree, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name, self._path, self._tree = name, str(path), tree

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if name != self._name:
            return None
        loader = _Loader(name, self._path, self._tree)
        places = [str(Path(self._path).parent)] if self._path.endswith("__init__.py") else None
        return importlib.util.spec_from_file_location(
            name, self._path, loader=loader, submodule_search_locations=places
        )


def module_name(path: Path) -> str:
    """The name under which a file of one of the packages is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class _Sorter:
    """A pytest plugin that runs the tests in a given order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._places = {test: place for place, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self._places.get(item.nodeid, len(self._places)))


def try_all(sources: dict[Path, str], tests: Sequence[str], processes: int) -> dict[Path, list[bool]]:
    """Return whether each mutant of the files is killed by the tests. Exits if a test fails without a mutation."""

    def serve() -> Report:
        server = Server(sources, processes)
        pytest.main([*OPTIONS, *tests], plugins=[server])
        return server.report

    report: Report = in_fork(serve, 24 * 3600).value
    if report is None or report.failed or not report.tests:
        sys.exit(f"the tests fail without any change: {report and report.failed} {' '.join(tests)}")
    result = {}
    for file, source in sources.items():
        verdicts = report.verdicts[str(file)]
        works: list[Work | None] = [
            (_imported_with(file, mutant, tests, report.tests), limit(report.seconds))
            if verdict is None
            else None
            for mutant, verdict in zip(mutants(source), verdicts, strict=True)
        ]
        forks = in_forks(works, processes)
        result[file] = [
            fork.is_killed if fork is not None else bool(verdict)
            for fork, verdict in zip(forks, verdicts, strict=True)
        ]
    return result


def _imported_with(
    file: Path, mutant: Mutant, tests: Sequence[str], order: Sequence[str]
) -> Callable[[], int]:
    """Return the command that runs all tests in a process that imports the mutant instead of the module."""

    def work() -> int:
        sys.meta_path.insert(0, _Finder(module_name(file), file, mutant.tree()))
        return int(pytest.main([*OPTIONS, *tests], plugins=[_Sorter(order)]))

    return work


def run(group: Group, only: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the numbers of killed and of all mutants by file. Prints the survivors."""
    files = [f for pattern in group.files for f in sorted(ROOT.glob(pattern))]
    sources = {f: f.read_text() for f in files if not only or str(f.relative_to(ROOT)) in only}
    result = {}
    for file, verdicts in try_all(sources, group.tests, os.cpu_count() or 1).items():
        name = str(file.relative_to(ROOT))
        for mutant, killed in zip(mutants(sources[file]), verdicts, strict=True):
            if not killed:
                print(f"{name}:{mutant.line}: survived: {mutant.change}", flush=True)
        result[name] = sum(verdicts), len(verdicts)
    return result


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: 0 if at least 85 % of the mutants of every group are killed."""
    os.chdir(ROOT)
    # The plugins of other libraries would be imported for each mutant.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in PRELOADED:
        importlib.import_module(name)
    # The same examples for each mutant; examples that fail because of a mutant are not kept.
    hypothesis.settings.register_profile("mutants", database=None, derandomize=True, deadline=None)
    hypothesis.settings.load_profile("mutants")
    chosen = [a for a in arguments if a in GROUPS] or list(GROUPS)
    files = [a for a in arguments if a not in GROUPS]
    good = True
    for name in chosen:
        result = run(GROUPS[name], files)
        for file, (killed, total) in result.items():
            if total:
                print(f"{killed:5} of {total:5} killed ({killed / total:4.0%})  {file}", flush=True)
        killed, total = (sum(column) for column in zip(*result.values(), strict=True))
        good = good and killed >= 0.85 * total
        print(f"{killed:5} of {total:5} killed ({killed / max(1, total):4.0%})  {name}\n", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
