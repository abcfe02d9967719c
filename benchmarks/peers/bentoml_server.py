"""BentoML: `bentoml serve bentoml_server:CLASS`. One worker; typed methods as in its documentation."""

from typing import Any

import bentoml
import work

TRAFFIC = {"timeout": 60}
LOGGING = {"access": {"enabled": False}}


@bentoml.service(workers=1, traffic=TRAFFIC, logging=LOGGING)
class Trivial:
    @bentoml.api(route="/predict")
    def predict(self, items: list[str]) -> dict[str, Any]:
        return work.trivial({"items": items})


@bentoml.service(workers=1, traffic=TRAFFIC, logging=LOGGING)
class Iris:
    def __init__(self) -> None:
        self.model = work.Iris()

    @bentoml.api(route="/predict")
    def predict(
        self, sepal_length: float, sepal_width: float, petal_length: float, petal_width: float
    ) -> dict[str, Any]:
        return self.model(
            {
                "sepal_length": sepal_length,
                "sepal_width": sepal_width,
                "petal_length": petal_length,
                "petal_width": petal_width,
            }
        )


@bentoml.service(workers=1, traffic=TRAFFIC, logging=LOGGING)
class Batching:
    def __init__(self) -> None:
        self.model = work.Network()

    @bentoml.api(route="/predict", batchable=True, max_batch_size=work.BATCH_ROWS, max_latency_ms=60_000)
    def predict(self, rows: list[list[float]]) -> list[int]:
        return self.model(rows)
