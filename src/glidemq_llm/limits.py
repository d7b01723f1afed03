"""The rate-limit headers of every vendor, in one form.

A limit is an *axis* (requests, tokens, input_tokens, ...) with what is left of it and when it is
full again. The names differ by vendor, the time formats even within one: Go durations, seconds, RFC
3339, epoch seconds and milliseconds, HTTP dates. Header names decide; the vendor's name is needed
for nothing but a tie.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, cast

from glidemq_llm._read import fields

_DAY = 86_400.0
_MINUTE = 60.0
_LIMITER_AXES = {
    "requests": "rpm",
    "tokens": "tpm",
    "input_tokens": "input_tpm",
    "output_tokens": "output_tpm",
}
_WINDOW_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": _DAY, "month": 30 * _DAY}

# The vendors' words for an axis, after the window has been taken off.
_AXES = {
    "": "requests",
    "req": "requests",
    "request": "requests",
    "token": "tokens",
    "tokens_prompt": "input_tokens",
    "tokens_generated": "output_tokens",
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "input_images": "images",
}

# Windows that the headers leave out.
_WINDOWS = {("groq", "requests"): _DAY, ("groq", "tokens"): 60.0, ("together", "requests"): 1.0}

_MOST_LEFT = 10**12
_FIELD = "limit|remaining|reset|renewalperiod"
_PATTERNS = (
    re.compile(rf"anthropic-(?:ratelimit-)?(?P<axis>[\w-]+)-(?P<field>{_FIELD}|utilization)"),
    re.compile(rf"(?:x-)?ratelimit-(?P<field>{_FIELD})(?:-(?P<axis>[\w-]+))?"),
    re.compile(rf"x-(?P<axis>token)limit-(?P<field>{_FIELD})"),
)
_WINDOWED = re.compile(r"(?P<axis>\w*?)_?(?:(?P<many>\d+)_)?(?P<unit>second|minute|hour|day|month)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|μs|ms|d|h|m|s)")
_UNIT_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": _DAY,
}
_DRAFT_ITEM = re.compile(r'"?(?P<name>[\w-]*)"?\s*;(?P<params>[^,]*)')
_DRAFT_PARAM = re.compile(r"\b(?P<key>[a-z])\s*=\s*(?P<value>\d+)")

_MAX_VALUE = 256  # characters of a header: more is no limit, and would take long to search
_EPOCH_MS = 100_000_000_000  # larger numbers are milliseconds since 1970,
_EPOCH_S = 1_000_000_000  # larger ones seconds since 1970, smaller ones seconds from now


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One limit.

    Attributes:
        limit, remaining: In the axis' unit; None where the vendor does not say.
        reset_seconds: Seconds from now until the limit is full again.
        window_seconds: The length of the window that the limit is for.
    """

    limit: int | None = None
    remaining: int | None = None
    reset_seconds: float | None = None
    window_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """What the headers of one response say about limits.

    Attributes:
        axes: By name: requests, tokens, input_tokens, output_tokens, images, and vendors' own.
        retry_after: Seconds the vendor asks to wait; None if it does not ask.
    """

    axes: Mapping[str, Axis] = field(default_factory=dict[str, Axis])
    retry_after: float | None = None


def parse_rate_limits(
    headers: object, provider: str | None = None, *, now: datetime | None = None
) -> RateLimits:
    """Read the rate limits from a response's headers.

    Args:
        headers: A mapping in any case, an SDK's headers object, or pairs. Names with the prefix
            that LiteLLM adds are understood as well.
        provider: Who answered, where known. Groq's request limit is per day, which its headers do
            not say.
        now: The present for absolute times. Default: the response's own `date`, so that a wrong
            local clock does no harm, else the local clock.
    """
    known = _lower(headers)
    present = now or _http_date(known.get("date")) or datetime.now(UTC)
    axes: dict[str, Axis] = {}
    for name, value in known.items():
        for axis, changes in _read(name, value, present):
            axes[axis] = replace(axes.get(axis, Axis()), **changes)
    for name, axis in axes.items():
        if axis.window_seconds is None:
            axes[name] = replace(axis, window_seconds=_WINDOWS.get((provider or "", name)))
    # Azure answers -1 or 0 for axes that it does not track: an axis without a limit says nothing.
    told = {name: axis for name, axis in axes.items() if axis.limit != 0 and _says_something(axis)}
    return RateLimits(axes=told, retry_after=parse_retry_after(known, now=present))


def headers_of(answer: object) -> object:
    """The headers of what an SDK has returned, or of the error it raised, where it shows them; else None."""
    for holder in (answer, getattr(answer, "response", None)):
        headers: object = getattr(holder, "headers", None)
        if headers is not None:
            return headers
    hidden: object = getattr(answer, "_hidden_params", None)  # LiteLLM's place for them
    return fields(hidden).get("additional_headers")


def remaining_now(limits: RateLimits, age: float) -> dict[str, int]:
    """What is left of a vendor's limits of a minute, by the names that limiters have, `age` seconds after the headers
    said so: meanwhile some has come back.
    """
    left: dict[str, int] = {}
    for name, own in _LIMITER_AXES.items():
        axis = limits.axes.get(name)
        if axis is None or axis.remaining is None or not _is_of_a_minute(axis):
            continue
        if age < (axis.reset_seconds or _MINUTE):
            back = (axis.limit or 0) * age / (axis.window_seconds or _MINUTE)
            # Bounded: a figure that the ledger refuses would keep the call's cost from being booked.
            left[own] = min(axis.remaining + int(back), _MOST_LEFT)
    return left


def _is_of_a_minute(axis: Axis) -> bool:
    window = axis.window_seconds or _MINUTE
    return window <= _MINUTE and (axis.reset_seconds or 0.0) <= _MINUTE + 1


def parse_retry_after(headers: object, *, now: datetime | None = None) -> float | None:
    """Seconds that a response asks to wait: `retry-after-ms`, else `retry-after` (seconds or an
    HTTP date).
    """
    known = _lower(headers)
    in_ms = _float(known.get("retry-after-ms"))
    if in_ms is not None:
        return max(0.0, in_ms / 1000)
    stated = known.get("retry-after")
    seconds = _float(stated)
    if seconds is not None:
        return max(0.0, seconds)
    at = _http_date(stated)
    if at is None:
        return parse_duration(stated) if stated else None
    present = now or _http_date(known.get("date")) or datetime.now(UTC)
    return max(0.0, (at - present).total_seconds())


def parse_duration(written: str) -> float | None:
    """Seconds from a Go duration ("1h2m3s", "12ms", "2m59.56s") or a plain number; None if it is
    neither.

    >>> parse_duration("6m0s")
    360.0
    """
    written = written.strip()
    found = _DURATION.findall(written)
    if found and "".join(amount + unit for amount, unit in found) == written:
        return float(sum(float(amount) * _UNIT_SECONDS[unit] for amount, unit in found))
    return _float(written)


def _read(name: str, value: str, now: datetime) -> Iterator[tuple[str, dict[str, Any]]]:
    if name in ("ratelimit", "ratelimit-policy"):
        yield from _read_draft(value)
        return
    for pattern in _PATTERNS:
        found = pattern.fullmatch(name)
        if found is not None:
            axis, window = _axis(found["axis"] or "")
            changes = _value(found["field"], value, now)
            if changes and window:
                changes["window_seconds"] = window
            if changes:
                yield axis, changes
            return


def _axis(written: str) -> tuple[str, float | None]:
    """The axis' name and its window, from the vendor's words ("req-10-second" is requests in 10 s)."""
    name = written.replace("-", "_")
    found = _WINDOWED.fullmatch(name)
    if found is None:
        return _AXES.get(name, name), None
    axis = _AXES.get(found["axis"], found["axis"])
    window = float(found["many"] or 1) * _WINDOW_SECONDS[found["unit"]]
    # Two windows of one unit are two limits: the short one is what a throttle wants under the plain
    # name.
    return (axis if window <= 60 else f"{axis}_{found['unit']}"), window


def _value(kind: str, value: str, now: datetime) -> dict[str, Any]:
    if kind == "reset":
        seconds = _reset_seconds(value, now)
        return {} if seconds is None else {"reset_seconds": seconds}
    amount = _float(value)
    if amount is None or amount < 0:
        return {}
    if kind == "utilization":  # a share of a limit that is not told: report it in thousandths
        return {"limit": 1000, "remaining": max(0, round((1 - amount) * 1000))}
    if kind == "renewalperiod":
        return {"window_seconds": amount}
    return {kind: int(amount)}


def _reset_seconds(value: str, now: datetime) -> float | None:
    seconds = parse_duration(value)
    if seconds is None:
        at = _timestamp(value)
        return None if at is None else max(0.0, (at - now).total_seconds())
    if seconds >= _EPOCH_MS:
        return max(0.0, seconds / 1000 - now.timestamp())
    if seconds >= _EPOCH_S:
        return max(0.0, seconds - now.timestamp())
    return max(0.0, seconds) if seconds >= 0 else None


def _read_draft(value: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The IETF draft: `"name";r=999;t=295` and, for the policy, `"name";q=1000;w=300`."""
    fields_of = {"r": "remaining", "t": "reset_seconds", "q": "limit", "w": "window_seconds"}
    for item in _DRAFT_ITEM.finditer(value):
        changes: dict[str, Any] = {}
        for found in _DRAFT_PARAM.finditer(item["params"]):
            target = fields_of.get(found["key"])
            if target:
                amount = int(found["value"])
                changes[target] = float(amount) if target.endswith("_seconds") else amount
        if changes:
            yield "requests" if "token" not in item["name"] else "tokens", changes


def _says_something(axis: Axis) -> bool:
    return axis.limit is not None or axis.remaining is not None or axis.reset_seconds is not None


def _lower(headers: object) -> dict[str, str]:
    """Header names in lower case, without LiteLLM's prefix; the vendor's own spelling wins over the
    copy.
    """
    plain: dict[str, str] = {}
    copied: dict[str, str] = {}
    for name, value in _pairs(headers):
        key = _string(name).lower()
        target = copied if key.startswith("llm_provider-") else plain
        target[key.removeprefix("llm_provider-")] = _string(value)[:_MAX_VALUE].strip()
    return {**copied, **plain}


def _pairs(headers: object) -> Iterable[tuple[object, object]]:
    listed = getattr(headers, "items", None)
    if callable(listed):
        return cast("Iterable[tuple[object, object]]", listed())
    return (
        cast("Iterable[tuple[object, object]]", headers)
        if isinstance(headers, (list, tuple))
        else ()
    )


def _string(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _float(value: str | None) -> float | None:
    try:
        amount = float(value or "")
    except ValueError:
        return None
    return amount if isfinite(amount) else None


def _http_date(value: str | None) -> datetime | None:
    try:
        at = parsedate_to_datetime(value or "")
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _timestamp(value: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return _http_date(value)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
