"""Tokens and money of one call by name: what a ledger takes, checked before anything is booked anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from ._keys import check_id
from ._units import MAX_WIRE_INT, Money, to_nano, whole
from .errors import InvalidOption

_MAX_NAMES: Final = 64
_MAX_BYTES: Final = 64
_MAX_TOKENS: Final = 10**9
_MAX_LEFT: Final = 10**12
_MAX_NANO: Final = MAX_WIRE_INT // 2
_Amount = TypeVar("_Amount")


def token_counts(tokens: Mapping[str, int], field: str = "tokens") -> dict[str, int]:
    """Tokens per category.

    Raises:
        InvalidOption: A name is not a text of up to 64 bytes, a count not an integer of at most a billion, or there are
            more than 64.
    """
    checked = named(tokens, field)
    return {name: whole(count, f"{field}[{name!r}]", high=_MAX_TOKENS) for name, count in checked}


def nano_costs(costs: Mapping[str, Money] | None, field: str = "costs") -> dict[str, int]:
    """Money per name in nano-units.

    Raises:
        InvalidOption: As for `token_counts`; or an amount is none of up to four and a half million.
    """
    found: dict[str, int] = {}
    for name, cost in named(costs or {}, field):
        found[name] = to_nano(cost, f"{field}[{name!r}]")
        if found[name] > _MAX_NANO:
            raise InvalidOption(f"{field}[{name!r}]", cost, "more than 4.5 million for one call")
    return found


def left(remaining: Mapping[str, int] | None) -> dict[str, int]:
    """What a provider says is left, per axis of a limiter.

    Raises:
        InvalidOption: As for `token_counts`.
    """
    checked = named(remaining or {}, "remaining")
    return {axis: whole(n, f"remaining[{axis!r}]", high=_MAX_LEFT) for axis, n in checked}


def named(amounts: Mapping[str, _Amount], field: str) -> list[tuple[str, _Amount]]:
    """Check the names of amounts, not yet the amounts.

    Raises:
        InvalidOption: As for `token_counts`.
    """
    if not isinstance(amounts, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
        raise InvalidOption(field, amounts, "not a mapping of names to amounts")
    if len(amounts) > _MAX_NAMES:
        raise InvalidOption(field, amounts, f"more than {_MAX_NAMES} names")
    for name in amounts:
        if len(check_id(name, field).encode()) > _MAX_BYTES:
            raise InvalidOption(field, name, f"longer than {_MAX_BYTES} bytes")
    return list(amounts.items())
