"""Call the handler in a loop in two processes: the maximum throughput of two worker processes."""

import sys
import time
from multiprocessing import Pool

from handler import Handler

PROCESSES = 2


def calls(seconds: float) -> float:
    """Return the calls per second of one process."""
    handler, count, began = Handler(), 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < seconds:
        handler.handle_post({"items": []})
        count += 1
    return count / taken


if __name__ == "__main__":
    with Pool(PROCESSES) as pool:
        print(sum(pool.map(calls, [float(sys.argv[1])] * PROCESSES)))
