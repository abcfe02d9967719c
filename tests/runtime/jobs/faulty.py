"""A program of the runtime that kills itself at one step: `faulty.py STEP [NTH] -- ARGUMENTS`.

STEP is a method of the NATS backend, prefixed with "before:" or "after:"; NTH counts its calls for jobs.
"""

import os
import signal
import sys

from cortex_runtime.__main__ import main
from cortex_runtime.queues.nats import NatsBackend


def arm(step: str, nth: int) -> None:
    when, _, name = step.partition(":")
    original = getattr(NatsBackend, name)
    calls = 0

    async def call(self: NatsBackend, *arguments: object, **more: object) -> object:
        nonlocal calls
        if arguments and str(arguments[0]).startswith("interface/"):
            return await original(self, *arguments, **more)
        calls += 1
        if calls == nth and when == "before":
            die()
        result = await original(self, *arguments, **more)
        if calls == nth and when == "after" and not (name == "take" and not result):
            # The sent data arrives, so the step is complete.
            await self._server.flush()
            die()
        if name == "take" and not result:
            # Only a take that returns jobs is a step in the life of a job.
            calls -= 1
        return result

    setattr(NatsBackend, name, call)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    split = sys.argv.index("--")
    step, nth = sys.argv[1], int(sys.argv[2]) if split == 3 else 1
    arm(step, nth)
    sys.exit(main(sys.argv[split + 1 :]))
