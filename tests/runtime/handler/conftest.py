"""Sources of projects: the same servers and folders as those of models."""

from tests.runtime.models.conftest import s3, short_pauses, web, write

__all__ = ["s3", "short_pauses", "web", "write"]
