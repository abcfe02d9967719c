"""Exceptions in a status: the user's own lines, relative to the project, and the last lines complete."""

import json
import re
import sys

import pytest

from cortex_runtime.errors import StartError
from cortex_runtime.logs import tracebacks
from cortex_runtime.replica.termination import record_termination
from tests.runtime.programs import PLAIN

DEEP = """
def down(n):
    return 1 / 0 if n == 0 else down_too(n - 1)
def down_too(n):
    return down(n)
"""
TAIL = "\nclass Handler:\n    def handle_post(self, payload): return payload\n"


def files(text):
    return re.findall(r'File "([^"]+)", line (\d+)', text)


@pytest.mark.parametrize(
    ("source", "first", "last"),
    [
        ("\nimport nothing_there\n", ("handler.py", "2"), "ModuleNotFoundError: No module named 'nothing_there'"),
        ("from part.inner import x\n", ("handler.py", "1"), "ZeroDivisionError: division by zero"),
        ("import json\njson.loads('{')\n", ("handler.py", "2"), "line 1 column 2 (char 1)"),
        ("x = (1,\n", ("handler.py", "1"), "SyntaxError: '(' was never closed"),
        ("import part.typo\n", ("handler.py", "1"), "SyntaxError: invalid syntax"),
        ("from deep import down\ndown(400)\n", ("handler.py", "2"), "ZeroDivisionError: division by zero"),
        ("from concurrent.futures import ThreadPoolExecutor as T\nwith T() as t: t.submit(int, 'x').result()\n",
         ("handler.py", "2"), "ValueError: invalid literal for int() with base 10: 'x'"),
        ("raise ValueError('x' * 50_000)\n", ("handler.py", "1"), "xxxx"),
        ("raise ValueError('line\\n' * 5_000 + 'the end')\n", None, "the end"),
        ("raise ValueError('\\udcff')\n", ("handler.py", "1"), r"ValueError: \udcff"),
        ("class E(Exception):\n    def __str__(self): raise KeyError\nraise E\n", ("handler.py", "3"), "str() failed>"),
    ],
)  # fmt: skip
def test_the_reason_of_an_exit_starts_in_the_users_code(serve, tmp_path, source, first, last):
    files_ = tmp_path / "files"
    (files_ / "part").mkdir(parents=True)
    (files_ / "part" / "__init__.py").touch()
    (files_ / "part" / "inner.py").write_text("x = 1 / 0\n")
    (files_ / "part" / "typo.py").write_text("a b\n")
    (files_ / "deep.py").write_text(DEEP)
    api = serve(source + TAIL, wait=False, project=files_)
    reason, message = api.cause_of_death()
    assert reason == "HandlerImportError"
    assert message.splitlines()[0].startswith("handler.py ")
    assert message.endswith(last)
    assert "cortex_runtime" not in message
    assert "importlib" not in message
    assert str(api.project) not in message
    if first is not None:
        assert files(message)[0] == first, message
    logged = next(line for line in api.lines() if line["message"].startswith("failed to start the API"))
    assert last in logged["message"]


def test_a_syntax_error_shows_its_line_with_a_caret(serve):
    reason, message = serve("x = 1\ny = 2 2\n", wait=False).cause_of_death()
    assert reason == "HandlerImportError"
    assert message.splitlines()[1:4] == ['  File "handler.py", line 2', "    y = 2 2", "          ^"]


def test_a_constructor_that_fails_and_a_request_that_fails(serve):
    source = "class Handler:\n    def __init__(self):\n        self.a = {}['key']\n"
    source += "    def handle_get(self): return 1\n"
    message = serve(source, wait=False).cause_of_death()[1]
    assert files(message) == [("handler.py", "3")]
    api = serve("class Handler:\n    def handle_get(self):\n        return {}['key']\n")
    assert PLAIN.get(api.url).status_code == 500
    found = api.until(lambda: [line["traceback"] for line in api.lines() if "traceback" in line])
    assert files(found[0]) == [("handler.py", "3")]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Create a project that raises an exception deep within a library. Return the function that raises it."""
    monkeypatch.setattr(tracebacks, "_project", ())
    project, library = tmp_path / "project", tmp_path / "library"
    for folder in (project, library):
        folder.mkdir()
        monkeypatch.syspath_prepend(str(folder))
    (library / "lib_of_test.py").write_text(DEEP)
    (project / "mine_of_test.py").write_text(
        "import lib_of_test\ndef begin(n):\n    return middle(n)\ndef middle(n):\n    return lib_of_test.down(n)\n"
        "def wrap(n):\n    try:\n        begin(n)\n    except ZeroDivisionError as error:\n"
        "        raise ValueError('wrapped') from error\n"
    )
    tracebacks.set_project(project)
    import mine_of_test

    yield mine_of_test
    for name in ("mine_of_test", "lib_of_test"):
        del sys.modules[name]


def caught(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_of_many_frames_the_users_and_the_last_are_kept(project):
    text = tracebacks.brief(caught(project.begin, 50))
    # The first frame is that of this test, which is not part of the runtime.
    named = [name for name, _ in files(text)]
    assert named[1:3] == ["mine_of_test.py", "mine_of_test.py"]
    assert len(named) == tracebacks.MAX_FRAMES
    assert named[-1].endswith("lib_of_test.py")
    assert re.search(r"^  \.\.\. \d+ more \.\.\.$", text, re.M)
    assert len(files(tracebacks.whole(caught(project.begin, 50)))) > 50


def test_a_cause_is_shown_before_what_it_caused(project):
    text = tracebacks.brief(caught(project.wrap, 3))
    assert text.index("ZeroDivisionError") < text.index("direct cause") < text.index("ValueError: wrapped")
    assert text.count('File "mine_of_test.py"') >= 3


def test_an_error_without_a_line_of_the_users_keeps_all_frames():
    text = tracebacks.brief(caught(StartError, "reason", None))
    assert "errors.py" in text


def test_a_group_of_exceptions_is_shown_with_its_members(project):
    group = ExceptionGroup("several", [caught(project.begin, 2), KeyError("x")])
    text = tracebacks.brief(group)
    assert "ZeroDivisionError" in text
    assert "KeyError: 'x'" in text


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f33c", '"'])
def test_the_termination_log_keeps_the_first_line_and_complete_last_lines(tmp_path, letter):
    lines = [f"{number} {letter * 90}" for number in range(200)]
    record_termination(tmp_path / "log", StartError("Reason", "\n".join(["what happened", *lines])))
    content = (tmp_path / "log").read_bytes()
    assert 2000 < len(content) <= 4096
    kept = json.loads(content)["message"].splitlines()
    assert kept[:2] == ["what happened", "..."]
    assert kept[2:] == lines[-len(kept) + 2 :]


def test_the_cause_names_the_last_line_of_the_project(project):
    assert tracebacks.cause(caught(project.begin, 3)).endswith(" (mine_of_test.py, line 5)")
    assert tracebacks.cause(caught(project.wrap, 3)) == "ValueError: wrapped (mine_of_test.py, line 10)"
    assert tracebacks.cause(caught(StartError, "reason", None)).startswith("AttributeError: ")
