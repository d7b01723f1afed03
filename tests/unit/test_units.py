from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glidemq_core import _units
from glidemq_core.errors import InvalidOption


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (1, 1.0),
        (0.25, 0.25),
        (timedelta(minutes=1, milliseconds=5), 60.005),
        (3_153_600_000, 3.1536e9),
    ],
)
def test_durations_become_float_seconds(value: float | timedelta, expected: float):
    found = _units.seconds(value, "delay")

    assert (found, type(found)) == (expected, float)


@pytest.mark.parametrize(
    "value",
    [
        -0.001,
        math.nan,
        math.inf,
        True,
        "1",
        None,
        3_153_600_001,
        10**400,
        timedelta(seconds=-1),
        1j,
        [1],
    ],
)
def test_what_is_no_duration_is_refused_by_name(value: object):
    with pytest.raises(InvalidOption) as caught:
        _units.seconds(value, "jobs[3].delay")  # type: ignore[arg-type]

    assert (caught.value.field, caught.value.value) == ("jobs[3].delay", value)


def test_least_duration_is_included():
    assert _units.seconds(0.1, "ttl", low=0.1) == 0.1
    with pytest.raises(InvalidOption):
        _units.seconds(0.09, "ttl", low=0.1)


@pytest.mark.parametrize(
    ("number", "ms"),
    [
        (0, 0),
        (-1, 0),
        (1e-9, 1),
        (0.0004, 1),
        (1.5, 1500),
        (0.0015, 2),
        (math.inf, 3_153_600_000_000),
        (1e300, 3_153_600_000_000),
    ],
)
def test_milliseconds_are_whole_and_nothing_above_zero_becomes_zero(number: float, ms: int):
    assert _units.to_ms(number) == ms


@given(st.floats(0, 3e9))
def test_milliseconds_are_within_half_of_one(number: float):
    assert abs(_units.to_ms(number) - number * 1000) <= 1


def test_instants_are_aware():
    assert _units.instant(b"1700000000123") == datetime(
        2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC
    )
    assert [_units.instant(nothing) for nothing in (None, "", 0)] == [None, None, None]


@pytest.mark.parametrize("value", [1.0, True, "1", None, -1, 2**53])
def test_what_is_no_whole_number_in_range_is_refused(value: object):
    with pytest.raises(InvalidOption, match="priority="):
        _units.whole(value, "priority")


def test_bounds_of_whole_numbers_are_included():
    assert [_units.whole(n, "n", low=1, high=3) for n in (1, 3)] == [1, 3]
    assert _units.whole(2**53 - 1, "n") == 2**53 - 1


@pytest.mark.parametrize(
    ("value", "nano"),
    [
        (0, 0),
        ("0.0042", 4_200_000),
        (Decimal("1.5"), 1_500_000_000),
        (0.1, 100_000_000),
        ("0.0000000001", 1),
        ("1e-9", 1),
        (Decimal("9007199.254740991"), 2**53 - 1),
    ],
)
def test_money_is_whole_nano_units_rounded_up(value: object, nano: int):
    assert _units.to_nano(value, "cost") == nano  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        *(-1, "x", math.nan, math.inf, True, None, "9007199.254740992", Decimal("NaN"), b"1"),
        *("1e999999", Decimal("1e999999"), 10**400),
    ],
)
def test_what_is_no_money_is_refused(value: object):
    with pytest.raises(InvalidOption, match="cost="):
        _units.to_nano(value, "cost")  # type: ignore[arg-type]


@given(st.decimals(0, 9_000_000, places=12))
def test_money_is_never_less_than_what_was_given(amount: Decimal):
    back = _units.from_nano(_units.to_nano(amount, "cost"))

    assert amount <= back < amount + Decimal("0.000000001")
