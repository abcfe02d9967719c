"""For all tests: clients of httpx share their TLS contexts.

Each client otherwise reads the certificates of public authorities, which takes 20 ms of CPU.
"""

import functools

import httpx._transports.default as transport

transport.create_ssl_context = functools.cache(transport.create_ssl_context)
