"""tritonclient over HTTP: each datatype, version and form of a tensor, compression, and wrong requests."""

import numpy as np
import tritonclient.http as httpclient
from checks import Checks
from triton_common import VALUES, equal, health, http_input, refused, repository, wrong_requests


def http_checks(url):
    client = httpclient.InferenceServerClient(url, concurrency=4)
    health(client, "http")
    for datatype, values in VALUES.items():
        model = f"same_{datatype.lower()}"
        for version in ("", "1", "2"):
            for binary_in in (True, False):
                if datatype == "BF16" and not binary_in:
                    continue
                for binary_out in (True, False):
                    with Checks(f"http {datatype} version {version!r} in {binary_in} out {binary_out}"):
                        result = client.infer(
                            model,
                            [http_input(httpclient, datatype, values, binary_in)],
                            model_version=version,
                            request_id="42",
                            outputs=[httpclient.InferRequestedOutput("y", binary_data=binary_out)],
                        )
                        equal(result, "y", values)
                        response = result.get_response()
                        assert (response["model_name"], response["id"]) == (model, "42")
                        assert response["model_version"] == (version or "2")
                        assert result.get_output("y")["datatype"] == datatype
        for number in (0, 1, 7):
            with Checks(f"http {datatype} all outputs, {number} rows"):
                rows = np.concatenate([values] * 4)[:number]
                result = client.infer(model, [http_input(httpclient, datatype, rows)])
                equal(result, "y", rows)
                assert result.get_response().get("id") is None
    for request in (None, "gzip", "deflate"):
        for response in (None, "gzip", "deflate"):
            for binary in (True, False):
                with Checks(f"http compression {request} {response} {binary}"):
                    result = client.infer(
                        "same_fp32",
                        [http_input(httpclient, "FP32", VALUES["FP32"], binary)],
                        request_compression_algorithm=request,
                        response_compression_algorithm=response,
                    )
                    equal(result, "y", VALUES["FP32"])
    with Checks("http compressed response is compressed"):
        pooled = client._post(
            "v2/models/same_fp32/infer",
            b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}',
            {"Accept-Encoding": "gzip"},
            None,
        )
        assert pooled.get("content-encoding") == "gzip"
    with Checks("http async infer"):
        pending = [
            client.async_infer("same_fp32", [http_input(httpclient, "FP32", VALUES["FP32"] + i)])
            for i in range(20)
        ]
        for i, each in enumerate(pending):
            equal(each.get_result(), "y", VALUES["FP32"] + i)
    two = [httpclient.InferInput(name, [1, 16], "INT32") for name in ("a", "b")]
    a, b = np.arange(16, dtype=np.int32)[None], np.ones((1, 16), np.int32)
    two[0].set_data_from_numpy(a, binary_data=False)
    two[1].set_data_from_numpy(b, binary_data=True)
    with Checks("http two inputs, mixed forms"):
        result = client.infer("add_sub", two)
        equal(result, "sum", a + b)
        equal(result, "difference", a - b)
    with Checks("http outputs in mixed forms"):
        outputs = [
            httpclient.InferRequestedOutput("difference", binary_data=False),
            httpclient.InferRequestedOutput("sum", binary_data=True),
        ]
        result = client.infer("add_sub", two, outputs=outputs)
        equal(result, "sum", a + b)
        equal(result, "difference", a - b)
    with Checks("http one output"):
        result = client.infer("add_sub", two, outputs=[httpclient.InferRequestedOutput("sum")])
        equal(result, "sum", a + b)
        assert result.as_numpy("difference") is None
    with Checks("http parameters, sequence, priority, timeout, headers, query"):
        client.infer(
            "same_fp32",
            [http_input(httpclient, "FP32", VALUES["FP32"])],
            sequence_id=7,
            sequence_start=True,
            sequence_end=True,
            priority=3,
            timeout=1000,
            headers={"x-a": "b"},
            query_params={"a": "b"},
            parameters={"own": "1", "n": 2},
        )
    with Checks("http body generated and parsed apart from the client"):
        body, size = httpclient.InferenceServerClient.generate_request_body(
            [http_input(httpclient, "FP32", VALUES["FP32"])]
        )
        answer = client._post(
            "v2/models/same_fp32/infer", body, {"Inference-Header-Content-Length": str(size)}, None
        )
        content = answer.read()
        result = httpclient.InferenceServerClient.parse_response_body(
            content, header_length=int(answer.get("inference-header-content-length"))
        )
        equal(result, "y", VALUES["FP32"])
    wrong_requests(client, lambda t, v: http_input(httpclient, t, v), httpclient, "http", ("400", "404"))
    with Checks("http large tensor"):
        large = np.random.rand(131072, 2).astype(np.float32)
        equal(client.infer("same_fp32", [http_input(httpclient, "FP32", large)]), "y", large)
    with Checks("http large tensor in JSON"):
        large = np.random.rand(20000, 2).astype(np.float32)
        outputs = [httpclient.InferRequestedOutput("y", binary_data=False)]
        equal(
            client.infer("same_fp32", [http_input(httpclient, "FP32", large, False)], outputs=outputs),
            "y",
            large,
        )
    with Checks("http shared memory is refused"):
        given = httpclient.InferInput("x", [2, 2], "FP32")
        given.set_shared_memory("region", 16)
        refused(lambda: client.infer("same_fp32", [given]), "400", "shared_memory_region is not supported")
    with Checks("http classification is refused"):
        outputs = [httpclient.InferRequestedOutput("y", class_count=1)]
        given = [http_input(httpclient, "FP32", VALUES["FP32"])]
        refused(lambda: client.infer("same_fp32", given, outputs=outputs), "400", "classification")
    with Checks("http repository"):
        index = client.get_model_repository_index()
        names = {(each["name"], each["version"]): each["state"] for each in index}
        assert names["same_fp32", "2"] == "READY", index
        repository(client)
    client.close()
