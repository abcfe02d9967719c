"""LitServe: `litserve_server.py WORK PORT`. One API server, one worker, and the fast queue (ZeroMQ)."""

import sys
from typing import Any

import litserve
import work


class Trivial(litserve.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def predict(self, payload: dict[str, Any]) -> dict[str, Any]:
        return work.trivial(payload)


class Iris(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = work.Iris()

    def predict(self, payload: dict[str, float]) -> dict[str, Any]:
        return self.model(payload)


class Batching(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = work.Network()

    def batch(self, payloads: list[Any]) -> list[Any]:
        return payloads

    def predict(self, rows: list[list[float]]) -> list[int]:
        return self.model(rows)

    def unbatch(self, classes: list[int]) -> list[int]:
        return classes

    def encode_response(self, found: int) -> dict[str, int]:
        return {"class": found}


if __name__ == "__main__":
    name, port = sys.argv[1], int(sys.argv[2])
    api: litserve.LitAPI
    if name == "batching":
        api = Batching(max_batch_size=work.BATCH_ROWS, batch_timeout=work.BATCH_WAIT_S)
    else:
        api = {"trivial": Trivial, "iris": Iris}[name]()
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=1,
        log_level="error",
        access_log=False,
        generate_client_file=False,
    )
