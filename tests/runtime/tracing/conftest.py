"""A collector of traces, and variables that make a replica send its spans soon."""

from collections.abc import Iterator

import pytest

from .collector import Collector


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """A collector for all tests of a module. Replicas that are started while it exists send each span within 50 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        # None is dropped while the machine is busy.
        patch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100000")
        patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer collector-token")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        collector = Collector()
        yield collector
        collector.close()
