"""What a queue has used, per model and in all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ._units import from_nano


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
    """

    models: Mapping[str, ModelUsage] = field(default_factory=dict[str, ModelUsage])


def summary_of(rows: Sequence[Any]) -> UsageSummary:
    """Add up minute buckets: [minute, [field, value, ...]] with fields as lua/lib/usage.lua names them."""
    tokens: dict[str, defaultdict[str, int]] = {}
    costs: dict[str, defaultdict[str, int]] = {}
    calls: defaultdict[str, int] = defaultdict(int)
    for _, flat in rows:
        for i in range(0, len(flat), 2):
            kind, _, rest = flat[i].decode().partition(":")
            model, _, name = rest.partition("\n")
            amount = int(flat[i + 1])
            if kind == "calls":
                calls[model] += amount
            else:
                book = tokens if kind == "tokens" else costs
                book.setdefault(model, defaultdict(int))[name] += amount
    models = {
        model: _model(tokens.get(model, {}), costs.get(model, {}), count)
        for model, count in calls.items()
    }
    total = _model(_sum(tokens.values()), _sum(costs.values()), sum(calls.values()))
    return UsageSummary(tokens=total.tokens, costs=total.costs, calls=total.calls, models=models)


def _model(tokens: Mapping[str, int], costs: Mapping[str, int], calls: int) -> ModelUsage:
    return ModelUsage(
        tokens=dict(tokens),
        costs={name: from_nano(nano) for name, nano in costs.items()},
        calls=calls,
    )


def _sum(parts: Any) -> dict[str, int]:
    total: defaultdict[str, int] = defaultdict(int)
    for part in parts:
        for name, amount in part.items():
            total[name] += amount
    return total
