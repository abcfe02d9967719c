"""tritonclient against a replica: HTTP, gRPC and their asyncio forms.

Run by tests/clients/run.py in an environment of its own: python triton.py KIND HOST:PORT HOST:GRPC_PORT. KIND is python for a
replica with a handler, else the kind of its models.
"""

import asyncio
import sys

from checks import report
from triton_aio import aio_checks
from triton_grpc import grpc_checks
from triton_handler import handler_checks
from triton_http import http_checks

kind, http_url, grpc_url = sys.argv[1:]
if kind == "python":
    handler_checks(http_url, grpc_url)
else:
    http_checks(http_url)
    grpc_checks(grpc_url)
    asyncio.run(aio_checks(http_url, grpc_url))
report(f"tritonclient, {kind}")
