"""When a failed attempt is tried again."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ._units import Seconds, seconds
from .errors import InvalidOption

BackoffFunction: TypeAlias = Callable[[int, BaseException], Seconds]
"""A backoff of one's own: (number of the attempt that failed, its error) -> delay in seconds."""

logger = logging.getLogger(__name__)

_DEFAULT_CAP: Final = 3600.0
MAX_RETRY_AFTER: Final = 3600.0
_MAX_NAME: Final = 256
_NO_NAME: Final = f"not a name of 1 to {_MAX_NAME} characters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before the next attempt.

    Attributes:
        type: "fixed", "exponential" (delay, 2 x delay, 4 x delay, ...), or the name of a function given to the
            worker as `backoffs={name: function}`.
        delay: Seconds, the base.
        max_delay: Seconds, the cap.
        jitter: The fraction of the delay that is random: 0.2 waits between 80 % and 100 % of it.
    """

    type: Literal["fixed", "exponential"] | str = "exponential"
    delay: Seconds = 1.0
    max_delay: Seconds = _DEFAULT_CAP
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.type, str) or not 0 < len(self.type) <= _MAX_NAME:  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
            raise InvalidOption("backoff.type", self.type, _NO_NAME)
        seconds(self.delay, "backoff.delay")
        seconds(self.max_delay, "backoff.max_delay")
        jitter = self.jitter
        if isinstance(jitter, bool) or not isinstance(jitter, int | float) or not 0 <= jitter <= 1:  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
            raise InvalidOption("backoff.jitter", jitter, "not between 0 and 1")

    def to_wire(self) -> dict[str, object]:
        """The form in which a job carries it; seconds as floats."""
        return {
            "type": self.type,
            "delay": seconds(self.delay, "backoff.delay"),
            "max_delay": seconds(self.max_delay, "backoff.max_delay"),
            "jitter": self.jitter,
        }


def as_backoff(value: Backoff | Seconds | str | None, field: str = "backoff") -> Backoff | None:
    """What `backoff=` takes: a Backoff, a fixed delay, or the name of a function of the worker's.

    Raises:
        InvalidOption: It is none of these.
    """
    if value is None or isinstance(value, Backoff):
        return value
    if isinstance(value, str):
        if not 0 < len(value) <= _MAX_NAME:
            raise InvalidOption(field, value, _NO_NAME)
        return Backoff(type=value)
    return Backoff(type="fixed", delay=seconds(value, field))


def delay_after(
    wire: Mapping[str, object] | None,
    attempt: int,
    error: BaseException,
    functions: Mapping[str, BackoffFunction],
    *,
    max_retry_after: float = MAX_RETRY_AFTER,
    rng: Callable[[], float] = random.random,
) -> float:
    """Seconds to wait after attempt number `attempt` (from 1) failed.

    An error's own `retry_after` (seconds), up to `max_retry_after`, is the least that is waited. A function that the
    worker does not know, or that fails, counts as exponential from one second.
    """
    least = asked_wait(error, max_retry_after)
    if wire is None:
        return least
    kind = str(wire["type"])
    base, cap, jitter = (float(str(wire[name])) for name in ("delay", "max_delay", "jitter"))
    own = _own_delay(functions[kind], kind, attempt, error) if kind in functions else None
    if own is not None:
        delay = own
    elif kind == "fixed":
        delay = base
    else:
        delay = base * 2.0 ** min(attempt - 1, 60)
    delay = min(delay, cap)
    return max(delay - delay * jitter * rng(), least)


def asked_wait(error: BaseException, longest: float) -> float:
    """Seconds that an error asks to wait by its `retry_after`, up to `longest`: what others say must not put a job off for
    years.
    """
    asked = getattr(error, "retry_after", None)
    if not isinstance(asked, int | float) or not asked > 0:  # which NaN isn't
        return 0.0
    if asked > longest:
        logger.warning(
            "%s asks to wait for %g s: %g s are waited (max_retry_after)",
            type(error).__name__,
            min(asked, 1e18),
            longest,
        )
    return float(min(asked, longest))


def _own_delay(
    function: BackoffFunction, name: str, attempt: int, error: BaseException
) -> float | None:
    try:
        return seconds(function(attempt, error), f"backoffs[{name!r}]")
    except Exception:  # a user's function: its mistake must not lose the job
        logger.exception("backoff function %r failed", name)
        return None
