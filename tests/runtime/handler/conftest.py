"""Fixtures for sources of projects, shared with the tests of models."""

from tests.runtime.models.conftest import s3, short_pauses, web, write

__all__ = ["s3", "short_pauses", "web", "write"]
