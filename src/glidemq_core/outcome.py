"""The ending of a run as a value: what the handler returned or raised, turned into what becomes of the job.

No server access here. `lua/lib/outcome.lua` applies each of these.
"""

from __future__ import annotations

import math
import traceback as tracebacks
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from . import _codec
from ._units import to_ms
from .errors import (
    BudgetExceeded,
    CostUnknown,
    GlideMQError,
    InvalidOption,
    JobTimeout,
    Throttled,
    UnrecoverableError,
)
from .retry import MAX_RETRY_AFTER, BackoffFunction, asked_wait, delay_after

_ERROR_BYTES = 8192
_LEAST_WAIT: Final = (
    0.1  # of a job sent back for no stated time: that uses no attempt, so nothing else would end it
)


@dataclass(frozen=True, slots=True)
class Completed:
    """The handler returned; `result` is its JSON, or None for nothing."""

    result: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt failed; the next one starts after `delay` seconds, with `fallback` as its fallback index."""

    error: str
    delay: float = 0.0
    fallback: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The job has failed for good."""

    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class Delayed:
    """The run gives its job back until `delay` seconds from now, without using an attempt.

    A `delay` of None waits until room comes up `on` a budget or limiter; `generation` is the one that was seen when it
    was full.
    """

    why: str
    delay: float | None = 0.0
    on: str | None = None
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Suspended:
    """The job waits for a signal, for `timeout` seconds at most."""

    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class WaitingChildren:
    """The job waits until its children have ended."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The job was cancelled."""


@dataclass(frozen=True, slots=True)
class Released:
    """The claim goes back unstarted: no attempt, no stall, same place."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The run is not the job's current run any more: nothing is to be said of it."""


Outcome: TypeAlias = (
    Completed
    | Retry
    | Failed
    | Delayed
    | Suspended
    | WaitingChildren
    | Cancelled
    | Released
    | Dropped
)


def joint(parks: Sequence[Outcome]) -> Outcome | None:
    """One outcome for all the parks of a run, so that whichever of them ends first ends it; None if there is none.

    A park for room comes back by itself and then asks for the others again. Waits of different kinds are all known to
    the server: as a suspension any of them wakes the job.
    """
    delayed = [park for park in parks if isinstance(park, Delayed)]
    for_room = [park for park in delayed if park.why != "sleep"]
    if for_room:
        return min(for_room, key=_soonest)
    if len(delayed) == len(parks):
        return min(delayed, key=_soonest, default=None)
    return parks[0] if all(type(park) is type(parks[0]) for park in parks) else Suspended()


def _soonest(park: Delayed) -> float:
    return math.inf if park.delay is None else park.delay


def of_result(value: object, attempt: int) -> Outcome:
    """The outcome of a handler that returned `value`. What can't be stored fails the job, naming why."""
    if value is None:
        return Completed()
    if isinstance(value, Delayed | Suspended | WaitingChildren | Cancelled):
        return value
    try:
        return Completed(_codec.dumps(value, "result"))
    except InvalidOption as error:
        return Failed("unrecoverable", error_text(error, attempt))


def of_error(
    error: BaseException,
    *,
    attempt: int,
    options: Mapping[str, Any],
    backoffs: Mapping[str, BackoffFunction],
    fallback_index: int = 0,
    max_retry_after: float = MAX_RETRY_AFTER,
) -> Outcome:
    """The outcome of a handler that raised.

    An error that says `fallback = True` has the next attempt use the next of the job's fallbacks. One that says `retryable
    = False` fails the job at once, unless it also says that and a fallback is left; an UnrecoverableError does in any case,
    and so does the last attempt's. A budget that is exceeded, or can't tell, fails the job at once; a limiter without room
    sends it back until there is.
    """
    text = error_text(error, attempt)
    if isinstance(error, BudgetExceeded | CostUnknown):
        return Failed("budget", text)
    if isinstance(error, Throttled):
        return Delayed("throttled", asked_wait(error, max_retry_after) or _LEAST_WAIT)
    goes_on = getattr(error, "fallback", None) is True
    fallbacks = len(options.get("fallbacks") or ()) if goes_on else 0
    is_hopeless = getattr(error, "retryable", None) is False and fallback_index >= fallbacks
    if is_hopeless or isinstance(error, UnrecoverableError):
        return Failed("unrecoverable", text)
    if attempt >= options.get("attempts", 1):
        return Failed("timeout" if isinstance(error, JobTimeout) else "error", text)
    try:
        delay = delay_after(
            options.get("backoff"), attempt, error, backoffs, max_retry_after=max_retry_after
        )
    except GlideMQError as wrong:  # a backoff function that answers nonsense
        return Failed("unrecoverable", error_text(wrong, attempt))
    return Retry(text, delay, min(fallback_index + 1, fallbacks) if fallbacks else None)


def error_text(error: BaseException, attempt: int) -> str:
    """An error as the job keeps it: JSON of class, message, traceback and attempt, cut to 8 KiB."""
    cls = type(error)
    name = (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )
    trace = "".join(tracebacks.format_exception(error))
    return _codec.dumps(
        {
            "class": _cut(name, 256),
            "message": _cut(_message(error), _ERROR_BYTES // 4),
            "traceback": _cut(trace, _ERROR_BYTES // 2, tail=True),
            "attempt": attempt,
        },
        "error",
    )


_PLAIN: Final[dict[type, str]] = {
    WaitingChildren: "waiting_children",
    Cancelled: "cancelled",
    Released: "released",
}


def _described(outcome: Outcome) -> tuple[str, str | None, dict[str, object]]:
    """Kind, text and further facts of an outcome."""
    match outcome:
        case Completed(result):
            return "completed", result, {}
        case Retry():
            return "retry", None, _retry(outcome)
        case Failed(reason, error):
            return "failed", None, {"reason": reason, "error": error}
        case Delayed():
            return "delayed", None, _delayed(outcome)
        case Suspended(timeout):
            return "suspended", None, {} if timeout is None else {"delay_ms": to_ms(timeout)}
        case Dropped():
            raise ValueError("a dropped run has no line")
        case _:
            return _PLAIN[type(outcome)], None, {}


def _retry(outcome: Retry) -> dict[str, object]:
    extra: dict[str, object] = {"error": outcome.error, "delay_ms": to_ms(outcome.delay)}
    if outcome.fallback is not None:
        extra["fallback"] = outcome.fallback
    return extra


def _delayed(outcome: Delayed) -> dict[str, object]:
    extra: dict[str, object] = {"why": outcome.why}
    if outcome.delay is not None:
        extra["delay_ms"] = to_ms(outcome.delay)
    if outcome.on is not None:
        extra |= {"on": outcome.on, "generation": outcome.generation}
    return extra


def to_wire(
    outcome: Outcome,
    *,
    job_id: str,
    token: str,
    ago: float,
    tail: tuple[int, list[list[str]]] | None = None,
) -> list[object]:
    """An outcome as a line of a turn (docs: lua/functions/turn.lua); `ago`: seconds since the run started."""
    kind, text, extra = _described(outcome)
    if tail is not None:
        extra["tail"] = tail
    line: list[object] = [job_id, token, kind, to_ms(ago)]
    if extra or kind == "suspended" or kind == "waiting_children":
        return [*line, text, extra]
    if text is not None:
        line.append(text)
    return line


def _cut(text: str, limit: int, *, tail: bool = False) -> str:
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit:
        return raw.decode()
    if tail:
        return "..." + raw[-limit:].decode("utf-8", "ignore")
    return raw[:limit].decode("utf-8", "ignore") + "..."


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 a user's class: its mistake must not lose the job
        return f"<its text fails with {type(broken).__name__}>"
