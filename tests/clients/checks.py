"""What the programs of this folder share: the values of each datatype, and checks that are counted.

They run in environments of their own, with this folder on the import path.
"""

import sys
import traceback

import numpy as np

VALUES = {
    "BOOL": np.array([[True, False], [False, True]]),
    "UINT8": np.array([[0, 255], [1, 2]], np.uint8),
    "UINT16": np.array([[0, 65535], [1, 2]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1], [1, 2]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1], [2**53 + 1, 2]], np.uint64),
    "INT8": np.array([[-128, 127], [1, 2]], np.int8),
    "INT16": np.array([[-32768, 32767], [1, 2]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1], [1, 2]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1], [2**53 + 1, 2]], np.int64),
    "FP16": np.array([[0.5, -65504], [1e-7, 2]], np.float16),
    "FP32": np.array([[0.1, -3e38], [1e-45, 2]], np.float32),
    "FP64": np.array([[0.1, -1e308], [5e-324, 2]], np.float64),
    "BYTES": np.array([[b"a", b""], ["ü€".encode(), b"x" * 5000]], object),
}
passed, failed = [], []


class Checks:
    """Counts what passes and what fails, and goes on."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            passed.append(self.name)
        else:
            failed.append((self.name, "".join(traceback.format_exception(kind, error, trace)[-3:])))
        return True


def same(got, wanted):
    """See that two arrays are equal. Text counts as its bytes in UTF-8."""
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    if wanted.dtype == object:
        got = np.array([x.encode() if isinstance(x, str) else x for x in got.ravel()], object)
        got = got.reshape(wanted.shape)
    assert (got == wanted).all(), (got, wanted)


def report(client):
    """Print the failed checks and the counts, and exit."""
    for name, trace in failed:
        print(f"FAILED {name}\n{trace}", file=sys.stderr)
    print(f"{client}: {len(passed)} passed, {len(failed)} failed", flush=True)
    sys.exit(bool(failed))
