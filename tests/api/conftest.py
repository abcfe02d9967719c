"""A factory for valid manifests."""

from collections.abc import Callable
from typing import Any

import pytest


def manifest(kind: str = "RealtimeAPI", **spec: Any) -> dict[str, Any]:
    """Return a valid manifest whose spec is updated with `spec`."""
    return {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "iris", "namespace": "default"},
        "spec": {"handler": {"type": "python", "path": "handler.py"}, **spec},
    }


@pytest.fixture(name="manifest")
def manifest_fixture() -> Callable[..., dict[str, Any]]:
    return manifest
