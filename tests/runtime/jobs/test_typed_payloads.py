"""A job whose payload has a type hint."""

from collections.abc import Callable

from tests.runtime.jobs.conftest import Api

TYPED = """
from dataclasses import dataclass

@dataclass
class Order:
    number: int

class Handler:
    def handle_async(self, payload: Order):
        return {"number": payload.number}
"""


def test_a_payload_is_validated_and_passed_as_the_type_of_its_hint(shared: Callable[..., Api]) -> None:
    api = shared(TYPED)
    api.gateway()
    api.consumer()
    good, bad = api.submit({"number": 3}), api.submit({"number": "x"})
    assert api.end(good)["result"] == {"number": 3}
    failed = api.end(bad)
    assert (failed["status"], failed["reason"], failed["attempts"]) == ("failed", "Rejected", 1)
    assert failed["error"].startswith("the payload is not valid: number must be a valid integer")
