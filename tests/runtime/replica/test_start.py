"""An API that cannot start writes the reason to the termination log, and exits with 1."""

import json
import socket

import pytest

WORKS = "class Handler:\n    def handle_post(self, payload):\n        return payload\n"


@pytest.mark.parametrize(
    ("source", "reason", "words"),
    [
        (None, "HandlerNotFound", ["does not exist", "handler.py"]),
        ("import nothing_like_it\n" + WORKS, "HandlerImportError", ["No module named 'nothing_like_it'"]),
        ("class Handler\n", "HandlerImportError", ["line 1", "SyntaxError"]),
        ("import sys; sys.exit(2)\n" + WORKS, "HandlerImportError", ["SystemExit"]),
        (
            "class handler:\n    pass\n",
            "HandlerNotFound",
            ["does not define class Handler", "did you mean handler?"],
        ),
        (WORKS + WORKS, "HandlerInvalid", ["2 definitions", "lines 1, 4"]),
        ("class Handler:\n    pass\n", "HandlerInvalid", ["must define at least one of", "handle_post"]),
        (WORKS.replace("handle_post", "handler_post"), "HandlerInvalid", ["did you mean handle_post?"]),
        (
            WORKS.replace("(self, payload)", "(self, paylod)"),
            "HandlerInvalid",
            ["'paylod'", "did you mean payload"],
        ),
        (WORKS.replace("(self, payload)", "(self, payload, /)"), "HandlerInvalid", ["positional-only"]),
        (WORKS.replace("(self, payload)", "()"), "HandlerInvalid", ["first argument must be self"]),
        (
            WORKS + "    def __init__(self, config): raise ValueError('no weights')\n",
            "HandlerInitError",
            ["no weights"],
        ),
        (
            WORKS + "    def __init__(self): import os; os._exit(9)\n",
            "HandlerInitError",
            ["exited with status 9"],
        ),
    ],
)
def test_a_broken_handler_is_reported(serve, source, reason, words):
    found, message = serve(source, wait=False).cause_of_death()
    assert found == reason
    for word in words:
        assert word in message


ARGUMENTS = """
import functools

def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

class Handler:
    def __init__(self, *, config, extra=7):
        self.config, self.extra = config, extra
    @decorated
    def handle_post(self, headers, payload):
        return [headers["x-a"], payload, self.config, self.extra]
    def handle_put(self, **kwargs):
        return sorted(kwargs)
    @staticmethod
    def handle_get():
        return "no arguments"
"""


def test_arguments_of_every_kind_are_passed_by_name(serve):
    import httpx

    api = serve(ARGUMENTS, config={"k": [1]})
    assert api.post(content=b"1", headers={"x-a": "h", "content-type": "application/json"}).json() == [
        "h",
        1,
        {"k": [1]},
        7,
    ]
    assert httpx.put(api.url).json() == ["headers", "payload", "query_params"]
    assert httpx.get(api.url).text == "no arguments"


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
def test_a_port_in_use_is_reported(serve, option):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        reason, message = serve(WORKS, option, port, wait=False).cause_of_death()
    assert reason == "PortInUse"
    assert f"127.0.0.1:{port}" in message
    assert "already in use" in message


def test_a_stop_during_the_start_is_no_error(serve):
    source = "import pathlib, time\n" + WORKS
    source += "    def __init__(self):\n        pathlib.Path('began').touch()\n        time.sleep(60)\n"
    api = serve(source, wait=False)
    api.until(lambda: (api.project / "began").exists())
    api.process.terminate()
    assert api.process.wait(60) == 0
    lines = [json.loads(line) for line in api.log.read_text().splitlines()]
    assert [line["message"] for line in lines if line["level"] in ("warning", "error")] == []
