"""TensorFlow Serving's API: messages and stubs of our own, so that the runtime needs no TensorFlow.

The `_pb2` modules are generated from the .proto files next to them, by `python tests/runtime/tensorflow/generate.py`.
"""
