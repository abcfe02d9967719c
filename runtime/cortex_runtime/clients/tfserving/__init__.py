"""TensorFlow Serving's API: messages and stubs of our own, so that the runtime needs no TensorFlow.

The `_pb2` modules are generated from the .proto files beside them, by
`python -m grpc_tools.protoc -I runtime --python_out=runtime --pyi_out=runtime runtime/cortex_runtime/clients/tfserving/*.proto`
"""
