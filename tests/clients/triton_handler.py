"""tritonclient against a handler in Python with `handle_infer`."""

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from checks import Checks
from triton_common import equal, refused


def handler_checks(http_url, grpc_url):
    """A handler in Python with handle_infer."""
    for form, module, url in (("http", httpclient, http_url), ("grpc", grpcclient, grpc_url)):
        client = module.InferenceServerClient(url)
        x = np.array([[1, 2], [3, 4]], np.float32)

        def given(module=module, x=x):
            each = module.InferInput("x", [2, 2], "FP32")
            each.set_data_from_numpy(x)
            return [each]

        for version in ("", "1"):
            with Checks(f"handler {form} version {version!r}"):
                result = client.infer("iris", given(), model_version=version)
                equal(result, "y", x * 2)
                equal(result, "text", np.array([b"a", b"b"], object))
        with Checks(f"handler {form} parameters"):
            equal(client.infer("iris", given(), parameters={"factor": 3}), "y", x * 3)
        with Checks(f"handler {form} output"):
            result = client.infer("iris", given(), outputs=[module.InferRequestedOutput("y")])
            assert result.as_numpy("text") is None
        with Checks(f"handler {form} metadata"):
            metadata = client.get_model_metadata("iris", **({} if form == "http" else {"as_json": True}))
            assert metadata["platform"] == "python"
            assert len(metadata["inputs"]) == 1
        with Checks(f"handler {form} failure is no traceback"):
            refused(
                lambda client=client, given=given: client.infer("iris", given(), parameters={"fail": True}),
                "500" if form == "http" else "INTERNAL",
                "internal server error",
            )
        if form == "grpc":
            with Checks("handler grpc deadline"):
                refused(
                    lambda client=client, given=given: client.infer(
                        "iris", given(), parameters={"sleep": 3}, client_timeout=0.2
                    ),
                    "DEADLINE_EXCEEDED",
                )
        client.close()
