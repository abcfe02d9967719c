"""Call the handler directly with full batches: `full.py SECONDS` prints rows per second."""

import sys
import time

from handler import ROWS, SHAPE, Handler

handler = Handler()
batch = [[number / 7 for number in range(SHAPE[0])] for _ in range(ROWS)]
end = time.perf_counter() + float(sys.argv[1])
began, rows = time.perf_counter(), 0
while time.perf_counter() < end:
    handler.handle_post(batch)
    rows += ROWS
print(rows / (time.perf_counter() - began))
