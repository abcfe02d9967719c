"""A pytest session that tries mutants: it collects the tests once, records the lines that each one executes, and then runs those
of a mutant's lines in a fork whose functions have been changed. It reports what it could not try that way.
"""

import ast
import gc
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.mutants import live
from tests.mutants.mutations import Mutant, mutants

UNTRIED = 71
"""Exit status of a fork in which the mutant could not be put in place."""
OPTIONS = (
    "-x",
    "-q",
    "--no-header",
    # The reason why a mutant is killed is not shown, and a diff of two large values takes long.
    *("--assert=plain", "--tb=no"),
    # The files of the captured output would be shared by all forks.
    "--capture=no",
    *("-p", "no:cacheprovider"),
    *("-p", "pytest_asyncio.plugin"),
    *("-p", "pytest_timeout"),
)


@dataclass
class Report:
    """The result of a session. Tests are ordered by duration, shortest first."""

    tests: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0
    verdicts: dict[str, list[bool | None]] = field(default_factory=dict)
    """For each mutant, by file: whether it was killed; None if it must be tried in another process."""


class Server:
    """The pytest plugin whose loop over the tests does all of the above."""

    def __init__(self, sources: Mapping[Path, str], processes: int) -> None:
        self.report = Report()
        self._sources, self._processes = sources, processes
        self._recorder = _Recorder({str(file) for file in sources})
        self._recorder.start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._recorder.stop()
        if session.testsfailed:
            return True
        items = {item.nodeid: item for item in session.items}
        imported = set(self._recorder.lines)
        recorded = in_fork(lambda: self._record(session), 1800).value
        if recorded is None:
            return True
        lines, seconds, failed = recorded
        self.report.tests = sorted(seconds, key=lambda test: seconds[test])
        self.report.failed = failed
        self.report.seconds = sum(seconds.values())
        if failed:
            return True
        self._functions = live.functions_of({str(file) for file in self._sources})
        for item in session.items:
            # A mutant that never ends is noticed by the first test that runs into it.
            item.add_marker(pytest.mark.timeout(10 + 5 * seconds[item.nodeid]), append=False)
        # Pages of the parent's objects stay shared with the forks.
        gc.freeze()
        for file, source in self._sources.items():
            tree = ast.parse(source)
            verdicts: list[bool | None] = []
            works: list[Work | None] = []
            for mutant in mutants(source):
                places = {(str(file), line) for line in lines_of(mutant.line, tree)}
                found = {test for place in places for test in lines.get(place, ())}
                tests = [test for test in self.report.tests if test in found]
                # A mutant that no test executes survives. Mutants of code that runs at import are tried in another process.
                verdicts.append(None if tests or places & imported else False)
                trial = partial(self._try, file, tree, mutant, session, [items[test] for test in tests])
                usual = sum(seconds[test] for test in tests)
                works.append((trial, limit(usual)) if tests and not places & imported else None)
            for place, fork in enumerate(in_forks(works, self._processes)):
                if fork is not None and fork.status != UNTRIED:
                    verdicts[place] = fork.is_killed
            self.report.verdicts[str(file)] = verdicts
        return True

    def _try(
        self, file: Path, tree: ast.Module, mutant: Mutant, session: pytest.Session, tests: list[pytest.Item]
    ) -> int:
        try:
            live.patch(self._functions, file, tree, mutant.tree())
        except live.CannotPatch:
            return UNTRIED
        return 1 if run_items(session, tests) else 0

    def _record(
        self, session: pytest.Session
    ) -> tuple[dict[tuple[str, int], set[str]], dict[str, float], list[str]]:
        recorder = self._recorder
        recorder.lines.clear()
        session.config.pluginmanager.register(recorder)
        recorder.session = session
        run_items(session, session.items, stop=False)
        return dict(recorder.lines), recorder.seconds, recorder.failed


class _Recorder:
    """Records which lines of the files each test executes."""

    def __init__(self, files: set[str]) -> None:
        self._files = files
        self.lines: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self.session: pytest.Session
        self.test = ""
        self._users: set[str] = set()
        """Tests that share the fixture which is being set up."""

    def start(self) -> None:
        threading.settrace(self._trace)
        sys.settrace(self._trace)

    def stop(self) -> None:
        sys.settrace(None)
        threading.settrace(None)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self.test = item.nodeid
        began = time.monotonic()
        self.start()
        try:
            yield
        finally:
            self.stop()
            self.seconds[item.nodeid] = time.monotonic() - began

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Any:
        if fixturedef.scope != "function":
            self._users = {
                item.nodeid
                for item in self.session.items
                if fixturedef.argname in getattr(item, "fixturenames", ())
                and item.nodeid.startswith(fixturedef.baseid)
            }
        try:
            yield
        finally:
            self._users = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        tests = self.lines[frame.f_code.co_filename, frame.f_lineno]
        tests.add(self.test)
        if self._users:
            tests |= self._users
        return self._trace


def run_items(session: pytest.Session, items: Sequence[pytest.Item], stop: bool = True) -> bool:
    """Run tests one after the other. Returns whether one failed, the first of which ends it if `stop`."""
    session.testsfailed = 0
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if stop and session.testsfailed:
            return True
    return session.testsfailed > 0


@dataclass
class Fork:
    """How something that ran in a fork ended. status: -9 when it was ended because it took too long."""

    status: int
    value: Any = None

    @property
    def is_killed(self) -> bool:
        """Whether a mutant that was tried in the fork was noticed."""
        return self.status != 0


Work = tuple[Callable[[], Any], float]
"""What is done, which returns an exit status, and the seconds that it may take."""


def in_forks(works: Sequence[Work | None], processes: int) -> list[Fork | None]:
    """Run each in its own fork, at most `processes` at a time. None stays None."""
    results: list[Fork | None] = [None] * len(works)
    running: dict[int, tuple[int, float, Path]] = {}
    places = [place for place, work in enumerate(works) if work is not None]
    while places or running:
        while places and len(running) < processes:
            work = works[place := places.pop(0)]
            assert work is not None
            folder = Path(tempfile.mkdtemp(prefix="mutants-"))
            running[_fork(work[0], folder)] = place, time.monotonic() + work[1], folder
        for child, (place, end, folder) in list(running.items()):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                results[place] = Fork(os.waitstatus_to_exitcode(status))
            elif time.monotonic() > end:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                results[place] = Fork(-9)
            else:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            del running[child]
        time.sleep(0.005)
    return results


def _fork(work: Callable[[], Any], folder: Path) -> int:
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setpgid(0, 0)
        quiet = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(quiet, descriptor)
        # Where pytest's tmp_path is.
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(folder)
        status = work()
    finally:
        os._exit(status)


def limit(usual: float) -> float:
    """Seconds after which a mutant counts as noticed. usual: what its tests take without any change."""
    return 60 + 5 * usual


def in_fork(work: Callable[[], Any], seconds: float) -> Fork:
    """Do one thing in a fork. Returns its value too, which is carried over by pickle."""
    with tempfile.NamedTemporaryFile() as file:

        def to_file() -> int:
            Path(file.name).write_bytes(pickle.dumps(work()))
            return 0

        (fork,) = in_forks([(to_file, seconds)], 1)
        assert fork is not None
        content = Path(file.name).read_bytes()
        fork.value = pickle.loads(content) if content and fork.status == 0 else None
        return fork


def lines_of(line: int, tree: ast.Module) -> list[int]:
    """Lines of the innermost statement at a line, or of its head when it has a body."""
    best: ast.stmt | None = None
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            best = node if best is None or node.lineno >= best.lineno else best
    if best is None:
        return [line]
    body = getattr(best, "body", None)
    end = body[0].lineno - 1 if isinstance(body, list) and body else best.end_lineno or best.lineno
    return list(range(best.lineno, max(end, best.lineno) + 1))
