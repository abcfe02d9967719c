"""What is sent to the API server, so that exactly what is meant is left there."""

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
def test_a_merge_patch_takes_away_what_is_no_more_at_any_depth(
    wanted: dict[str, Any], patch: dict[str, Any]
) -> None:
    assert merge_patch(OLD, wanted) == patch
