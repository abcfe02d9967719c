"""For all tests: the number of parallel processes, names of parameters, defaults of the clients and of hypothesis."""

import functools
import os

import httpx._config
import httpx._transports.default as transport
import hypothesis
import pytest

# Each client of httpx otherwise reads the certificates of public authorities, which takes 20 ms of CPU.
transport.create_ssl_context = functools.cache(transport.create_ssl_context)
# Where a test sets no time limit. The default of httpx is 5 s, which a server on a busy machine may need.
vars(httpx._config.DEFAULT_TIMEOUT_CONFIG).update(dict.fromkeys(("connect", "read", "write", "pool"), 60.0))
# The same examples in each run, and no limit on the time of an example.
hypothesis.settings.load_profile("ci")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of processes of `pytest -n auto`: more than CPUs, because many tests wait for other processes."""
    return len(os.sched_getaffinity(0)) + 2


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name binary parameters by their length: compressed content may differ in each process, and names must not."""
    return f"{len(val)} bytes" if isinstance(val, bytes) and not val.decode("latin-1").isprintable() else None
