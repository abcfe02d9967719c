"""A preloaded numpy starts no threads in the template, and has all of them in a worker."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os
from cortex_runtime.processes.openblas import OpenBlas

def threads():
    return len(os.listdir("/proc/self/task"))

def count_after_use():
    matrix = numpy.ones((600, 600))
    matrix @ matrix
    return threads()

before = dict(os.environ)
blas = OpenBlas()
with blas.without_threads():
    import numpy
imported = threads()
assert dict(os.environ) == before
for _ in range(2):
    assert blas.restore()
    child = os.fork()
    if child == 0:
        os._exit(count_after_use())
    forked = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(imported, forked, threads())
"""
FRESH = "import numpy, os\nmatrix = numpy.ones((600, 600))\nmatrix @ matrix\nprint(len(os.listdir('/proc/self/task')))\n"


def run(program, environment):
    clean = {name: value for name, value in os.environ.items() if "_NUM_THREADS" not in name}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("environment", [{}, {"OMP_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": "3"}])
def test_a_fork_has_the_threads_of_a_fresh_interpreter(environment):
    (fresh,) = run(FRESH, environment)
    imported, *_ = found = run(PROGRAM, environment)
    assert found == [imported, fresh, 1] * 2
    if not environment:
        assert imported == 1
