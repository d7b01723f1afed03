"""Throttles: how often and how much may be asked of something, by all workers together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast

import msgspec

from ._keys import check_id
from ._units import Seconds, seconds, to_ms, whole
from .budget import thousandths
from .errors import InvalidOption

_MINUTE_MS: Final = 60_000
_HOUR: Final = 3_600.0
_DAY: Final = 86_400.0
_MAX_LIMIT: Final = 10**10
_MARK: Final = "__glidemq_limits__"
MAX_NAMED: Final = 16


def _is_share(value: object) -> bool:
    """Is it a number from 0 to 1?"""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _no_weights() -> dict[str, float]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """When to stop asking what keeps failing.

    Attributes:
        calls: As many must have ended within ten seconds before it judges.
        failures: The share of them, above 0 to 1, that opens it.
        open_for: Seconds it stays open at first, a day at most, doubled with each opening in a row (at most 16 times). Then one call
            goes ahead, and its outcome decides for all.
    """

    calls: int = 10
    failures: float = 0.5
    open_for: Seconds = 10

    def __post_init__(self) -> None:
        whole(self.calls, "calls", low=1, high=10**6)
        if not _is_share(self.failures) or not self.failures:
            raise InvalidOption("failures", self.failures, "not a share above 0, up to 1")
        if seconds(self.open_for, "open_for", low=0.001) > _DAY:
            raise InvalidOption("open_for", self.open_for, "longer than a day")

    def wire(self) -> list[int]:
        """As the functions take it."""
        open_ms = to_ms(seconds(self.open_for, "open_for"))
        return [self.calls, max(1, round(self.failures * 100)), open_ms]


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """The limits of one name, for all queues and processes that use it. Those not given don't limit.

    No minute, wherever it begins, holds more than limit + burst (and, while calls are under way, what their estimates
    were too high). One ask larger than the burst passes only when nothing is owed.

    Attributes:
        rpm: Requests a minute.
        tpm: Tokens a minute; `input_tpm` and `output_tpm` count one side each.
        concurrency: Calls at one time.
        burst: The share of a minute's limit that may pass at once.
        weights: Per token category, how much it counts; 1 for those not named. {"cached_input": 0}: cache reads are
            free.
        adaptive: Let refusals for rates (429) lower all limits for a while, and what the other side says is left.
        max_pause: Seconds that the other side's wish to be left alone (`Retry-After`) stops all calls at most, up to a day;
            after that they ask again.
        breaker: Stop all calls while most fail.
    """

    rpm: int | None = None
    tpm: int | None = None
    input_tpm: int | None = None
    output_tpm: int | None = None
    concurrency: int | None = None
    burst: float = 0.1
    weights: Mapping[str, float] = field(default_factory=_no_weights)
    adaptive: bool = True
    max_pause: Seconds = _HOUR
    breaker: Breaker | None = None

    def __post_init__(self) -> None:
        for name in ("rpm", "tpm", "input_tpm", "output_tpm"):
            if getattr(self, name) is not None:
                whole(getattr(self, name), name, low=1, high=_MAX_LIMIT)
        if self.concurrency is not None:
            whole(self.concurrency, "concurrency", low=1, high=10**6)
        if not _is_share(self.burst):
            raise InvalidOption("burst", self.burst, "not a share between 0 and 1")
        thousandths(self.weights, "weights")
        if seconds(self.max_pause, "max_pause", low=0.001) > _DAY:
            raise InvalidOption("max_pause", self.max_pause, "longer than a day")
        if self.breaker is not None and not isinstance(self.breaker, Breaker):  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
            raise InvalidOption("breaker", self.breaker, "not a Breaker")

    def wire(self, name: str) -> dict[str, object]:
        """As the functions take it, under its name."""
        found: dict[str, object] = {
            "name": name,
            "axes": [*self._axes()],
            "adaptive": self.adaptive,
        }
        if self.concurrency is not None:
            found["concurrency"] = self.concurrency
        if (pause := seconds(self.max_pause, "max_pause")) != _HOUR:
            found["max_pause_ms"] = to_ms(pause)
        if self.breaker is not None:
            found["breaker"] = self.breaker.wire()
        return found

    def _axes(self) -> list[dict[str, object]]:
        weights = thousandths(self.weights, "weights")
        axes: list[dict[str, object]] = []
        for axis, limit, more in (
            ("rpm", self.rpm, {"count": True}),
            ("tpm", self.tpm, {"weights": weights}),
            ("input_tpm", self.input_tpm, {"weights": weights, "side": "input"}),
            ("output_tpm", self.output_tpm, {"weights": weights, "side": "output"}),
        ):
            if limit is not None:
                burst = max(1, math.ceil(limit * self.burst))
                axes.append(
                    {"axis": axis, "limit": limit, "period_ms": _MINUTE_MS, "burst": burst, **more}
                )
        return axes


Limits: TypeAlias = Mapping[str, Throttle]
_Handler = TypeVar("_Handler", bound=Callable[..., Any])


def limited(limits: Limits) -> Callable[[_Handler], _Handler]:
    """A decorator of handlers: the model calls of all jobs that they run pass these limiters, too.

    Args:
        limits: Limiters by name, as in `Queue.add`.
    """
    wires = wires_of(limits, "limits")

    def mark(handler: _Handler) -> _Handler:
        setattr(handler, _MARK, [*limits_of(handler), *wires])
        return handler

    return mark


def limits_of(handler: object) -> Sequence[Mapping[str, object]]:
    """The limiters of a handler, as the functions take them."""
    return getattr(handler, _MARK, ())


def wires_of(limits: Limits | None, field: str) -> list[Mapping[str, object]]:
    """Checked limiters, as the functions take them.

    Raises:
        InvalidOption: They are not throttles by name, or more than 16.
    """
    if limits is None:
        return []
    if not isinstance(limits, Mapping) or len(limits) > MAX_NAMED:  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
        raise InvalidOption(
            field, limits, f"not a mapping of at most {MAX_NAMED} names to throttles"
        )
    for name, throttle in limits.items():
        if not isinstance(throttle, Throttle):  # pyright: ignore[reportUnnecessaryIsInstance] likewise
            raise InvalidOption(f"{field}[{name!r}]", throttle, "not a Throttle")
    return [throttle.wire(check_id(name, field)) for name, throttle in limits.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisState:
    """One limit of a limiter now.

    Attributes:
        limit: A minute's, as configured; burst: what may pass at once.
        used: What is owed: it leaks away at `limit` a minute.
        remaining: What would pass at once now.
        reset: Seconds until nothing is owed.
    """

    limit: int
    burst: int
    used: int
    remaining: int
    reset: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterState:
    """A limiter now.

    Attributes:
        axes: By name: "rpm", "tpm", "input_tpm", "output_tpm".
        running: Calls that hold a place; concurrency: how many places there are, None: unlimited.
        cap: The share of the limits that is used after refusals, 1: all.
        blocked: Seconds for which the other side asked to wait.
        promised: Seconds until the last slot promised to a caller that was turned away.
        breaker: "closed", "open", or "probing": the next call decides.
        reopens: Seconds until an open breaker lets a call through.
    """

    name: str
    axes: Mapping[str, AxisState]
    running: int
    concurrency: int | None
    cap: float
    blocked: float
    promised: float
    breaker: Literal["closed", "open", "probing"]
    reopens: float


def idle(name: str) -> LimiterState:
    """The state of a limiter that nothing is known of: unused for a while, or never used."""
    return LimiterState(
        name=name,
        axes={},
        running=0,
        concurrency=None,
        cap=1.0,
        blocked=0.0,
        promised=0.0,
        breaker="closed",
        reopens=0.0,
    )


def state_of(name: str, state: Mapping[str, Any], running: int, now: int) -> LimiterState:
    """A limiter from its record."""
    conf, breaker = msgspec.json.decode(state["conf"]), state["breaker"]
    axes = cast("list[dict[str, Any]]", conf["axes"] or [])
    debts = cast("dict[str, Any]", state["axes"] or {})
    cap = state["cap"] / 1000
    until = breaker["until_"]
    return LimiterState(
        name=name,
        axes={axis["axis"]: _axis(axis, debts, cap) for axis in axes},
        running=running,
        concurrency=conf.get("concurrency"),
        cap=cap,
        blocked=_until(state["blocked"], now),
        promised=_until(max(state["cursor"], state["queue"]), now),
        breaker="closed" if until == 0 else "open" if until > now else "probing",
        reopens=_until(max(until, breaker["probe_until"]), now),
    )


def _axis(conf: Mapping[str, Any], debts: Mapping[str, Any], cap: float) -> AxisState:
    debt = debts.get(conf["axis"], [0])[0]
    used = math.ceil(debt / conf["period_ms"])
    burst = max(1, int(conf["burst"] * cap))
    limit = max(1, int(conf["limit"] * cap))
    return AxisState(
        limit=conf["limit"],
        burst=conf["burst"],
        used=used,
        remaining=max(0, burst - used),
        reset=debt / limit / 1000,
    )


def _until(at: int, now: int) -> float:
    return max(0, at - now) / 1000
