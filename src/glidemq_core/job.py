"""A job as it stands in the queue: a frozen snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from ._codec import loads
from ._units import from_nano, instant

State: TypeAlias = Literal[
    "waiting",
    "delayed",
    "active",
    "waiting_children",
    "suspended",
    "completed",
    "failed",
    "cancelled",
]
STATES: Final[tuple[State, ...]] = get_args(State)
_REASONS: Final = {"delayed": "why", "suspended": "wait_reason"}
TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why an attempt failed.

    Attributes:
        error_class: The exception's class, with its module.
        message, traceback: As text, cut to 8 KiB together.
        attempt: The attempt's number, from 1.
    """

    error_class: str = ""
    message: str = ""
    traceback: str = ""
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUsage:
    """What a job has used, over all its runs.

    Attributes:
        tokens: Per category; the categories are disjoint, their sum is `total_tokens`.
        costs: Amounts of money per name ("total", ...). A call whose price is unknown adds nothing; see `unpriced`.
        calls: Every booked call, in no particular order: call id, model, tokens, costs, run.
        unpriced: How many calls had no known price.
    """

    tokens: Mapping[str, int] = field(default_factory=dict[str, int])
    costs: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])
    calls: Sequence[Mapping[str, Any]] = ()
    unpriced: int = 0

    @property
    def total_tokens(self) -> int:
        """The sum over all categories."""
        return sum(self.tokens.values())

    @property
    def total_cost(self) -> Decimal | None:
        """The money spent as far as its price is known; None if no call had a price."""
        return self.costs.get("total")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it stood when it was read.

    Attributes:
        id, name, data: As added.
        state: One of STATES.
        reason: Why it is in that state: for ended jobs "error", "timeout", "stalled", "expired", ...; for delayed
            ones "delay", "retry", "throttled", "budget", "sleep".
        attempt: Failures + 1. `max_attempts`: how often it is tried in all.
        run: How many runs have really started. `stalled`: how many of them lost their lease.
        progress: What the handler last reported. `result`: what it returned.
        error: The last attempt's error. `errors`: those of the last 20 attempts.
        usage: What all its model calls have used. `flow_usage`: with all its descendants that have ended.
        priority: 0 to 2048, lower is sooner.
        due_at: When a delayed job is due, or a parked one times out.
        created_at, started_at, finished_at: Aware instants; `started_at` of its last run.
        worker: Who ran it last.
        waits_for, waits_since: The signal that a suspended job waits for ("*": any), and since when.
    """

    id: str
    name: str
    data: Any
    state: State
    reason: str = ""
    attempt: int = 1
    max_attempts: int = 1
    run: int = 0
    stalled: int = 0
    progress: Any = None
    result: Any = None
    error: JobError | None = None
    errors: Sequence[JobError] = ()
    usage: JobUsage = field(default_factory=JobUsage)
    flow_usage: JobUsage = field(default_factory=JobUsage)
    hops: Sequence[Mapping[str, Any]] = ()
    priority: int = 1000
    due_at: datetime | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    worker: str = ""
    cancel_requested: bool = False
    waits_for: str = ""
    waits_since: datetime | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


def error_of(text: str | bytes) -> JobError:
    """A stored error."""
    raw = cast("dict[str, Any]", loads(text)) if text else {}
    return JobError(
        error_class=raw.get("class", ""),
        message=raw.get("message", ""),
        traceback=raw.get("traceback", ""),
        attempt=raw.get("attempt", 0),
    )


def job_of(
    job_id: str,
    fields: Mapping[str, str],
    usage: Mapping[str, str],
    errors: Sequence[str],
    score: str,
) -> Job:
    """A snapshot from the fields of a job's hash (docs: lua/README.md)."""
    options = cast("dict[str, Any]", loads(fields["options"])) if "options" in fields else {}
    state = cast("State", fields["state"])
    timed = state in ("delayed", "suspended") and score not in ("", "inf")
    return Job(
        id=job_id,
        name=fields.get("name", ""),
        data=_json(fields, "data"),
        state=state,
        reason=fields.get(_REASONS.get(state, "reason"), ""),
        attempt=int(fields.get("attempt", 1)),
        max_attempts=int(options.get("attempts", 1)),
        run=int(fields.get("run", 0)),
        stalled=int(fields.get("stalled", 0)),
        progress=_json(fields, "progress"),
        result=_json(fields, "result"),
        error=error_of(fields["error"]) if "error" in fields else None,
        errors=tuple(error_of(text) for text in errors),
        usage=_usage_of(usage),
        flow_usage=_flow_usage_of(usage),
        hops=_json(fields, "hops") or (),
        priority=int(float(fields.get("place", 0))) >> 41,
        due_at=instant(score) if timed else None,
        created_at=instant(fields.get("created_at")),
        started_at=instant(fields.get("started_at")),
        finished_at=instant(fields.get("finished_at")),
        worker=fields.get("owner", ""),
        cancel_requested="cancel_requested" in fields,
        waits_for=fields.get("wait_name", "") if state == "suspended" else "",
        waits_since=instant(fields.get("wait_since")) if state == "suspended" else None,
        options=options,
    )


def _json(fields: Mapping[str, str], name: str) -> Any:
    return loads(fields[name]) if name in fields else None


def _usage_of(fields: Mapping[str, str]) -> JobUsage:
    tokens: dict[str, int] = {}
    costs: dict[str, Decimal] = {}
    calls: list[Mapping[str, Any]] = []
    for name, value in fields.items():
        kind, _, rest = name.partition(":")
        if kind == "tokens":
            tokens[rest] = int(value)
        elif kind == "costs":
            costs[rest] = from_nano(int(value))
        elif kind == "call":
            calls.append(cast("dict[str, Any]", loads(value)))
    unpriced = sum(1 for call in calls if not call.get("costs"))
    return JobUsage(tokens=tokens, costs=costs, calls=tuple(calls), unpriced=unpriced)


def _flow_usage_of(fields: Mapping[str, str]) -> JobUsage:
    """A job's own use and that of its descendants, added up."""
    sums: dict[str, int] = {}
    for name, value in fields.items():
        plain = name.removeprefix("flow_")
        if plain.startswith(("tokens:", "costs:")):
            sums[plain] = sums.get(plain, 0) + int(value)
    return JobUsage(
        tokens={name[7:]: value for name, value in sums.items() if name.startswith("tokens:")},
        costs={
            name[6:]: from_nano(value) for name, value in sums.items() if name.startswith("costs:")
        },
    )
