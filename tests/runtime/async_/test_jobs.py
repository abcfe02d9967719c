"""A job from POST to result, and what a client sees on the way."""

from collections.abc import Callable

from tests.runtime.async_.conftest import Api

ECHO = """
class Handler:
    def __init__(self, config):
        self.greeting = config.get("greeting", "hello")

    def handle_async(self, payload, request_id):
        return {"payload": payload, "id": request_id, "greeting": self.greeting}
"""


def test_a_job_ends_with_what_the_handler_returned(api: Callable[..., Api]) -> None:
    made = api(ECHO, config={"greeting": "hi"})
    made.gateway()
    made.consumer()
    identity = made.submit({"x": [1, 2]})
    job = made.end(identity)
    assert job == {
        "id": identity,
        "status": "completed",
        "result": {"payload": {"x": [1, 2]}, "id": identity, "greeting": "hi"},
        "timestamp": job["timestamp"],
    }
    assert job["timestamp"].endswith("Z")
