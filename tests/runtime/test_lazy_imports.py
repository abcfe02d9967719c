"""Modules that are imported on the first access to one of their attributes."""

import subprocess
import sys

import pytest

from cortex_runtime import lazy_imports


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", f"import cortex_runtime, sys\n{code}"], check=True)


def test_each_module_can_be_used_as_usual():
    run("""
import calendar, difflib, html, http.client, http.cookies, logging.config, pickle
from http.client import HTTPConnection
assert html.escape("<") == "&lt;" and difflib.get_close_matches("colr", ["color"]) == ["color"]
assert HTTPConnection is http.client.HTTPConnection and http.client.responses[404] == "Not Found"
assert http.cookies.SimpleCookie("a=1")["a"].value == "1" and calendar.isleap(2028)
assert pickle.loads(pickle.dumps([1])) == [1]
logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
assert "unescape" in dir(html) and html.__file__.endswith(".py")
""")


@pytest.mark.parametrize("name", lazy_imports.NAMES)
def test_the_code_of_a_module_runs_on_its_first_use(name):
    run(f"""
import importlib
module = importlib.import_module({name!r})
before = len(vars(module))
assert not hasattr(module, "nothing_like_it")
assert len(vars(module)) > before + 3
assert type(module) is type(sys)
""")


def test_an_attribute_that_is_set_before_the_first_use_is_kept():
    run("""
import http.client
http.client._MAXHEADERS = 7
assert http.client.HTTPConnection
assert http.client._MAXHEADERS == 7
""")


def test_threads_that_use_a_module_at_the_same_time_see_all_of_it():
    run("""
import http.client, threading
sys.setswitchinterval(1e-6)
found, start = [], threading.Barrier(8)
def use():
    start.wait()
    found.append((http.client.HTTPConnection, http.client.HTTPSConnection, http.client.error))
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(found) == 8 and len(set(found)) == 1
""")
