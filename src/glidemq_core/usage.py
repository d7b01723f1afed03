"""What a queue has used, per model and in all."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from ._units import Seconds, from_nano, seconds
from .errors import InvalidOption

_PAGE: Final = 120
_FINE_MINUTES: Final = 24 * 60
_MAX_MINUTES: Final = 31 * 24 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsage:
    """Tokens per category, money per name, and how many calls."""

    tokens: Mapping[str, int] = field(default_factory=dict[str, int])
    costs: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])
    calls: int = 0

    @property
    def total_tokens(self) -> int:
        """The sum over all categories."""
        return sum(self.tokens.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSummary(ModelUsage):
    """The use of a span of time.

    Attributes:
        models: Per model; after the first 200 models of a queue in a day, the rest is counted as "other".
        queues: Per queue.
    """

    models: Mapping[str, ModelUsage] = field(default_factory=dict[str, ModelUsage])
    queues: Mapping[str, ModelUsage] = field(default_factory=dict[str, ModelUsage])


@dataclass(frozen=True, slots=True)
class Span:
    """Minutes (or hours) of the epoch, from the first to the last."""

    first: int
    last: int
    hours: bool

    def pages(self) -> Iterator[dict[str, object]]:
        """The arguments of the calls that read it."""
        for first in range(self.first, self.last + 1, _PAGE):
            last = min(first + _PAGE - 1, self.last)
            yield {"first": first, "last": last, "hours": self.hours}


def span_of(
    now: int, *, window: Seconds | None, start: datetime | None, end: datetime | None
) -> Span:
    """A span that ends at the minute `now` at the latest.

    Raises:
        InvalidOption: It is given in two ways, is empty, or reaches too far back.
    """
    if window is not None and (start is not None or end is not None):
        raise InvalidOption("window", window, "not together with start or end")
    last = now if end is None else min(now, -(-_second(end, "end") // 60) - 1)
    if start is None:
        length = seconds(timedelta(hours=1) if window is None else window, "window", low=1)
        first, given = last - max(1, round(length / 60)) + 1, ("window", window)
    else:
        first, given = _second(start, "start") // 60, ("start", start)
    if first > last:
        raise InvalidOption("end", end, "not after start")
    if now - first > _MAX_MINUTES:
        raise InvalidOption(*given, "more than 31 days ago")
    is_old = now - first >= _FINE_MINUTES
    return Span(first // 60, last // 60, hours=True) if is_old else Span(first, last, hours=False)


def _second(at: datetime, name: str) -> int:
    if not isinstance(at, datetime) or at.tzinfo is None:  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
        raise InvalidOption(name, at, "not a datetime with a time zone")
    return math.ceil(at.timestamp())


def summary_of(
    queues: Mapping[str, Sequence[Any]], models: Sequence[str] | None = None
) -> UsageSummary:
    """Add up the buckets of queues: [number, [field, value, ...]] with fields as lua/lib/usage.lua names them."""
    books = {name: _by_model(rows, models) for name, rows in queues.items()}
    names = dict.fromkeys(model for book in books.values() for model in book)
    total = _sum(one for book in books.values() for one in book.values())
    return UsageSummary(
        tokens=total.tokens,
        costs=total.costs,
        calls=total.calls,
        models={
            name: _sum(book[name] for book in books.values() if name in book) for name in names
        },
        queues={name: _sum(book.values()) for name, book in books.items()},
    )


def _by_model(rows: Sequence[Any], models: Sequence[str] | None) -> dict[str, ModelUsage]:
    tokens: dict[str, defaultdict[str, int]] = {}
    costs: dict[str, defaultdict[str, int]] = {}
    calls: defaultdict[str, int] = defaultdict(int)
    for _, flat in rows:
        for i in range(0, len(flat), 2):
            kind, _, rest = flat[i].decode().partition(":")
            model, _, name = rest.rpartition("\n")
            amount = int(flat[i + 1])
            if kind == "calls":
                calls[model] += amount
            else:
                book = tokens if kind == "tokens" else costs
                book.setdefault(model, defaultdict(int))[name] += amount
    return {
        model: _model(tokens.get(model, {}), costs.get(model, {}), count)
        for model, count in calls.items()
        if models is None or model in models
    }


def _model(tokens: Mapping[str, int], costs: Mapping[str, int], calls: int) -> ModelUsage:
    return ModelUsage(
        tokens=dict(tokens),
        costs={name: from_nano(nano) for name, nano in costs.items()},
        calls=calls,
    )


def _sum(parts: Iterable[ModelUsage]) -> ModelUsage:
    tokens: defaultdict[str, int] = defaultdict(int)
    costs: defaultdict[str, Decimal] = defaultdict(Decimal)
    calls = 0
    for part in parts:
        calls += part.calls
        for name, count in part.tokens.items():
            tokens[name] += count
        for name, cost in part.costs.items():
            costs[name] += cost
    return ModelUsage(tokens=dict(tokens), costs=dict(costs), calls=calls)
