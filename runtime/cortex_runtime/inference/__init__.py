"""The Open Inference Protocol, version 2, over HTTP and gRPC: messages to arrays and back, and the models that answer them."""
