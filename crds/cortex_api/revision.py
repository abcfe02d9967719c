"""What a revision of an API contains, and how an API returns to one. Pure; the operator and the command line use it."""

from collections.abc import Mapping
from typing import Any

NOT_REVISED = ("replicas", "paused", "candidate")
"""Fields of the spec that are no part of a revision: they change without a new version of the API."""


def revised(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a spec that a revision contains."""
    return {name: value for name, value in spec.items() if name not in NOT_REVISED}


def restored(spec: Mapping[str, Any], revision: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec with the content of a revision. replicas, paused and candidate stay as they are."""
    return {**revision, **{name: spec[name] for name in NOT_REVISED if name in spec}}
