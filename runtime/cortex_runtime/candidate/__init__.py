"""spec.candidate in a stable replica: which version answers a request, and how the answers of both compare."""
