"""gRPC over HTTP/2: the methods of services, as an ASGI application, and the server that it runs in. Imports no gRPC library."""
