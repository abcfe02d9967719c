"""Several worker processes on one gRPC port: all get connections, and one that is killed fails no calls of the others."""

import json
import os
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np

from cortex_runtime.inference.protos import inference_pb2 as pb
from tests.runtime.queues.servers import free_port

PID = """
import os
import numpy as np

class Handler:
    def handle_infer(self, inputs, parameters):
        return {"pid": np.array([os.getpid()])}
"""
INFER = "/inference.GRPCInferenceService/ModelInfer"
RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


class Client:
    """Calls on a connection of its own. retries: whether its channel repeats calls that end with UNAVAILABLE."""

    def __init__(self, port: int, retries: bool) -> None:
        options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1)]
        options += [("grpc.service_config", json.dumps(RETRIES))] if retries else []
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        self.counts: Counter[int | str] = Counter()
        self._infer = self.channel.unary_unary(
            INFER, pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
        )
        self._request = pb.ModelInferRequest(model_name="tested")
        self._request.inputs.add(name="x", datatype="FP32", shape=[1])
        self._request.raw_input_contents.append(np.float32(1).tobytes())

    def call(self) -> None:
        """Send a request, and count the process that answered, or the status."""
        try:
            response = self._infer(self._request, timeout=20)
        except grpc.RpcError as error:
            self.counts[error.code().name] += 1
        else:
            self.counts[int(np.frombuffer(response.raw_output_contents[0], np.int64)[0])] += 1

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.call()
            stop.wait(0.002)


def test_a_killed_worker_fails_only_its_own_calls_and_of_a_client_that_retries_one_whose_response_had_begun(
    serve: Any,
) -> None:
    port, processes, clients = free_port(), 3, 12
    api = serve(PID, "--grpc-port", str(port), protocols={"grpc": True}, processesPerReplica=processes)
    api.until(lambda: len(connected(port)) == processes)
    retrying, plain = ([Client(port, retries) for _ in range(clients)] for retries in (True, False))
    stop = threading.Event()

    def total() -> Counter[int | str]:
        return sum((client.counts.copy() for client in (*retrying, *plain)), Counter())

    with ThreadPoolExecutor(2 * clients) as pool:
        for client in (*retrying, *plain):
            pool.submit(client.run, stop)
        try:
            api.until(lambda: all(sum(client.counts.copy().values()) > 5 for client in (*retrying, *plain)))
            victim = max((pid for pid in total() if isinstance(pid, int)), key=lambda pid: total()[pid])
            before = total()
            os.kill(victim, signal.SIGKILL)
            api.until(lambda: sum((total() - before).values()) > 500)
            # The process that replaces it gets connections.
            api.until(
                lambda: len(pids := connected(port)) == processes and not pids & {victim, "UNAVAILABLE"}
            )
        finally:
            stop.set()
    for client in (*retrying, *plain):
        client.channel.close()
        # A client of the killed worker fails until its channel has connected again, up to a second later.
        expected = {"UNAVAILABLE"} if victim in client.counts else set()
        assert {status for status in client.counts if isinstance(status, str)} <= expected
    # A call is repeated unless the killed process had sent a part of its response, which it usually sends as a whole.
    assert max(client.counts["UNAVAILABLE"] for client in retrying) <= 1


def connected(port: int) -> set[int | str]:
    """Return the processes, or the status, that several new connections get."""
    seen: set[int | str] = set()
    for _ in range(24):
        client = Client(port, retries=True)
        client.call()
        client.channel.close()
        seen |= set(client.counts)
    return seen
