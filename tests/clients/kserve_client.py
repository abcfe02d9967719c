# ruff: noqa: PT017 - this is a program, not a test of pytest
"""KServe's inference clients against a replica: REST and gRPC; each datatype in JSON, as bytes and over gRPC.

Run by tests/clients/run.py in an environment of its own: python kserve_client.py KIND HOST:PORT
HOST:GRPC_PORT
"""

import asyncio
import sys

import grpc
import numpy as np
from checks import VALUES, Checks, report, same
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def request(datatype, values, binary, outputs=None, **more):
    given = InferInput("x", list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return InferRequest(
        model_name=f"same_{datatype.lower()}", infer_inputs=[given], request_outputs=outputs, **more
    )


def equal(response, datatype, wanted):
    (output,) = response.outputs
    assert (output.name, output.datatype) == ("y", datatype)
    same(output.as_numpy(), wanted)


async def rest_checks(url):
    base = f"http://{url}"
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        for name, call in (
            ("server live", lambda: client.is_server_live(base)),
            ("server ready", lambda: client.is_server_ready(base)),
            ("model ready", lambda: client.is_model_ready(base, "same_fp32")),
        ):
            with Checks(f"rest {name}"):
                assert await call() is True
        for datatype, values in VALUES.items():
            for binary in (True, False):
                if datatype == "FP16" and not binary:
                    continue  # The client refuses it.
                for binary_out in (None, True, False):
                    with Checks(f"rest {datatype} in {binary} out {binary_out}"):
                        outputs = None
                        if binary_out is not None:
                            outputs = [RequestedOutput("y", {"binary_data": binary_out})]
                        asked = request(datatype, values, binary, outputs, request_id="42")
                        response = await client.infer(base, asked, model_name=asked.model_name)
                        equal(response, datatype, values)
                        assert response.id == "42", response.id
            with Checks(f"rest {datatype} parameters"):
                asked = request(datatype, values, True, parameters={"binary_data_output": True, "a": 1})
                response = await client.infer(base, asked, model_name=asked.model_name)
                equal(response, datatype, values)
        with Checks("rest error"):
            try:
                asked = request("FP32", np.zeros((2, 3), np.float32), True)
                await client.infer(base, asked, model_name="same_fp32")
            except Exception as error:
                assert "expected shape" in str(error), error
            else:
                raise AssertionError("was accepted")


async def grpc_checks(url):
    async with InferenceGRPCClient(url) as client:
        for name, call in (
            ("server live", client.is_server_live),
            ("server ready", client.is_server_ready),
            ("model ready", lambda: client.is_model_ready("same_fp32")),
        ):
            with Checks(f"grpc {name}"):
                assert await call() is True
        with Checks("grpc unknown model is not ready"):
            assert await client.is_model_ready("nothing") is False
        for datatype, values in VALUES.items():
            for binary in (True, False):
                if datatype == "FP16" and not binary:
                    continue
                with Checks(f"grpc {datatype} raw {binary}"):
                    response = await client.infer(request(datatype, values, binary, request_id="42"))
                    equal(response, datatype, values)
                    assert response.id == "42"
        with Checks("grpc error"):
            try:
                await client.infer(request("FP32", np.zeros((2, 3), np.float32), True))
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
            else:
                raise AssertionError("was accepted")


kind, http_url, grpc_url = sys.argv[1:]
asyncio.run(rest_checks(http_url))
asyncio.run(grpc_checks(grpc_url))
report(f"kserve, {kind}")
