"""Budgets: what may be spent under a name, and what has been."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ._amounts import named
from ._keys import check_id
from ._units import Money, from_nano, instant, to_nano, whole
from .errors import InvalidOption

Window: TypeAlias = Literal["none", "day", "month"]
OnExceeded: TypeAlias = Literal["fail", "pause"]
Amount: TypeAlias = int | Decimal

THOUSAND: Final = 1000
_MAX_TOKENS: Final = 10**12
_MAX_WEIGHT: Final = 1000.0


def _no_tokens() -> dict[str, int]:
    return {}


def _no_weights() -> dict[str, float]:
    return {}


def _no_money() -> dict[str, Money]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The caps of a budget; those that are not given don't limit.

    Attributes:
        max_total_tokens: Of all categories together, each counted by its weight.
        max_tokens: Per category, without weights.
        token_weights: Per category, to a thousandth; 1 for those not named.
        max_total_cost: Of a call's cost "total"; money is a Decimal, an int, a float or a decimal text. Under a cap on money
            no call is made that does not say what it costs.
        max_costs: Per name of cost.
        cost_unit: What the money is; only shown.
        on_exceeded: "fail": a job that does not fit fails at once with reason "budget". "pause": it is parked until
            the cap is raised, room comes up or the window turns.
        window: After a "day" or "month" of `time_zone` the sums begin anew; "none": never.
        time_zone: IANA name, for example "Europe/Berlin".
    """

    max_total_tokens: int | None = None
    max_tokens: Mapping[str, int] = field(default_factory=_no_tokens)
    token_weights: Mapping[str, float] = field(default_factory=_no_weights)
    max_total_cost: Money | None = None
    max_costs: Mapping[str, Money] = field(default_factory=_no_money)
    cost_unit: str = "usd"
    on_exceeded: OnExceeded = "fail"
    window: Window = "none"
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        if self.on_exceeded not in ("fail", "pause"):
            raise InvalidOption("on_exceeded", self.on_exceeded, "not 'fail' or 'pause'")
        if self.window not in ("none", "day", "month"):
            raise InvalidOption("window", self.window, "not 'none', 'day' or 'month'")
        zone_of(self.time_zone)
        check_id(self.cost_unit, "cost_unit")
        self.caps()
        self.weights()

    def caps(self) -> dict[str, int]:
        """The caps by their wire names; total tokens in thousandths, money in nano-units."""
        caps: dict[str, int] = {}
        if self.max_total_tokens is not None:
            limit = whole(self.max_total_tokens, "max_total_tokens", high=_MAX_TOKENS)
            caps["total_tokens"] = limit * THOUSAND
        for name, tokens in named(self.max_tokens, "max_tokens"):
            caps[f"tokens.{name}"] = whole(tokens, f"max_tokens[{name!r}]", high=_MAX_TOKENS)
        if self.max_total_cost is not None:
            caps["cost.total"] = to_nano(self.max_total_cost, "max_total_cost")
        for name, cost in named(self.max_costs, "max_costs"):
            caps[f"cost.{name}"] = to_nano(cost, f"max_costs[{name!r}]")
        return caps

    def weights(self) -> dict[str, int]:
        """The weights in thousandths."""
        return thousandths(self.token_weights, "token_weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class CapState:
    """One cap and how far it has been used up: tokens as int (weighted ones as Decimal), money as Decimal.

    Attributes:
        limit: The cap; None where a name is counted but not capped.
        used: Settled, and the unverified part.
        unverified: Of dead workers' calls that may have been billed.
        reserved: Held by open reservations.
    """

    limit: Amount | None
    used: Amount
    reserved: Amount
    unverified: Amount

    @property
    def remaining(self) -> Amount | None:
        """What may still be reserved: never below 0; None without a cap."""
        if self.limit is None:
            return None
        return max(self.limit - self.used - self.reserved, self.limit * 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """A budget as it is now.

    Attributes:
        caps: By name: "total_tokens", "tokens.CATEGORY", "cost.total", "cost.NAME"; all that are capped or were used.
        window_start, window_end: Of the present window; None for a budget without windows.
        waiting: How many parked jobs wait for it.
        generation: Counts how often room came up for waiting jobs.
        token_weights: As in Budget.
    """

    id: str
    on_exceeded: OnExceeded
    cost_unit: str
    caps: Mapping[str, CapState]
    window: Window
    time_zone: str
    window_start: datetime | None
    window_end: datetime | None
    waiting: int
    generation: int
    token_weights: Mapping[str, float] = field(default_factory=_no_weights)

    def as_budget(self) -> Budget:
        """The caps, weights and rules it has, to be changed (`dataclasses.replace`) and given to `update_budget`."""
        limits = {name: cap.limit for name, cap in self.caps.items() if cap.limit is not None}
        total, cost = limits.pop("total_tokens", None), limits.pop("cost.total", None)
        tokens = {name[7:]: int(cap) for name, cap in limits.items() if name.startswith("tokens.")}
        costs = {name[5:]: Decimal(cap) for name, cap in limits.items() if name.startswith("cost.")}
        return Budget(
            max_total_tokens=None if total is None else int(total),
            max_tokens=tokens,
            token_weights=self.token_weights,
            max_total_cost=cost,
            max_costs=costs,
            cost_unit=self.cost_unit,
            on_exceeded=self.on_exceeded,
            window=self.window,
            time_zone=self.time_zone,
        )

    @property
    def used(self) -> dict[str, Amount]:
        """The used sums by name."""
        return {name: cap.used for name, cap in self.caps.items()}

    @property
    def reserved(self) -> dict[str, Amount]:
        """The reserved sums by name, where there are any."""
        return {name: cap.reserved for name, cap in self.caps.items() if cap.reserved}

    @property
    def remaining(self) -> dict[str, Amount]:
        """What is left under each cap."""
        return {name: cap.remaining for name, cap in self.caps.items() if cap.remaining is not None}

    @property
    def total_tokens(self) -> int:
        """All tokens used, unweighted."""
        parts = [cap.used for name, cap in self.caps.items() if name.startswith("tokens.")]
        return sum(int(part) for part in parts)

    @property
    def total_cost(self) -> Decimal:
        """The cost used."""
        cap = self.caps.get("cost.total")
        return Decimal(0) if cap is None else Decimal(cap.used)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetEntry:
    """One line of a budget's history.

    Attributes:
        kind: "open", "update", "window", "settle", "late" (it had lapsed before), "unreserved", "unverified" (its
            worker died after it was sent), "late_refused" (a day too late: not added). A call that was given back
            leaves none.
        changes: What the used sums gained; `after`: what they were then.
    """

    id: str
    at: datetime
    kind: str
    call: str
    window_start: datetime | None
    changes: Mapping[str, Amount]
    after: Mapping[str, Amount]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetAlert:
    """A cap has reached 50, 80 or 100 percent in its window."""

    id: str
    at: datetime
    budget: str
    cap: str
    percent: int
    used: Amount
    limit: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetAudit:
    """A budget's sums, recomputed.

    Attributes:
        problems: What does not agree; empty: all is well.
        entries: How many lines of the history were added up; open_calls: how many open reservations.
        late_refused: How many settles came too late to be added.
    """

    budget: str
    problems: tuple[str, ...]
    entries: int
    open_calls: int
    late_refused: int


def amount(name: str, number: int) -> Amount:
    """A figure of the wire under the name of its cap."""
    if name == "total_tokens":
        return Decimal(number) / THOUSAND
    return from_nano(number) if name.startswith("cost.") else number


def sums_of(packed: Any) -> dict[str, int]:
    """Sums by name from a packed reply, where an empty map is an empty list."""
    return cast("dict[str, int]", packed or {})


def state_of(
    id: str, spec: Mapping[str, Any], spend: Mapping[str, Any], waiting: int
) -> BudgetState:
    """A budget from its records."""
    parts = {key: sums_of(spend[key]) for key in ("used", "held", "loose")}
    limits = sums_of(spec["caps"])
    caps = {
        name: CapState(
            limit=amount(name, limits[name]) if name in limits else None,
            used=amount(name, parts["used"].get(name, 0)),
            reserved=amount(name, parts["held"].get(name, 0)),
            unverified=amount(name, parts["loose"].get(name, 0)),
        )
        for name in sorted({*limits, *parts["used"], *parts["held"]})
    }
    return BudgetState(
        id=id,
        on_exceeded=spec["on"],
        cost_unit=spec["unit"],
        caps=caps,
        window=spec["window"],
        time_zone=spec["zone"],
        window_start=instant(spec["start"]),
        window_end=instant(spec["stop"]),
        waiting=waiting,
        generation=spend["generation"],
        token_weights={
            name: weight / THOUSAND for name, weight in sums_of(spec["weights"]).items()
        },
    )


def window_bounds(window: str, zone: str, now_ms: int) -> tuple[int, int]:
    """The window that contains an instant, as [start, end) in epoch milliseconds; (0, 0) for "none"."""
    if window == "none":
        return 0, 0
    place = zone_of(zone)
    now = datetime.fromtimestamp(now_ms / 1000, tz=place)
    first = datetime(now.year, now.month, now.day if window == "day" else 1, tzinfo=place)
    if window == "day":
        # Through the naive date: adding a day to an aware one keeps its offset, which a clock change may end.
        after = (first.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=place)
    else:
        after = first.replace(year=now.year + now.month // 12, month=now.month % 12 + 1)
    return _ms(first), _ms(after)


def zone_of(name: str) -> tzinfo:
    """A time zone by its IANA name.

    Raises:
        InvalidOption: It is not known here.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError):
        raise InvalidOption("time_zone", name, "not a time zone known here") from None


def thousandths(weights: Mapping[str, float], field: str) -> dict[str, int]:
    """Weights as integers.

    Raises:
        InvalidOption: One is not between 0 and 1000.
    """
    found: dict[str, int] = {}
    for name, weight in named(weights, field):
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
        if not is_number or not 0 <= weight <= _MAX_WEIGHT:
            raise InvalidOption(f"{field}[{name!r}]", weight, "not between 0 and 1000")
        found[name] = round(weight * THOUSAND)
    return found


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
