"""The messages of the gRPC services, generated from the .proto files by tests/runtime/inference/generate.py.

They are in a descriptor pool of their own. A handler may import the client library of another server, whose messages have the
same names and would conflict in the default pool.
"""
