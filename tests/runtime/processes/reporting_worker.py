"""A worker module for tests: it reports about its process, and exits with the status that it receives."""

import json
import os
import random
import socket
import sys


def main(arguments):
    control = socket.socket(fileno=arguments.control)
    with open("/proc/self/fd/0", "rb") as stdin:
        report = {
            "pid": os.getpid(),
            "session": os.getsid(0),
            "argv": sys.argv,
            "stdin": stdin.read().decode(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "mailboxes": [[os.fstat(end).st_ino for end in ends] for ends in arguments.mailboxes],
            "random": random.random(),
            "environment": os.environ.get("CORTEX_TEST"),
            "is_fork": "cortex_runtime.processes.template" in sys.orig_argv,
        }
    if (numpy := sys.modules.get("numpy")) is not None:
        matrix = numpy.ones((600, 600))
        matrix @ matrix
        report["threads"] = len(os.listdir("/proc/self/task"))
    control.sendall(json.dumps(report).encode() + b"\n")
    os._exit(int(control.makefile().readline() or 0))


if __name__ == "__main__":
    from cortex_runtime.processes.worker_arguments import WorkerArguments

    main(WorkerArguments.from_json(sys.argv[1]))
