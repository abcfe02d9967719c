"""`python -m tests.mutants [GROUP | FILE ...]`: which small changes of the code does no test notice?

Each mutant is tried in a fork of a process that has imported pytest and the libraries, but nothing of the project. Only the
tests that execute the changed line are run, by what a first run without any change has recorded; the first that fails
ends it. The survivors are printed, and the share of mutants that were killed for each file.
"""

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest

from tests.mutants.mutations import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0
"""A mutant that runs for longer has been noticed."""
PRELOADED = (
    "pydantic",
    "yaml",
    "hypothesis",
    "kubernetes_validate",
    "kubernetes.aio.client",
    "kopf",
    "orjson",
    "numpy",
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
        ("operator/cortex_operator/status.py", "operator/cortex_operator/failures.py"),
        ("tests/operator",),
    ),
    "autoscaler": Group(("operator/cortex_operator/autoscaler.py",), ("tests/operator/test_autoscaler.py",)),
    "rules": Group(
        tuple(
            f"crds/cortex_api/{name}.py"
            for name in ("base", "handler", "kinds", "problems", "scaling", "units")
        ),
        ("tests/api",),
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


class _Recorder:
    """A pytest plugin that records which lines of the files each test executes."""

    def __init__(self, files: set[str]) -> None:
        self._files = files
        self.lines: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.tests: list[str] = []
        self._test = ""
        self.failed: list[str] = []

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._test = item.nodeid
        self.tests.append(item.nodeid)
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        self.lines[frame.f_code.co_filename, frame.f_lineno].add(self._test)
        return self._trace


def _run_pytest(tests: Sequence[str], *plugins: object) -> int:
    return int(
        pytest.main(
            [
                "-x",
                "-q",
                "--no-header",
                "-p",
                "no:cacheprovider",
                "-p",
                "pytest_asyncio",
                "-p",
                "pytest_timeout",
                *tests,
            ],
            plugins=list(plugins),
        )
    )


def _in_child(work: Any) -> tuple[int, bytes]:
    """Run something in a fork. Returns its exit status (-9 when it took too long) and what it wrote."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        status = 70
        try:
            os.close(reader)
            quiet = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(quiet, descriptor)
            status = work(writer)
        finally:
            os._exit(status)
    os.close(writer)
    deadline = time.monotonic() + SECONDS
    os.set_blocking(reader, False)
    written = b""
    while True:
        try:
            if part := os.read(reader, 1 << 20):
                written += part
        except BlockingIOError:
            pass
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reader)
            return -9, written
        time.sleep(0.01)
    os.set_blocking(reader, True)
    while part := os.read(reader, 1 << 20):
        written += part
    os.close(reader)
    return os.waitstatus_to_exitcode(status), written


def record(files: list[Path], tests: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """All tests in order, and those that execute a line, by `file:line`. Exits when a test fails without any change."""

    def work(out: int) -> int:
        recorder = _Recorder({str(file) for file in files})
        status = _run_pytest(tests, recorder)
        lines = {f"{file}:{line}": sorted(found) for (file, line), found in recorder.lines.items()}
        os.write(out, json.dumps([recorder.tests, lines, recorder.failed]).encode())
        return status

    global SECONDS
    SECONDS, limit = 1800.0, SECONDS
    status, written = _in_child_to_file(work)
    SECONDS = limit
    order, lines, failed = json.loads(written or b"[[], {}, []]")
    if status != 0:
        sys.exit(f"the tests fail without any change (status {status}): {failed or tests}")
    return order, lines


def _in_child_to_file(work: Any) -> tuple[int, bytes]:
    """As _in_child, for more output than a pipe holds."""
    path = ROOT / "build" / f"mutants-{os.getpid()}.json"
    path.parent.mkdir(exist_ok=True)

    def to_file(_: int) -> int:
        out = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        return int(work(out))

    status, _ = _in_child(to_file)
    written = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    return status, written


def is_killed(path: Path, mutant: Mutant, tests: Sequence[str]) -> bool:
    """Whether any of the tests fails with the mutant in place of the module."""

    def work(_: int) -> int:
        sys.meta_path.insert(0, _Finder(module_name(path), path, mutant.tree))
        return _run_pytest(tests)

    return _in_child(work)[0] != 0


def lines_of(node_line: int, tree: ast.Module) -> list[int]:
    """Lines of the innermost statement at a line: a trace names the first line of an expression that spans several."""
    best: ast.stmt | None = None
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.lineno <= node_line <= (node.end_lineno or 0):
            inner = best is None or node.lineno >= best.lineno
            best = node if inner else best
    if best is None or isinstance(best, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return [node_line]
    return list(range(best.lineno, (best.end_lineno or best.lineno) + 1))


def run(group: Group, only: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Killed and all mutants, by file. Prints the survivors."""
    files = [f for pattern in group.files for f in sorted(ROOT.glob(pattern))]
    files = [f for f in files if not only or str(f.relative_to(ROOT)) in only]
    tests = [test for test in group.tests if (ROOT / test).exists()]
    order, lines = record(files, tests)
    result = {}
    for file in files:
        source = file.read_text()
        tree = ast.parse(source)
        found = list(mutants(source))

        def try_one(mutant: Mutant, file: Path = file, tree: ast.Module = tree) -> bool:
            exact = lines.get(f"{file}:{mutant.line}", [])
            near = {t for n in lines_of(mutant.line, tree) for t in lines.get(f"{file}:{n}", ())}
            chosen = set(exact) or near
            inside = _is_inside_function(tree, mutant.line)
            if not chosen and inside:
                return False
            # What runs at import concerns every test.
            return is_killed(file, mutant, [t for t in order if t in chosen] if chosen and inside else order)

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            verdicts = list(pool.map(try_one, found))
        name = str(file.relative_to(ROOT))
        for mutant, killed in zip(found, verdicts, strict=True):
            if not killed:
                print(f"{name}:{mutant.line}: survived: {mutant.change}", flush=True)
        result[name] = sum(verdicts), len(found)
    return result


def _is_inside_function(tree: ast.Module, line: int) -> bool:
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return any(f.body[0].lineno <= line <= (f.end_lineno or 0) for f in functions)


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 when at least 85 % of the mutants of every group are killed."""
    os.chdir(ROOT)
    # The plugins of other libraries would be imported for each mutant.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in PRELOADED:
        importlib.import_module(name)
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
