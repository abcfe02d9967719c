"""The patches that are sent to the API server."""

from typing import Any

import pytest

from cortex_operator.cluster import merge_patch

OLD: dict[str, Any] = {
    "a": 1,
    "scaling": {"desired": 1, "reason": "no metrics", "deep": {"x": 1}},
    "gone": [1],
}


@pytest.mark.parametrize(
    ("wanted", "patch"),
    [
        ({"a": 1}, {"a": 1, "scaling": None, "gone": None}),
        (
            {"a": 2, "scaling": {"desired": 3, "deep": {}}},
            {"a": 2, "scaling": {"desired": 3, "reason": None, "deep": {"x": None}}, "gone": None},
        ),
        ({"scaling": 5, "gone": {"b": 1}}, {"a": None, "scaling": 5, "gone": {"b": 1}}),
    ],
)
def test_a_merge_patch_removes_fields_at_any_depth(wanted: dict[str, Any], patch: dict[str, Any]) -> None:
    assert merge_patch(OLD, wanted) == patch
