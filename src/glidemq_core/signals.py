"""Signals: messages to a job, from people or programs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ._codec import as_type
from ._units import instant
from .errors import InvalidOption, SignalMismatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A message that a wait has taken.

    Attributes:
        name: What it was sent as.
        data: What it carries.
        id: Made by the sender; sending the same id twice is one signal.
        sent_at: When, by the sender's clock.
    """

    name: str
    data: Any = None
    id: str = ""
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended:
    """A job that waits.

    Attributes:
        job_id, job_name: Which.
        waits_for: The signal's name; "*" for any.
        reason: What the handler gave as the reason.
        since, deadline: Aware instants; no deadline waits for ever.
    """

    job_id: str
    job_name: str
    waits_for: str
    reason: str = ""
    since: datetime | None = None
    deadline: datetime | None = None


def signal_of(entry: dict[str, Any]) -> Signal:
    """A stored message."""
    return Signal(
        name=entry.get("name", ""),
        data=entry.get("data"),
        id=entry.get("id", ""),
        sent_at=instant(entry.get("at")),
    )


def typed(signal: Signal, type: Any, job_id: str) -> Signal:
    """The same with its data as a value of `type`.

    Raises:
        SignalMismatch: They do not fit.
    """
    try:
        return replace(signal, data=as_type(signal.data, type, "data"))
    except InvalidOption as error:
        raise SignalMismatch(
            job_id, name=signal.name, signal_id=signal.id, field=error.field, reason=error.reason
        ) from error
