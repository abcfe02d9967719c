"""Send generated requests to a running API, and compare its responses with its OpenAPI document."""

from contextlib import nullcontext, suppress

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
CASES = 6
"""Requests of each kind to each operation."""


def conform(url: str) -> None:
    """Send valid and invalid requests to all operations. Raises for a 5xx and for a response that is not described."""
    with requests.Session() as session:
        session.trust_env = False
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        assert operations
        for operation in operations:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                send(operation, mode, session)


def send(operation: schemathesis.APIOperation, mode: GenerationMode, session: requests.Session) -> None:
    """Send generated requests to an operation."""

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(session=session, checks=CHECKS, timeout=30)

    # Every request to an operation without parameters and without a body is valid.
    with suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else nullcontext():
        check()
