"""MLServer: `mlserver start FOLDER` with a class from this module. No parallel workers (parallel_workers 0).

The first two classes use custom endpoints, which are faster than the v2 protocol. MLServer only batches the v2 protocol. The last
two classes answer the Open Inference Protocol.
"""

from typing import Any

import numpy as np
import orjson
import work
from fastapi import Request, Response
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.handlers import custom_handler
from mlserver.types import InferenceRequest, InferenceResponse


def _answer(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


class Trivial(MLModel):
    async def load(self) -> bool:
        return True

    @custom_handler(rest_path="/predict")
    async def answer(self, request: Request) -> Response:
        return _answer(work.trivial(orjson.loads(await request.body())))


class Iris(MLModel):
    async def load(self) -> bool:
        self.model = work.Iris()
        return True

    @custom_handler(rest_path="/predict")
    async def answer(self, request: Request) -> Response:
        return _answer(self.model(orjson.loads(await request.body())))


class Batching(MLModel):
    async def load(self) -> bool:
        self.model = work.Network()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        classes = NumpyCodec.encode_output("class", np.array(self.model(rows))[:, None])
        return InferenceResponse(model_name=self.name, outputs=[classes])


class V2Iris(MLModel):
    async def load(self) -> bool:
        self.model = work.Iris()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        found = self.model.tensors(NumpyCodec.decode_input(payload.inputs[0]))
        outputs = [NumpyCodec.encode_output(name, values) for name, values in found.items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)


class V2Tensor(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        values = work.double(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", values)])
