"""The header x-model-version: the model versions that produced a response."""

from functools import lru_cache

from cortex_runtime.clients import served
from cortex_runtime.models.catalog import DEFAULT_NAME


def with_versions(extra: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers, with x-model-version added if the request has used a model."""
    versions = served.get()
    return [*extra, (b"x-model-version", header_of(versions))] if versions else extra


def header_of(versions: list[tuple[str, int]]) -> bytes:
    """Return the header's value: `3` for the only model of an API, `iris=3, digits=1` for named models."""
    return _written(tuple(versions))


@lru_cache(1024)
def _written(versions: tuple[tuple[str, int], ...]) -> bytes:
    texts = [str(version) if name == DEFAULT_NAME else f"{name}={version}" for name, version in versions]
    return ", ".join(dict.fromkeys(texts)).encode()
