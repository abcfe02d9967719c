# ruff: noqa: PT017 - these are programs, not tests of pytest
"""The asyncio forms of tritonclient."""

import asyncio

import tritonclient.grpc.aio as grpcaio
import tritonclient.http.aio as httpaio
from checks import Checks
from triton_common import VALUES, equal, grpc_input, http_input
from tritonclient.utils import InferenceServerException


async def aio_checks(http_url, grpc_url):
    async with httpaio.InferenceServerClient(http_url) as client:
        with Checks("http aio health and metadata"):
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("same_fp32")
            assert not await client.is_model_ready("nothing")
            assert (await client.get_model_metadata("same_fp32"))["versions"] == ["1", "2"]
            assert (await client.get_server_metadata())["name"]
        for datatype, values in VALUES.items():
            for version in ("", "1"):
                for binary in (True, False):
                    if datatype == "BF16" and not binary:
                        continue
                    with Checks(f"http aio {datatype} {version!r} {binary}"):
                        result = await client.infer(
                            f"same_{datatype.lower()}",
                            [http_input(httpaio, datatype, values, binary)],
                            model_version=version,
                            outputs=[httpaio.InferRequestedOutput("y", binary_data=binary)],
                        )
                        equal(result, "y", values)
        for request in (None, "gzip", "deflate"):
            for response in (None, "gzip", "deflate"):
                with Checks(f"http aio compression {request} {response}"):
                    result = await client.infer(
                        "same_fp32",
                        [http_input(httpaio, "FP32", VALUES["FP32"])],
                        request_compression_algorithm=request,
                        response_compression_algorithm=response,
                    )
                    equal(result, "y", VALUES["FP32"])
        with Checks("http aio concurrent"):
            results = await asyncio.gather(
                *(
                    client.infer("same_fp32", [http_input(httpaio, "FP32", VALUES["FP32"] + i)])
                    for i in range(50)
                )
            )
            for i, result in enumerate(results):
                equal(result, "y", VALUES["FP32"] + i)
        with Checks("http aio error"):
            try:
                await client.infer("nothing", [http_input(httpaio, "FP32", VALUES["FP32"])])
            except InferenceServerException as error:
                assert error.status() == "404", error
            else:
                raise AssertionError("was accepted")
    async with grpcaio.InferenceServerClient(grpc_url) as client:
        with Checks("grpc aio health and metadata"):
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("same_fp32")
            assert not await client.is_model_ready("nothing")
            assert list((await client.get_model_metadata("same_fp32")).versions) == ["1", "2"]
        for datatype, values in VALUES.items():
            for version in ("", "1"):
                with Checks(f"grpc aio {datatype} {version!r}"):
                    result = await client.infer(
                        f"same_{datatype.lower()}",
                        [grpc_input(grpcaio, datatype, values)],
                        model_version=version,
                    )
                    equal(result, "y", values)
        with Checks("grpc aio concurrent"):
            results = await asyncio.gather(
                *(
                    client.infer("same_fp32", [grpc_input(grpcaio, "FP32", VALUES["FP32"] + i)])
                    for i in range(50)
                )
            )
            for i, result in enumerate(results):
                equal(result, "y", VALUES["FP32"] + i)
        with Checks("grpc aio stream"):

            async def requests():
                for i in range(20):
                    yield {
                        "model_name": "same_fp32" if i % 5 else "nothing",
                        "inputs": [grpc_input(grpcaio, "FP32", VALUES["FP32"] + i)],
                        "request_id": str(i),
                    }

            i = 0
            async for result, error in client.stream_infer(requests()):
                if i % 5:
                    assert error is None, error
                    equal(result, "y", VALUES["FP32"] + i)
                else:
                    assert "does not exist" in error.message()
                i += 1
            assert i == 20
        with Checks("grpc aio error"):
            try:
                await client.infer("nothing", [grpc_input(grpcaio, "FP32", VALUES["FP32"])])
            except InferenceServerException as error:
                assert error.status() == "StatusCode.NOT_FOUND", error.status()
            else:
                raise AssertionError("was accepted")
