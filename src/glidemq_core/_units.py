"""Units at the edge: seconds for people, integer milliseconds and nano-units of money on the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import TypeAlias

from .errors import InvalidOption

Seconds: TypeAlias = float | timedelta
Money: TypeAlias = Decimal | int | float | str

NANO = 1_000_000_000
MAX_WIRE_INT = 2**53 - 1
_MAX_MONEY = Decimal(MAX_WIRE_INT) / NANO
_MAX_SECONDS = 36_500 * 86_400.0


def seconds(value: Seconds, field: str, *, low: float = 0.0) -> float:
    """Check a duration; answers it as float seconds.

    Raises:
        InvalidOption: It is not a finite number (or timedelta) of at least `low` seconds.
    """
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, int | float):  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
        raise InvalidOption(field, value, "not a number of seconds or a timedelta")
    if not low <= number <= _MAX_SECONDS:  # NaN neither
        raise InvalidOption(field, value, f"not between {low:g} seconds and 100 years")
    return float(number)


def to_ms(number: float) -> int:
    """Seconds as whole milliseconds, at least 1 for anything above 0, at most 100 years."""
    return max(1, round(min(number, _MAX_SECONDS) * 1000)) if number > 0 else 0


def instant(ms: str | bytes | float | None) -> datetime | None:
    """An instant of the wire (epoch milliseconds) as an aware datetime."""
    if not ms:
        return None
    return datetime.fromtimestamp(float(ms) / 1000, tz=UTC)


def whole(value: object, field: str, *, low: int = 0, high: int = MAX_WIRE_INT) -> int:
    """Check an integer.

    Raises:
        InvalidOption: It is not an int within [low, high].
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOption(field, value, "not an integer")
    if not low <= value <= high:
        raise InvalidOption(field, value, f"not between {low} and {high}")
    return value


def to_nano(value: Money, field: str) -> int:
    """Money as integer nano-units, rounded up.

    Raises:
        InvalidOption: It is not a finite, non-negative amount below 9 million units.
    """
    if isinstance(value, bool) or not isinstance(value, Decimal | int | float | str):  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
        raise InvalidOption(field, value, "not an amount of money")
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise InvalidOption(field, value, "not a decimal number") from None
    if not amount.is_finite() or amount < 0:
        raise InvalidOption(field, value, "not a finite amount of at least 0")
    if (
        amount > _MAX_MONEY
        or (  # compared first: the product may be too large for a Decimal
            nano := int((amount * NANO).to_integral_value(rounding=ROUND_CEILING))
        )
        > MAX_WIRE_INT
    ):
        raise InvalidOption(field, value, "larger than the largest amount of about 9 million units")
    return nano


def from_nano(nano: int) -> Decimal:
    """Integer nano-units as a Decimal amount."""
    return Decimal(nano) / NANO
