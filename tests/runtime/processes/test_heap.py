"""What the C library has freed is returned to the system."""

import subprocess
import sys

import pytest

FREED = 64 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_memory_that_a_library_has_freed_is_returned_to_the_system():
    code = f"""
import ctypes
from cortex_runtime.processes.heap import return_freed_memory
from cortex_runtime.processes.resident_memory import resident_bytes
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
# Below the size that the C library returns at once; the last block keeps it from returning the ones before.
blocks = [library.malloc(1 << 16) for _ in range({FREED} >> 16)]
for block in blocks:
    ctypes.memset(block, 1, 1 << 16)
last = library.malloc(1 << 16)
ctypes.memset(last, 1, 1 << 16)
for block in blocks:
    library.free(ctypes.c_void_p(block))
before = resident_bytes()
return_freed_memory()
print(before - resident_bytes())
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(shown) > FREED // 2


def test_a_process_without_native_libraries_is_left_alone():
    code = """
import sys
from cortex_runtime.processes.heap import return_freed_memory
return_freed_memory()
assert "ctypes" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
