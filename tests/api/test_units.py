"""Conversion of durations and quantities."""

import pytest

from cortex_api.units import milli_cpu, parse_bytes, seconds


@pytest.mark.parametrize(
    ("text", "value"), [("10ms", 0.01), ("1.5s", 1.5), ("1m30s", 90), ("2h", 7200), ("0s", 0)]
)
def test_durations_are_converted_to_seconds(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "10", "s", "10 s", "-1s", "1d"])
def test_invalid_durations_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1Gi", 2**30),
        ("64Mi", 2**26),
        ("1k", 1000),
        (5, 5),
        ("1.5Ki", 1536),
        ("1M", 10**6),
        ("2G", 2 * 10**9),
        ("3T", 3 * 10**12),
        ("2Ti", 2**41),
        ("1Pi", 2**50),
        ("1E", 10**18),
        (".5Gi", 2**29),
        ("2.Ki", 2048),
        ("1e3", 1000),
        ("1.5E+6", 1_500_000),
        ("2000m", 2),
    ],
)
def test_quantities_are_converted_to_bytes(text: str | int, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("200m", 200), (2, 2000), ("0.5", 500), (".5", 500), ("1e-1", 100)]
)
def test_quantities_are_converted_to_milli_cpu(text: str | int, value: int) -> None:
    assert milli_cpu(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "1Gb", "-1", "1 Gi", ".", "e3", "1e", "1e999", "1e3Gi"])
def test_invalid_quantities_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_bytes(text)


def test_a_unit_with_b_is_corrected() -> None:
    with pytest.raises(ValueError, match=r'"1GB" is not a quantity; .* for example "1G", without "B"$'):
        parse_bytes("1GB")
