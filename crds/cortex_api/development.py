"""Development copies: APIs that `cortex dev` creates and renews, and that the operator deletes when they expire.

An API in development mode runs code that its user sends to it, so it must not be possible to turn the mode on by accident: it
needs both a name that ends in "-dev" and a time of expiry, after which the API is deleted.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from cortex_api.contract import DEVELOPMENT_EXPIRES_ANNOTATION, DEVELOPMENT_SUFFIX


def expires(name: str, annotations: Mapping[str, str]) -> datetime | None:
    """Return when a development copy expires; None for any other API, and if the annotation is not a valid time."""
    if not name.endswith(DEVELOPMENT_SUFFIX):
        return None
    try:
        time = datetime.fromisoformat(annotations[DEVELOPMENT_EXPIRES_ANNOTATION])
    except (KeyError, ValueError, TypeError):
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
