"""User code may change `logging` and its streams: requests are answered, and each line is written once, as JSON."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest

from tests.runtime.programs import PLAIN

HANDLER = """
import logging, sys
class Handler:
    def handle_post(self, payload):
        logging.getLogger("mine").warning("recorded")
        print("printed")
        if payload == "fail":
            raise ValueError("failed")
        return payload
"""
TO_STDOUT = "logging.getLogger().addHandler(logging.StreamHandler(sys.stdout))"
DICT = (
    "import logging.config\nlogging.config.dictConfig({'version': 1, 'handlers': {'own': {'class': 'logging.StreamHandler'}}"
    + ", %s})"
)
RAISING = """
class Raising(logging.Handler):
    def emit(self, record):
        raise RuntimeError("of the handler")
logging.raiseExceptions = True
"""


@pytest.mark.parametrize(
    ("setup", "records"),
    [
        ("", 1),
        (TO_STDOUT, 2),
        (TO_STDOUT.replace("stdout", "stderr"), 2),
        ("logging.basicConfig(level='INFO', format='%(message)s', force=True)", 1),
        ("logging.raiseExceptions = False; logging.basicConfig(stream=open('/dev/full', 'w', buffering=1), force=True)", 0),
        (DICT % "'root': {'handlers': ['own'], 'level': 'INFO'}", 1),
        (DICT % "'root': {'handlers': ['own']}, 'disable_existing_loggers': True", 1),
        (DICT % "'root': {'handlers': []}, 'loggers': {'cortex': {'level': 'CRITICAL', 'handlers': ['own']}}", 1),
        ("logging.disable(logging.CRITICAL)", 0),
        ("logging.getLogger().handlers.clear(); logging.lastResort = None; logging.raiseExceptions = False", 0),
        ("[logging.getLogger(name).setLevel(99) for name in ('', 'cortex', 'uvicorn.error', 'print')]", 0),
        ("[h.addFilter(lambda record: False) for h in logging.getLogger().handlers]", 0),
        ("logging.getLogger('cortex').addFilter(lambda r: False); logging.getLogger('cortex').disabled = True", 1),
        ("logging.setLoggerClass(type('Mute', (logging.Logger,), {'handle': lambda self, record: None}))", 0),
        ("logging.Logger.callHandlers = lambda self, record: None", 0),
        ("sys.stdout.close(); sys.stderr.close(); sys.stdout.detach(); sys.stderr.detach()", 1),
        (RAISING + "logging.getLogger('cortex').addHandler(Raising())", 1),
    ],
)  # fmt: skip
def test_changes_to_logging_affect_no_request_and_no_line_of_the_runtime(serve, setup, records):
    api = serve(HANDLER.replace("class Handler", setup + "\nclass Handler", 1))
    assert api.post("fine", headers={"x-request-id": "one"}).text == "fine"
    assert api.post("fail", headers={"x-request-id": "two"}).status_code == 500
    assert api.post("fine", headers={"x-request-id": "three"}).text == "fine"
    api.process.send_signal(signal.SIGTERM)
    assert api.process.wait(60) == 0
    for identity, failed in (("one", 0), ("two", 1), ("three", 0)):
        lines = [line for line in api.lines() if line.get("requestId") == identity]
        messages = Counter(line["message"] for line in lines)
        tracebacks = [line for line in lines if "ValueError: failed" in line.get("traceback", "")]
        assert messages.pop("recorded", 0) == records
        assert messages.pop("printed") == 1
        assert (len(tracebacks), messages.pop("POST / 500", 0)) == (failed, failed)
        assert messages == ({"the handler failed": 1} if failed else {})
    assert [line["message"].split(":")[0] for line in api.lines()].count("draining") == 1


EXECUTES = """
class Handler:
    def handle_post(self, payload):
        exec(payload, {})
        return "done"
"""


@pytest.fixture(scope="module")
def executes(serve_for_module):
    return serve_for_module(EXECUTES)


ODD = """
import logging
class Broken:
    def __repr__(self): raise ValueError("no words")
class Chatty:
    def __repr__(self):
        logging.warning("about to show %s", self)
        return "chatty"
class Printing:
    def __repr__(self):
        print("while shown")
        return "printing"
"""


@pytest.mark.parametrize(
    ("code", "messages"),
    [
        (r"print('no \udcff name')", [r"no \udcff name"]),
        (r"import logging; logging.warning('no %s', '\udcff')", [r"no \udcff"]),
        (r"import logging; logging.warning('a', extra={'b': ['\udcff'], '\udcfe': 1})", ["a"]),
        (r"import logging; logging.getLogger('\udcff').warning('odd name')", ["odd name"]),
        ("import logging; logging.warning('%d of %s', 'x')", ["%d of %s (failed to format the arguments: "]),
        ("import logging; logging.warning({'a': 1})", ["{'a': 1}"]),
        ("import logging; logging.warning('big', extra={'n': 2 ** 90, 'o': object(), 'x': float('nan')})", ["big"]),
        ("import logging; a = []; a.append(a); logging.warning('cycle', extra={'a': a})", ["cycle"]),
        (ODD + "logging.warning('odd %s', Broken())", ["odd %s (failed to format the arguments: no words)"]),
        (ODD + "logging.warning('odd', extra={'broken': Broken()})", ["odd"]),
        (ODD + "logging.warning(Broken())", ["<Broken> (failed to format the arguments: no words)"]),
        (ODD + "logging.warning('%s', Chatty())", ["about to show %s", "chatty"]),
        (ODD + "logging.warning('%s', Printing())", ["while shown", "printing"]),
        ("import logging\ndef down(n):\n try: down(n + 1)\n except RecursionError: logging.warning('deep'); raise\n"
         "try: down(0)\nexcept RecursionError: print('back')", ["back"]),
        ("import warnings; warnings.warn('careful')", [": UserWarning: careful"]),
        ("print('a', 'b', sep='-'); print(); print('   ')", ["a-b"]),
        ("print('one', end=''); print(' line')", ["one line"]),
        ("print('seen', end='', flush=True); print('at once')", ["seen", "at once"]),
        ("print('rest', end='')", ["rest"]),
        ("print('two\\nlines')", ["two", "lines"]),
        ("import sys; sys.stderr.writelines(['a\\n', 'b\\n'])", ["a", "b"]),
        ("import sys; sys.stdout.buffer.write(b'bytes \\xff\\n')", ["bytes \\xff"]),
        ("import sys; o = sys.stdout.buffer; o.write('é'.encode()[:1]); o.write('é'.encode()[1:] + b'\\n')", ["é"]),
        ("import sys; sys.stdout.buffer.write(bytearray(b'array\\n')); sys.stdout.buffer.raw.write(b'raw\\n')", ["array", "raw"]),
        ("import sys; print('original', file=sys.__stdout__)", ["original"]),
        ("import sys; sys.stdout.reconfigure(encoding='utf-8', line_buffering=True); print('\\udcff')", ["\\udcff"]),
        ("import sys; print(sys.stdout.encoding, sys.stdout.errors, sys.stdout.isatty(), sys.stdout.closed, "
         "sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.name, sys.stdout.writable(), sys.stdout.line_buffering)",
         ["utf-8 backslashreplace False False 1 2 <stdout> True False"]),
        ("import sys, io; io.TextIOWrapper(sys.stdout.buffer, 'utf-8').write('wrapped\\n')\nprint('after')",
         ["wrapped", "after"]),
        ("import sys, codecs; codecs.getwriter('utf-8')(sys.stdout.detach()).write('é\\n'); print('after')", ["é", "after"]),
        ("import contextlib, io\n"
         "with contextlib.redirect_stdout(io.StringIO()) as o: print('inside')\nprint(o.getvalue(), 'out')",
         ["inside", "out"]),
        ("import faulthandler; faulthandler.enable(); faulthandler.disable()", []),
        ("import sys, cortex_runtime.logs.capture as c; c._PROGRESS_SECONDS = 30\n"
         "for n in range(50): print(f'\\r{n} of 50', end='', flush=True)\nprint()", ["0 of 50", "49 of 50"]),
        ("print('windows\\r\\nline\\r')", ["windows", "line"]),
        ("import signal, os, threading\nprint(threading.current_thread() is threading.main_thread())", ["True"]),
        ("import signal\nsignal.signal(signal.SIGUSR1, lambda *_: print('signal'))\n"
         "signal.raise_signal(signal.SIGUSR1)", ["signal"]),
    ],
)  # fmt: skip
def test_every_line_is_written_once(executes, code, messages):
    identity = f"r-{os.urandom(4).hex()}"
    answer = executes.post(code, headers={"x-request-id": identity})
    assert (answer.status_code, answer.text) == (200, "done"), executes.log.read_text()[-2000:]
    # An unfinished line is written with the next request, at the latest.
    assert executes.post("import sys; print('next'); print('next', file=sys.stderr)").status_code == 200
    lines = [line for line in executes.lines() if line.get("requestId") == identity]
    if any("deep" in line["message"] for line in lines):
        lines = [line for line in lines if line["message"] != "deep"]
    seen = [line["message"] for line in lines]
    assert len(seen) >= len(messages), seen
    for message, expected in zip(seen, messages, strict=False):
        assert expected in message
    assert len(seen) == len(messages)


def test_a_message_that_is_too_long_is_cut_in_its_middle(executes):
    assert executes.post("import logging; logging.warning('begin' + 'x' * 5_000_000 + 'end')").text == "done"
    line = next(line for line in executes.lines() if line["message"].startswith("beginxxx"))
    assert line["message"].endswith("xxxend")
    assert len(line["message"]) < 1_000_000


def test_threads_do_not_mix_their_lines(executes):
    code = """
import threading, sys
def work(n):
    for _ in range(200):
        print("thread", n, end=" "); print("has", "a", "line")
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
"""
    assert executes.post(code).text == "done"
    found = Counter(line["message"] for line in executes.lines() if line["message"].startswith("thread "))
    assert found == {f"thread {n} has a line": 200 for n in range(8)}


def test_uncaught_exceptions_are_one_line_with_their_traceback(executes):
    code = """
import threading
thread = threading.Thread(target=lambda: 1 / 0, name="mine"); thread.start(); thread.join()
class Bad:
    def __del__(self): raise KeyError("unraisable")
Bad()
"""
    assert executes.post(code).text == "done"
    lines = [line for line in executes.lines() if line["level"] == "error"]
    of_thread = [line for line in lines if line["message"] == "an exception ended thread mine"]
    assert ["ZeroDivisionError" in line["traceback"] for line in of_thread] == [True]
    assert ["unraisable" in line["traceback"] for line in lines if "__del__" in line["message"]] == [True]


def test_a_forked_process_writes_only_its_own_lines(executes):
    code = """
import os
print("of the parent", end="")
pid = os.fork()
if pid == 0:
    print("of the child"); os._exit(0)
os.waitpid(pid, 0)
print()
"""
    assert executes.post(code).text == "done"
    lines = [line for line in executes.lines() if line["message"].startswith("of the ")]
    assert sorted(line["message"] for line in lines) == ["of the child", "of the parent"]
    assert len({line["process"] for line in lines}) == 2


def test_a_program_that_is_started_finds_real_descriptors(executes):
    code = 'import subprocess, sys; subprocess.run(["echo", """{"message": "of a program"}"""], stdout=sys.stdout)'
    assert executes.post(code).text == "done"
    assert [line["message"] for line in executes.lines()].count("of a program") == 1


LOUD = """
import logging
class Handler:
    def handle_post(self, payload):
        for number in range(2000):
            print(number, "x" * 1000)
        return payload
"""


@pytest.mark.parametrize("gone", [False, True])
def test_a_slow_reader_of_the_log_does_not_delay_requests(serve, gone):
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as output, os.fdopen(reader, "rb") as log:
        api = serve(LOUD, output=output)
        if gone:
            log.close()
        # 10 MB, of which a pipe takes 64 KB.
        for number in range(5):
            assert api.post(number).json() == number
        if gone:
            return
        seen: list[dict] = []
        output.close()
        reading = threading.Thread(target=lambda: seen.extend(map(json.loads, log)))
        reading.start()
        api.process.send_signal(signal.SIGTERM)
        assert api.process.wait(60) == 0
        reading.join(60)
    numbers = [int(line["message"].split()[0]) for line in seen if line["logger"] == "print"]
    # From the first line on, without a gap; dropped lines are counted.
    assert numbers == [n % 2000 for n in range(len(numbers))]
    lost = [line["message"] for line in seen if "log lines were dropped" in line["message"]]
    assert [int(message.split()[0]) for message in lost] == [10_000 - len(numbers)]


def test_debug_survives_a_payload_without_a_repr(serve):
    source = ODD + "\nclass Handler:\n    def handle_get(self):\n        return iter([Broken()])\n"
    api = serve(source, debug=True)
    assert PLAIN.get(f"{api.url}/?debug=true").status_code == 500
    assert [line["stage"] for line in api.lines() if "stage" in line] == ["sample", "prediction"]


def test_the_package_can_be_imported_after_libraries_that_have_loggers_of_the_same_name():
    program = (
        "import logging, uvicorn.server; logging.getLogger('cortex'); from cortex_runtime import UserError"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
